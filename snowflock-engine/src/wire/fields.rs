//! The fields of a message: little-endian numbers, byte arrays and short names, bounded on both sides.

use super::RequestId;

/// The longest name, in bytes: a host name's label may have 63.
const MAX_NAME: usize = 63;

/// The named field is missing, cut short or out of its range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed(pub &'static str);

/// A short name (host name, hook), stored in place.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Name {
    length: u8,
    bytes: [u8; MAX_NAME],
}

impl Name {
    /// The empty name.
    pub const EMPTY: Self = Self { length: 0, bytes: [0; MAX_NAME] };

    /// A name from text; `None` when it is longer than 63 bytes.
    pub fn new(text: &str) -> Option<Self> {
        let mut name = Self::EMPTY;
        name.bytes.get_mut(..text.len())?.copy_from_slice(text.as_bytes());
        name.length = text.len() as u8;
        Some(name)
    }

    /// As much of the text as fits, cut at a character.
    pub fn cut(text: &str) -> Self {
        let end = (0..=text.len().min(MAX_NAME)).rev().find(|at| text.is_char_boundary(*at));
        Self::new(&text[..end.unwrap_or(0)]).unwrap_or(Self::EMPTY)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(self.raw()).unwrap_or("")
    }

    /// Is it empty or a host name's label (RFC 1123, section 2.1)?
    pub fn is_host_label(&self) -> bool {
        let raw = self.raw();
        let word = raw.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-');
        word && raw.first() != Some(&b'-') && raw.last() != Some(&b'-')
    }

    fn raw(&self) -> &[u8] {
        &self.bytes[..usize::from(self.length)]
    }
}

impl std::fmt::Debug for Name {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// Takes fields off the front of a payload.
pub(super) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn new(payload: &'a [u8]) -> Self {
        Self { rest: payload }
    }

    fn take(&mut self, count: usize, field: &'static str) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Malformed(field))?;
        self.rest = rest;
        Ok(taken)
    }

    pub(super) fn bytes<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], Malformed> {
        self.take(N, field)?.try_into().map_err(|_| Malformed(field))
    }

    pub(super) fn u8(&mut self, field: &'static str) -> Result<u8, Malformed> {
        self.bytes(field).map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self, field: &'static str) -> Result<u16, Malformed> {
        self.bytes(field).map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self, field: &'static str) -> Result<u32, Malformed> {
        self.bytes(field).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, field: &'static str) -> Result<u64, Malformed> {
        self.bytes(field).map(u64::from_le_bytes)
    }

    pub(super) fn request(&mut self) -> Result<RequestId, Malformed> {
        self.u32("request").map(RequestId)
    }

    pub(super) fn name(&mut self, field: &'static str) -> Result<Name, Malformed> {
        let length = usize::from(self.u8(field)?);
        let text = std::str::from_utf8(self.take(length, field)?).map_err(|_| Malformed(field))?;
        Name::new(text).ok_or(Malformed(field))
    }

    /// Nothing may be left over: within one version the length of a message is known.
    pub(super) fn finish(self) -> Result<(), Malformed> {
        if self.rest.is_empty() { Ok(()) } else { Err(Malformed("end of message")) }
    }
}

/// Puts fields one after another into the room for a payload, which is larger than any message.
pub(super) struct Writer<'a> {
    room: &'a mut [u8],
    used: usize,
}

impl<'a> Writer<'a> {
    pub(super) fn new(room: &'a mut [u8]) -> Self {
        Self { room, used: 0 }
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        let end = self.used + bytes.len();
        self.room[self.used..end].copy_from_slice(bytes);
        self.used = end;
    }

    pub(super) fn u8(&mut self, value: u8) {
        self.bytes(&[value]);
    }

    pub(super) fn u16(&mut self, value: u16) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn u32(&mut self, value: u32) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn u64(&mut self, value: u64) {
        self.bytes(&value.to_le_bytes());
    }

    pub(super) fn request(&mut self, request: RequestId) {
        self.u32(request.0);
    }

    pub(super) fn name(&mut self, name: &Name) {
        self.u8(name.length);
        self.bytes(name.raw());
    }

    pub(super) fn used(&self) -> usize {
        self.used
    }
}
