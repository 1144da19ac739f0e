//! Takes bounded little-endian fields off a part of a descriptor. Every refusal knows its place.

use super::error::{Check, Fault};
use super::section::Section;

/// What is left of a part, and where in the whole it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reader<'a> {
    bytes: &'a [u8],
    offset: usize,
    section: Option<Section>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(bytes: &'a [u8], offset: usize, section: Option<Section>) -> Self {
        Self { bytes, offset, section }
    }

    pub(super) fn section(&self) -> Option<Section> {
        self.section
    }

    /// Of the next byte in the whole descriptor.
    pub(super) fn offset(&self) -> usize {
        self.offset
    }

    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// A complaint about what begins here.
    pub(super) fn fault(&self, check: Check, found: impl Into<String>, wanted: impl Into<String>) -> Fault {
        let (found, wanted) = (found.into(), wanted.into());
        Fault { check, section: self.section, offset: Some(self.offset), found, wanted }
    }

    /// The next `count` bytes; they are borrowed, so a lie about `count` costs nothing.
    pub(super) fn take(&mut self, count: usize, what: &str) -> Result<&'a [u8], Fault> {
        let Some((taken, rest)) = self.bytes.split_at_checked(count) else {
            let found = format!("{} bytes", self.bytes.len());
            return Err(self.fault(Check::Structure, found, format!("{count} bytes for {what}")));
        };
        self.bytes = rest;
        self.offset += count;
        Ok(taken)
    }

    /// All that is left.
    pub(super) fn rest(&mut self) -> &'a [u8] {
        self.offset += self.bytes.len();
        std::mem::take(&mut self.bytes)
    }

    pub(super) fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N], Fault> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N, what)?);
        Ok(array)
    }

    pub(super) fn u8(&mut self, what: &str) -> Result<u8, Fault> {
        self.array(what).map(u8::from_le_bytes)
    }

    pub(super) fn u16(&mut self, what: &str) -> Result<u16, Fault> {
        self.array(what).map(u16::from_le_bytes)
    }

    pub(super) fn u32(&mut self, what: &str) -> Result<u32, Fault> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(super) fn u64(&mut self, what: &str) -> Result<u64, Fault> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A number that says how much follows, checked before anything is set aside for it.
    pub(super) fn count(&mut self, max: usize, what: &str) -> Result<usize, Fault> {
        let before = *self;
        let count = usize::from(self.u16(what)?);
        before.bound(count, max, what).map(|()| count)
    }

    /// A length byte, then text.
    pub(super) fn text(&mut self, max: usize, what: &str) -> Result<String, Fault> {
        let before = *self;
        let len = usize::from(self.u8(what)?);
        before.bound(len, max, what)?;
        let start = *self;
        let utf8 = String::from_utf8(self.take(len, what)?.to_vec());
        utf8.map_err(|_| start.fault(Check::Structure, format!("bytes that are no text as {what}"), "UTF-8"))
    }

    /// Refuses a number over its limit; the reader stands before that number.
    pub(super) fn bound(&self, number: usize, max: usize, what: &str) -> Result<(), Fault> {
        if number <= max {
            return Ok(());
        }
        Err(self.fault(
            Check::Structure,
            format!("{number} as the length of {what}"),
            format!("at most {max}"),
        ))
    }

    /// Nothing may be left.
    pub(super) fn end(self) -> Result<(), Fault> {
        if self.is_empty() {
            return Ok(());
        }
        let found = format!("{} bytes more", self.bytes.len());
        Err(self.fault(Check::Structure, found, "the end of the section"))
    }
}
