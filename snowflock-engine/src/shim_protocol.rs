//! What the host side and the library inside QEMU say to each other.
//!
//!   host -> shim  `Describe`          tell me where guest memory is
//!   host -> shim  `Adopt` + image     map this image instead, privately (a hollow clone)
//!   shim -> host  `Region` + uffd, memory file
//!   shim -> host  `Failed(errno)`
//!
//! One message each way, over SEQPACKET (see [`crate::sys::fdpass`]). Both ends
//! are built from one source, so the version only catches a mixed installation.

use std::io;

const MAGIC: [u8; 4] = *b"SFSH";
const VERSION: u8 = 1;
const HEADER: usize = 6;

/// Environment variable: number of the inherited file descriptor of the RAM file.
pub const ENV_RAM_FD: &str = "SNOWFLOCK_RAM_FD";
/// Environment variable: path of the socket at which the shim listens.
pub const ENV_SOCKET: &str = "SNOWFLOCK_SOCKET";
/// Environment variable: `1` maps guest memory privately (a clone) though QEMU asks for a shared mapping.
pub const ENV_PRIVATE: &str = "SNOWFLOCK_PRIVATE";

/// What the host asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Request {
    /// Register guest memory and hand it over.
    Describe,
    /// Map the image that comes with this message in place of guest memory, then as `Describe`.
    Adopt,
}

/// What the shim answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reply {
    /// Where guest memory is in QEMU; userfaultfd and memory file come with the message.
    Region {
        /// Start in QEMU's address space, bytes.
        address: u64,
        /// Length, bytes.
        len: u64,
    },
    /// A system call failed with this number.
    Failed {
        /// As in errno(3).
        errno: i32,
    },
}

impl Request {
    /// The message.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        let kind = match self {
            Self::Describe => 1,
            Self::Adopt => 2,
        };
        header(kind)
    }

    /// Reads a message.
    ///
    /// # Errors
    /// Another protocol, another version, or an unknown request.
    pub fn decode(bytes: &[u8]) -> io::Result<Self> {
        match check(bytes)? {
            (1, []) => Ok(Self::Describe),
            (2, []) => Ok(Self::Adopt),
            (kind, rest) => Err(bad(format!("request {kind} with {} bytes", rest.len()))),
        }
    }
}

impl Reply {
    /// The message.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        match self {
            Self::Region { address, len } => {
                [header(3), address.to_le_bytes().into(), len.to_le_bytes().into()].concat()
            }
            Self::Failed { errno } => [header(4), errno.to_le_bytes().into()].concat(),
        }
    }

    /// Reads a message.
    ///
    /// # Errors
    /// Another protocol, another version, or an unknown reply.
    pub fn decode(bytes: &[u8]) -> io::Result<Self> {
        let (kind, rest) = check(bytes)?;
        match (kind, rest.len()) {
            (3, 16) => Ok(Self::Region { address: word(&rest[..8]), len: word(&rest[8..]) }),
            (4, 4) => Ok(Self::Failed { errno: word(rest) as i32 }),
            (kind, n) => Err(bad(format!("reply {kind} with {n} bytes"))),
        }
    }
}

fn header(kind: u8) -> Vec<u8> {
    [&MAGIC[..], &[VERSION, kind]].concat()
}

fn check(bytes: &[u8]) -> io::Result<(u8, &[u8])> {
    match bytes.split_at_checked(HEADER) {
        Some((head, rest)) if head[..4] == MAGIC && head[4] == VERSION => Ok((head[5], rest)),
        Some((head, _)) if head[..4] == MAGIC => {
            Err(bad(format!("version {} of the shim, version {VERSION} here", head[4])))
        }
        _ => Err(bad("not a message of the shim".into())),
    }
}

fn word(bytes: &[u8]) -> u64 {
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

fn bad(what: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_come_back_as_they_were_sent() {
        for request in [Request::Describe, Request::Adopt] {
            assert_eq!(Request::decode(&request.encode()).unwrap(), request);
        }
        for reply in [Reply::Region { address: u64::MAX - 7, len: 1 << 30 }, Reply::Failed { errno: 12 }] {
            assert_eq!(Reply::decode(&reply.encode()).unwrap(), reply);
        }
    }

    #[test]
    fn another_version_is_named_in_the_refusal() {
        let mut bytes = Request::Describe.encode();
        bytes[4] = 9;
        assert!(Request::decode(&bytes).unwrap_err().to_string().contains("version 9"));
    }

    #[test]
    fn a_cut_or_foreign_message_is_refused() {
        assert!(Reply::decode(b"SF").is_err());
        assert!(Reply::decode(b"HTTP/1.1 200 OK").is_err());
        assert!(Reply::decode(&Request::Adopt.encode()).is_err());
    }
}
