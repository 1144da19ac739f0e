//! The framing of the control port: bytes in any pieces, whole checked frames out.
//!
//! ```text
//! offset 0       4        5     6  8           12           12 + length
//!        magic   version  kind  0  length      payload ...  crc32
//!        "FRtr"  u8       u8       u32 LE      <= 4 MiB     u32 LE, over version..payload
//! ```
//!
//! The agent's port (`snowflock_engine::wire`) has frames of 512 bytes, for a clone reads them on cold
//! pages; a ruleset is a thousand times as large. After garbage the next frame is found by its magic.

/// The four bytes that open a frame.
pub const MAGIC: [u8; 4] = *b"FRtr";
/// The version of the messages. The frame's own layout is the same in all versions.
pub const VERSION: u8 = 1;
/// The largest payload: the largest ruleset that a configuration can ask for takes half of it.
pub const MAX_PAYLOAD: usize = 4 << 20;

const HEADER: usize = 12;
const CRC: usize = 4;

/// One frame whose checksum was right. Its version, kind and payload are not judged yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The sender's version.
    pub version: u8,
    /// What kind of message it is.
    pub kind: u8,
    /// The message.
    pub payload: Vec<u8>,
}

/// Puts a frame around a payload; `None` if it is too large.
#[must_use]
pub fn seal(kind: u8, payload: &[u8]) -> Option<Vec<u8>> {
    let length = u32::try_from(payload.len()).ok().filter(|_| payload.len() <= MAX_PAYLOAD)?;
    let mut bytes = MAGIC.to_vec();
    bytes.extend([VERSION, kind, 0, 0]);
    bytes.extend(length.to_le_bytes());
    bytes.extend(payload);
    let sum = crc32fast::hash(&bytes[MAGIC.len()..]);
    bytes.extend(sum.to_le_bytes());
    Some(bytes)
}

/// Takes bytes as they come and gives frames.
#[derive(Debug, Default)]
pub struct Decoder {
    waiting: Vec<u8>,
}

impl Decoder {
    /// Takes bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.waiting.extend(bytes);
    }

    /// The next whole frame, or `None` when more bytes are needed.
    pub fn next_frame(&mut self) -> Option<Frame> {
        loop {
            self.skip_to_magic();
            let header = self.waiting.get(..HEADER)?;
            let length = u32::from_le_bytes([header[8], header[9], header[10], header[11]]) as usize;
            if length > MAX_PAYLOAD {
                self.waiting.remove(0);
                continue;
            }
            let end = HEADER + length;
            let sum = self.waiting.get(end..end + CRC)?;
            if crc32fast::hash(&self.waiting[MAGIC.len()..end]).to_le_bytes() != sum {
                self.waiting.remove(0);
                continue;
            }
            let (version, kind) = (header[4], header[5]);
            let payload = self.waiting[HEADER..end].to_vec();
            self.waiting.drain(..end + CRC);
            return Some(Frame { version, kind, payload });
        }
    }

    /// Drops what cannot be the beginning of a frame; a magic cut short at the end stays.
    fn skip_to_magic(&mut self) {
        let opens = |at: &usize| {
            let rest = &self.waiting[*at..];
            let shown = rest.len().min(MAGIC.len());
            rest[..shown] == MAGIC[..shown]
        };
        let garbage = (0..self.waiting.len()).find(opens).unwrap_or(self.waiting.len());
        self.waiting.drain(..garbage);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(decoder: &mut Decoder) -> Vec<(u8, Vec<u8>)> {
        std::iter::from_fn(|| decoder.next_frame()).map(|frame| (frame.kind, frame.payload)).collect()
    }

    #[test]
    fn a_payload_at_the_limit_passes_and_a_larger_one_does_not() {
        let mut decoder = Decoder::default();
        decoder.push(&seal(1, &vec![7; MAX_PAYLOAD]).unwrap());
        assert_eq!(all(&mut decoder), [(1, vec![7; MAX_PAYLOAD])]);
        assert_eq!(seal(1, &vec![7; MAX_PAYLOAD + 1]), None);
    }

    #[test]
    fn a_length_over_the_limit_is_not_waited_for() {
        let mut bad = seal(1, b"x").unwrap();
        bad[8..12].copy_from_slice(&(MAX_PAYLOAD as u32 + 1).to_le_bytes());
        let mut decoder = Decoder::default();
        decoder.push(&bad);
        decoder.push(&seal(2, b"kept").unwrap());
        assert_eq!(all(&mut decoder), [(2, b"kept".to_vec())]);
    }

    #[test]
    fn a_flipped_bit_loses_that_frame_only() {
        let good = seal(3, b"kept").unwrap();
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            let mut decoder = Decoder::default();
            decoder.push(&bad);
            assert!(all(&mut decoder).is_empty(), "bit {bit}");
        }
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting_and_noise_before_them(
            noise in prop::collection::vec(any::<u8>().prop_filter("no magic", |b| *b != b'F'), 0..40),
            frames in prop::collection::vec((any::<u8>(), prop::collection::vec(any::<u8>(), 0..200)), 1..5),
            piece in 1usize..300,
        ) {
            let mut stream = noise;
            stream.extend(frames.iter().flat_map(|(kind, payload)| seal(*kind, payload).unwrap()));
            let (mut decoder, mut out) = (Decoder::default(), Vec::new());
            for bytes in stream.chunks(piece) {
                decoder.push(bytes);
                out.extend(all(&mut decoder));
            }
            prop_assert_eq!(out, frames);
        }
    }
}
