//! The framing of the agent's port: bytes in any pieces, whole checked frames out.
//!
//! ```text
//! offset 0        4        5     6         8            8 + length
//!        magic    version  kind  length    payload ...  crc32
//!        "\xF1FLY" u8      u8    u16 LE    <= 512 B     u32 LE, over version..payload
//! ```
//!
//! It knows nothing of what a payload means. After garbage (a guest was frozen half-way through a
//! frame, a hostile guest writes noise) it finds the next frame by itself and counts what it dropped.
//! Nothing here allocates: a clone runs this code first of all, on cold pages.

/// The four bytes that open a frame.
pub const MAGIC: [u8; 4] = [0xF1, b'F', b'L', b'Y'];
/// The version of the messages that this code speaks. The frame's own layout is the same in all versions.
pub const VERSION: u8 = 1;
/// The largest payload: a full `Identify` with its longest host name takes a third of it.
pub const MAX_PAYLOAD: usize = 512;
/// The largest frame on the wire, in bytes.
pub const MAX_FRAME: usize = HEADER + MAX_PAYLOAD + CRC;

const HEADER: usize = 8;
const CRC: usize = 4;
/// Room for one frame that is still coming in and one that came in behind it.
const CAPACITY: usize = 2 * MAX_FRAME;

const _: () = assert!(MAX_PAYLOAD <= u16::MAX as usize);

/// One frame whose checksum was right. Its version, kind and payload are not judged yet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame<'a> {
    /// The sender's message version.
    pub version: u8,
    /// What kind of message the payload is.
    pub kind: u8,
    /// The message's fields, at most [`MAX_PAYLOAD`] bytes.
    pub payload: &'a [u8],
}

/// Puts a frame around `fill`'s payload. `fill` gets the room for the payload and returns how much it used.
pub(super) fn seal(kind: u8, out: &mut [u8; MAX_FRAME], fill: impl FnOnce(&mut [u8]) -> usize) -> &[u8] {
    let length = fill(&mut out[HEADER..HEADER + MAX_PAYLOAD]);
    out[..4].copy_from_slice(&MAGIC);
    out[4] = VERSION;
    out[5] = kind;
    out[6..8].copy_from_slice(&(length as u16).to_le_bytes());
    let end = HEADER + length;
    let sum = crc32(&out[4..end]);
    out[end..end + CRC].copy_from_slice(&sum.to_le_bytes());
    &out[..end + CRC]
}

/// What the bytes at some place of the buffer are.
enum Verdict {
    /// A frame with the right checksum that ends here.
    Whole(usize),
    /// Perhaps the beginning of a frame.
    Short,
    /// No frame.
    Garbage,
}

/// Takes bytes as they come and gives frames.
#[derive(Debug, Clone)]
pub struct Decoder {
    buffer: [u8; CAPACITY],
    start: usize,
    end: usize,
    dropped: u64,
}

impl Default for Decoder {
    fn default() -> Self {
        Self::new()
    }
}

impl Decoder {
    /// An empty decoder.
    pub const fn new() -> Self {
        Self { buffer: [0; CAPACITY], start: 0, end: 0, dropped: 0 }
    }

    /// Room to read into; never empty once [`Decoder::next_frame`] has returned `None`.
    /// Tell how much was read with [`Decoder::filled`].
    pub fn space(&mut self) -> &mut [u8] {
        if self.start > 0 {
            self.buffer.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        &mut self.buffer[self.end..]
    }

    /// `count` bytes were read into [`Decoder::space`].
    pub fn filled(&mut self, count: usize) {
        self.end = (self.end + count).min(CAPACITY);
    }

    /// Takes as many of `bytes` as there is room for and returns how many that were.
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let room = self.space();
        let count = room.len().min(bytes.len());
        room[..count].copy_from_slice(&bytes[..count]);
        self.filled(count);
        count
    }

    /// Bytes thrown away so far because they belonged to no valid frame.
    pub fn dropped(&self) -> u64 {
        self.dropped
    }

    /// The next whole frame, or `None` when more bytes are needed.
    ///
    /// A frame that is cut short does not hide a whole one behind it: a guest may have been frozen in
    /// the middle of the first. (No field of a message can hold a whole frame: texts are UTF-8 and the
    /// magic is not.)
    pub fn next_frame(&mut self) -> Option<Frame<'_>> {
        loop {
            self.skip_to_magic();
            match self.judge(self.start) {
                Verdict::Whole(end) => {
                    let frame = &self.buffer[self.start..end - CRC];
                    self.start = end;
                    return Some(Frame { version: frame[4], kind: frame[5], payload: &frame[HEADER..] });
                }
                Verdict::Garbage => self.drop_bytes(1),
                Verdict::Short => {
                    let later = self.whole_behind()?;
                    self.drop_bytes(later - self.start);
                }
            }
        }
    }

    /// What the bytes from `at` on are.
    fn judge(&self, at: usize) -> Verdict {
        let waiting = &self.buffer[at..self.end];
        if waiting.len() < HEADER {
            return Verdict::Short;
        }
        let length = usize::from(u16::from_le_bytes([waiting[6], waiting[7]]));
        let whole = HEADER + length + CRC;
        if length > MAX_PAYLOAD {
            Verdict::Garbage
        } else if waiting.len() < whole {
            Verdict::Short
        } else if crc32(&waiting[4..whole - CRC]).to_le_bytes() == waiting[whole - CRC..whole] {
            Verdict::Whole(at + whole)
        } else {
            Verdict::Garbage
        }
    }

    /// Where a whole frame begins behind the one that is cut short.
    fn whole_behind(&self) -> Option<usize> {
        let magics = (self.start + 1..self.end).filter(|at| self.buffer[*at..self.end].starts_with(&MAGIC));
        magics.into_iter().find(|at| matches!(self.judge(*at), Verdict::Whole(_)))
    }

    /// Drops what cannot be the beginning of a frame; a magic cut short at the end stays.
    fn skip_to_magic(&mut self) {
        let waiting = &self.buffer[self.start..self.end];
        let opens = |at: &usize| {
            let rest = &waiting[*at..];
            let shown = rest.len().min(MAGIC.len());
            rest[..shown] == MAGIC[..shown]
        };
        let garbage = (0..waiting.len()).find(opens).unwrap_or(waiting.len());
        self.drop_bytes(garbage);
    }

    fn drop_bytes(&mut self, count: usize) {
        self.start += count;
        self.dropped += count as u64;
    }
}

/// CRC-32 (IEEE 802.3), by half bytes: a table of one cache line, little code to translate.
fn crc32(bytes: &[u8]) -> u32 {
    let mut sum = !0u32;
    for byte in bytes {
        sum ^= u32::from(*byte);
        sum = (sum >> 4) ^ NIBBLES[(sum & 15) as usize];
        sum = (sum >> 4) ^ NIBBLES[(sum & 15) as usize];
    }
    !sum
}

const NIBBLES: [u32; 16] = nibbles();

const fn nibbles() -> [u32; 16] {
    let mut table = [0; 16];
    let mut i = 0;
    while i < 16 {
        let mut sum = i as u32;
        let mut bit = 0;
        while bit < 4 {
            sum = if sum & 1 == 1 { (sum >> 1) ^ 0xEDB8_8320 } else { sum >> 1 };
            bit += 1;
        }
        table[i] = sum;
        i += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sealed(kind: u8, payload: &[u8]) -> Vec<u8> {
        let mut out = [0; MAX_FRAME];
        seal(kind, &mut out, |room| {
            room[..payload.len()].copy_from_slice(payload);
            payload.len()
        })
        .to_vec()
    }

    /// Feeds `pieces` one after another and collects all frames as (kind, payload).
    fn decode_all<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> (Vec<(u8, Vec<u8>)>, Decoder) {
        let (mut decoder, mut frames) = (Decoder::new(), Vec::new());
        for mut piece in pieces {
            while !piece.is_empty() {
                let taken = decoder.push(piece);
                assert!(taken > 0, "a drained decoder always has room");
                piece = &piece[taken..];
                while let Some(frame) = decoder.next_frame() {
                    frames.push((frame.kind, frame.payload.to_vec()));
                }
            }
        }
        (frames, decoder)
    }

    #[test]
    fn the_checksum_is_the_well_known_crc_32() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
    }

    #[test]
    fn a_flipped_bit_anywhere_in_a_frame_loses_that_frame_only() {
        let good = sealed(7, b"kept");
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            // Enough good frames to outlast a length field that grew.
            let tail = good.repeat(64);
            let (frames, _) = decode_all([bad.as_slice(), tail.as_slice()]);
            let exact = frames.iter().all(|f| f == &(7, b"kept".to_vec()));
            assert!(exact && frames.len() >= 64 - MAX_FRAME / good.len() - 1, "bit {bit}: {}", frames.len());
        }
    }

    #[test]
    fn a_frame_cut_off_by_a_fork_does_not_hide_the_next_one() {
        let whole = sealed(1, &[9; MAX_PAYLOAD]);
        let identify = sealed(2, &[5; 100]);
        for cut in 1..whole.len() {
            let (frames, _) = decode_all([&whole[..cut], identify.as_slice()]);
            assert_eq!(frames, [(2, vec![5; 100])], "cut after {cut} bytes");
        }
    }

    #[test]
    fn a_length_over_the_limit_is_dropped_without_waiting_for_it() {
        let mut bad = sealed(1, b"x");
        bad[6..8].copy_from_slice(&((MAX_PAYLOAD + 1) as u16).to_le_bytes());
        let good = sealed(3, b"y");
        let (frames, decoder) = decode_all([bad.as_slice(), good.as_slice()]);
        assert_eq!(frames, [(3, b"y".to_vec())]);
        assert_eq!(decoder.dropped(), bad.len() as u64);
    }

    #[test]
    fn the_largest_payload_passes() {
        let (frames, _) = decode_all([sealed(4, &[0xAA; MAX_PAYLOAD]).as_slice()]);
        assert_eq!(frames, [(4, vec![0xAA; MAX_PAYLOAD])]);
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting_into_pieces(
            frames in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..=MAX_PAYLOAD)), 1..6),
            piece in 1usize..700,
        ) {
            let stream: Vec<u8> = frames.iter().flat_map(|(kind, payload)| sealed(*kind, payload)).collect();
            let (out, decoder) = decode_all(stream.chunks(piece));
            prop_assert_eq!(out, frames);
            prop_assert_eq!(decoder.dropped(), 0);
        }

        #[test]
        fn noise_never_panics_and_a_quiet_line_recovers(
            noise in prop::collection::vec(prop_oneof![Just(0xF1u8), Just(b'F'), Just(b'L'), Just(b'Y'), any::<u8>()], 0..3000),
        ) {
            let tail = sealed(9, b"after the noise").repeat(40);
            let (frames, _) = decode_all([noise.as_slice(), tail.as_slice()]);
            prop_assert!(frames.iter().any(|f| f == &(9, b"after the noise".to_vec())));
        }
    }
}
