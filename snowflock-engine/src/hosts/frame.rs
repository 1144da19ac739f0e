//! Frames of the control protocol: bytes in any pieces, whole payloads out, or a reason to hang up.
//!
//! ```text
//! offset 0       4          6       8           12             12 + length
//!        magic   version    kind    length      payload ...
//!        "SFCP"  u16 BE     u16 BE  u32 BE      JSON, at most MAX_PAYLOAD bytes
//! ```
//!
//! This layout, and what a frame of the kind `refusal` holds, are the same in all versions, so that two
//! that do not understand each other can say so. TLS below keeps bytes whole; there is no checksum.

/// The four bytes that open a frame.
pub const MAGIC: [u8; 4] = *b"SFCP";
/// The version of the messages that this code speaks.
pub const VERSION: u16 = 2;
/// Bytes before the payload.
pub const HEADER: usize = 12;
/// The largest payload: the view of 4,000 clones, or the wishes for as many.
pub const MAX_PAYLOAD: usize = 1 << 20;

/// What a payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A message of this version.
    Message,
    /// The last frame of a connection: why it ends, as a JSON string.
    Refusal,
}

impl Kind {
    fn number(self) -> u16 {
        match self {
            Self::Message => 1,
            Self::Refusal => 2,
        }
    }
}

/// A whole frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What the payload is.
    pub kind: Kind,
    /// The payload.
    pub payload: Vec<u8>,
}

/// Why no further frame can be read from a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// It is not this protocol.
    #[error("this is not the control protocol: it begins with {0:02x?}, not with \"SFCP\"")]
    Foreign([u8; 4]),
    /// Another version.
    #[error(
        "the other end speaks version {theirs} of the control protocol, this one version {VERSION}: install the same release on all hosts"
    )]
    Version {
        /// The other end's.
        theirs: u16,
    },
    /// A kind that this version does not have.
    #[error("frames of kind {0} are unknown")]
    Kind(u16),
    /// More than is allowed.
    #[error("a frame of {0} bytes was announced, at most {MAX_PAYLOAD} are allowed")]
    TooLong(u32),
}

/// The frame around a payload.
///
/// # Errors
/// The payload is longer than [`MAX_PAYLOAD`].
pub fn encode(kind: Kind, payload: &[u8]) -> Result<Vec<u8>, FrameError> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    if payload.len() > MAX_PAYLOAD {
        return Err(FrameError::TooLong(length));
    }
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.extend_from_slice(&MAGIC);
    bytes.extend_from_slice(&VERSION.to_be_bytes());
    bytes.extend_from_slice(&kind.number().to_be_bytes());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(payload);
    Ok(bytes)
}

/// Takes bytes as they come and gives frames. After an error it gives that error for ever.
#[derive(Debug, Default)]
pub struct Decoder {
    buffer: Vec<u8>,
}

impl Decoder {
    /// Takes bytes. Ask for frames after each piece: what waits is then never longer than one frame and
    /// one piece.
    pub fn push(&mut self, bytes: &[u8]) {
        self.buffer.extend_from_slice(bytes);
    }

    /// Whether a frame has begun and not ended.
    #[must_use]
    pub fn is_amid_frame(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// The next whole frame; `None` when more bytes are needed.
    ///
    /// # Errors
    /// See [`FrameError`]. They are found in the header, before any of the payload is waited for.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, FrameError> {
        let Some((kind, length)) = self.header()? else { return Ok(None) };
        let end = HEADER + length;
        if self.buffer.len() < end {
            return Ok(None);
        }
        let payload = self.buffer[HEADER..end].to_vec();
        self.buffer.drain(..end);
        Ok(Some(Frame { kind, payload }))
    }

    /// Kind and length of the frame that has begun.
    fn header(&self) -> Result<Option<(Kind, usize)>, FrameError> {
        let Some(header) = self.buffer.first_chunk::<HEADER>() else { return Ok(None) };
        let [a, b, c, d, v, w, k, l, length @ ..] = *header;
        if [a, b, c, d] != MAGIC {
            return Err(FrameError::Foreign([a, b, c, d]));
        }
        let kind = match u16::from_be_bytes([k, l]) {
            1 => Ok(Kind::Message),
            2 => Ok(Kind::Refusal),
            other => Err(FrameError::Kind(other)),
        };
        let theirs = u16::from_be_bytes([v, w]);
        if theirs != VERSION && kind != Ok(Kind::Refusal) {
            return Err(FrameError::Version { theirs });
        }
        let length = u32::from_be_bytes(length);
        if length as usize > MAX_PAYLOAD {
            return Err(FrameError::TooLong(length));
        }
        Ok(Some((kind?, length as usize)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn only(bytes: &[u8]) -> Result<Option<Frame>, FrameError> {
        let mut decoder = Decoder::default();
        decoder.push(bytes);
        decoder.next_frame()
    }

    fn with(at: usize, bytes: &[u8]) -> Vec<u8> {
        let mut frame = encode(Kind::Message, b"{}").unwrap();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    }

    #[test]
    fn each_wrong_field_of_a_header_is_told_before_the_payload_has_come() {
        assert_eq!(only(b"GET / HTTP/1.1"), Err(FrameError::Foreign(*b"GET ")));
        assert_eq!(only(&with(4, &[0, 9])[..HEADER]), Err(FrameError::Version { theirs: 9 }));
        assert_eq!(only(&with(6, &[0, 9])[..HEADER]), Err(FrameError::Kind(9)));
        let long = (MAX_PAYLOAD as u32 + 1).to_be_bytes();
        assert_eq!(only(&with(8, &long)[..HEADER]), Err(FrameError::TooLong(MAX_PAYLOAD as u32 + 1)));
    }

    #[test]
    fn a_refusal_of_any_version_is_understood() {
        let mut refusal = encode(Kind::Refusal, b"\"too new\"").unwrap();
        refusal[4..6].copy_from_slice(&7u16.to_be_bytes());
        let frame = only(&refusal).unwrap().unwrap();
        assert_eq!((frame.kind, frame.payload.as_slice()), (Kind::Refusal, b"\"too new\"".as_slice()));
    }

    #[test]
    fn the_longest_payload_passes_and_a_longer_one_is_not_sent() {
        let longest = encode(Kind::Message, &vec![7; MAX_PAYLOAD]).unwrap();
        assert_eq!(only(&longest).unwrap().unwrap().payload.len(), MAX_PAYLOAD);
        let longer = encode(Kind::Message, &vec![7; MAX_PAYLOAD + 1]);
        assert_eq!(longer, Err(FrameError::TooLong(MAX_PAYLOAD as u32 + 1)));
    }

    proptest! {
        #[test]
        fn frames_survive_any_cutting_into_pieces(
            payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..200), 1..6),
            piece in 1usize..90,
        ) {
            let stream: Vec<u8> =
                payloads.iter().flat_map(|payload| encode(Kind::Message, payload).unwrap()).collect();
            let (mut decoder, mut out) = (Decoder::default(), Vec::new());
            for piece in stream.chunks(piece) {
                decoder.push(piece);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    out.push(frame.payload);
                }
            }
            prop_assert_eq!(out, payloads);
            prop_assert!(!decoder.is_amid_frame());
        }
    }
}
