//! Finds the borders between messages in the raw bytes of a client, and refuses what
//! two parsers could understand in two ways (request smuggling).
//!
//!   head lines -> (nothing | so many bytes | chunks and trailers) -> head lines ...
//!
//! hyper parses the messages themselves and refuses a malformed one; but it repairs
//! some shapes silently (a bare LF, Transfer-Encoding beside Content-Length, a repeated
//! Content-Length), and what was repaired must not be forwarded. This scanner sees the
//! bytes before hyper does and is never more lenient. It allocates only for a line that
//! comes in parts.

use memchr::memchr;

/// What is wrong with the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// A line ends in LF without CR.
    #[error("a line ends without a carriage return")]
    BareLineFeed,
    /// Both Content-Length and Transfer-Encoding.
    #[error("both Content-Length and Transfer-Encoding are given")]
    LengthAndEncoding,
    /// More than one Content-Length, or a list in it.
    #[error("Content-Length is given more than once")]
    RepeatedLength,
    /// Content-Length is no plain decimal number.
    #[error("Content-Length is not a number")]
    BadLength,
    /// Transfer-Encoding is anything but one `chunked`.
    #[error("Transfer-Encoding is not `chunked`")]
    BadEncoding,
    /// The size of a chunk is not plain hexadecimal.
    #[error("the size of a chunk is malformed")]
    BadChunkSize,
    /// A chunk is longer or shorter than its size says.
    #[error("a chunk does not end where its size says")]
    BadChunkEnd,
    /// A trailer that would change how a message is read.
    #[error("a trailer is not allowed to be one")]
    BadTrailer,
    /// A line is longer than any limit.
    #[error("a line is too long")]
    LongLine,
    /// Too many empty lines before a request.
    #[error("too many empty lines before a request")]
    EmptyLines,
}

/// A refusal, and the index of the byte that must not be passed on.
pub type Verdict = Result<(), (usize, Malformed)>;

/// Longest line; above hyper's limit for a whole head, so that its answer (431) comes first.
const MAX_LINE: usize = 128 * 1024;
/// Longest line with the size of a chunk and its extensions.
const MAX_CHUNK_LINE: usize = 1024;
/// Empty lines that are skipped before a request (RFC 9112 2.2 wants at least one).
const MAX_EMPTY_LINES: u8 = 4;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Before the request line, after so many empty ones.
    Start(u8),
    /// In the header fields.
    Fields,
    /// In a body with so many bytes to come.
    Body(u64),
    /// Before or in the line with the size of a chunk.
    ChunkSize,
    /// In a chunk with so many bytes to come.
    Chunk(u64),
    /// Before or in the line end after a chunk.
    ChunkEnd,
    /// In the trailers.
    Trailers,
    /// Behind a CONNECT, of which the connection is no further use for HTTP.
    Tunnel,
}

/// The scanner of one connection.
#[derive(Debug)]
pub struct Scanner {
    at: At,
    partial: Vec<u8>,
    length: Option<u64>,
    chunked: bool,
    connect: bool,
}

impl Default for Scanner {
    fn default() -> Self {
        Self { at: At::Start(0), partial: Vec::new(), length: None, chunked: false, connect: false }
    }
}

impl Scanner {
    /// Whether the last byte seen ended a message (or none was seen).
    pub fn between_messages(&self) -> bool {
        matches!(self.at, At::Start(_)) && self.partial.is_empty()
    }

    /// Whether the bytes so far end inside of a head.
    pub fn in_head(&self) -> bool {
        matches!(self.at, At::Start(_) | At::Fields) && !self.between_messages()
    }

    /// Scans the next bytes of the connection.
    ///
    /// # Errors
    /// The first thing that must not be passed on; the connection is of no use then.
    pub fn scan(&mut self, bytes: &[u8]) -> Verdict {
        let mut from = 0;
        while from < bytes.len() {
            let rest = &bytes[from..];
            from += match self.at {
                At::Body(left) => self.skip(rest, left, At::Start(0), At::Body),
                At::Chunk(left) => self.skip(rest, left, At::ChunkEnd, At::Chunk),
                // Accepted, these are bytes of the tunnel; refused, the connection is closed.
                At::Tunnel => rest.len(),
                _ => self.line(rest).map_err(|(at, why)| (from + at, why))?,
            };
        }
        Ok(())
    }

    /// Passes over body bytes without looking at them.
    fn skip(&mut self, rest: &[u8], left: u64, after: At, within: fn(u64) -> At) -> usize {
        let skipped = usize::try_from(left).unwrap_or(usize::MAX).min(rest.len());
        let left = left - skipped as u64;
        self.at = if left == 0 { after } else { within(left) };
        skipped
    }

    /// Takes one line, or what there is of it; returns the number of bytes taken.
    fn line(&mut self, rest: &[u8]) -> Result<usize, (usize, Malformed)> {
        let Some(end) = memchr(b'\n', rest) else {
            if self.partial.len() + rest.len() > self.longest_line() {
                return Err((0, Malformed::LongLine));
            }
            self.partial.extend_from_slice(rest);
            return Ok(rest.len());
        };
        let before = if end > 0 { Some(rest[end - 1]) } else { self.partial.last().copied() };
        if before != Some(b'\r') {
            return Err((end, Malformed::BareLineFeed));
        }
        let taken = if self.partial.is_empty() {
            self.whole_line(&rest[..end - 1])
        } else {
            let mut line = std::mem::take(&mut self.partial);
            line.extend_from_slice(&rest[..end]);
            line.pop();
            let taken = self.whole_line(&line);
            line.clear();
            self.partial = line;
            taken
        };
        taken.map(|()| end + 1).map_err(|why| (end, why))
    }

    fn longest_line(&self) -> usize {
        if self.at == At::ChunkSize { MAX_CHUNK_LINE } else { MAX_LINE }
    }

    /// `line` is without its CR LF.
    fn whole_line(&mut self, line: &[u8]) -> Result<(), Malformed> {
        match self.at {
            At::Start(MAX_EMPTY_LINES) if line.is_empty() => return Err(Malformed::EmptyLines),
            At::Start(empty) if line.is_empty() => self.at = At::Start(empty + 1),
            At::Start(_) => {
                (self.length, self.chunked) = (None, false);
                self.connect = line.starts_with(b"CONNECT ");
                self.at = At::Fields;
            }
            At::Fields if line.is_empty() => self.at = self.after_head()?,
            At::Fields => self.field(line)?,
            At::ChunkSize => self.at = after_size(chunk_size(line)?),
            At::ChunkEnd if line.is_empty() => self.at = At::ChunkSize,
            At::ChunkEnd => return Err(Malformed::BadChunkEnd),
            At::Trailers if line.is_empty() => self.at = At::Start(0),
            At::Trailers => trailer(line)?,
            At::Body(_) | At::Chunk(_) | At::Tunnel => {}
        }
        Ok(())
    }

    #[inline]
    fn field(&mut self, line: &[u8]) -> Result<(), Malformed> {
        if let Some(value) = value_of(line, b"content-length") {
            let length = decimal(value).ok_or(Malformed::BadLength)?;
            if self.length.replace(length).is_some() {
                return Err(Malformed::RepeatedLength);
            }
        } else if let Some(value) = value_of(line, b"transfer-encoding") {
            if !value.eq_ignore_ascii_case(b"chunked") || self.chunked {
                return Err(Malformed::BadEncoding);
            }
            self.chunked = true;
        }
        Ok(())
    }

    fn after_head(&self) -> Result<At, Malformed> {
        match (self.length, self.chunked) {
            (Some(_), true) => Err(Malformed::LengthAndEncoding),
            _ if self.connect => Ok(At::Tunnel),
            (None, true) => Ok(At::ChunkSize),
            (None | Some(0), false) => Ok(At::Start(0)),
            (Some(length), false) => Ok(At::Body(length)),
        }
    }
}

fn after_size(size: u64) -> At {
    if size == 0 { At::Trailers } else { At::Chunk(size) }
}

/// The value of a field with this (lower case) name, without the white space around it.
#[inline]
fn value_of<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let colon = *line.get(name.len())?;
    if colon != b':' || !line[..name.len()].eq_ignore_ascii_case(name) {
        return None;
    }
    Some(line[name.len() + 1..].trim_ascii())
}

/// A plain decimal number. Lists, signs and white space inside are none.
fn decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The size of a chunk: hexadecimal digits, then nothing or `;` and extensions.
fn chunk_size(line: &[u8]) -> Result<u64, Malformed> {
    /// More digits would not fit a `u64`.
    const MAX_DIGITS: usize = 15;
    let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
    let extension = &line[digits..];
    let extension_is_plain = extension.is_empty()
        || (extension[0] == b';' && extension.iter().all(|byte| *byte == b'\t' || *byte >= b' '));
    if !(1..=MAX_DIGITS).contains(&digits) || !extension_is_plain {
        return Err(Malformed::BadChunkSize);
    }
    let digits = std::str::from_utf8(&line[..digits]).map_err(|_| Malformed::BadChunkSize)?;
    u64::from_str_radix(digits, 16).map_err(|_| Malformed::BadChunkSize)
}

fn trailer(line: &[u8]) -> Result<(), Malformed> {
    const FORBIDDEN: [&[u8]; 3] = [b"content-length", b"transfer-encoding", b"host"];
    let forbidden = FORBIDDEN.iter().any(|name| value_of(line, name).is_some());
    if forbidden { Err(Malformed::BadTrailer) } else { Ok(()) }
}

#[cfg(test)]
#[path = "framing_tests.rs"]
mod tests;
