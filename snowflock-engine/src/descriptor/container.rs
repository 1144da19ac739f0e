//! The frame around the sections: magic, version, length, checksum; then which section is where.

use std::ops::Range;

use super::FORMAT_VERSION;
use super::error::{Check, Fault};
use super::limits::MAX_FILE;
use super::reader::Reader;
use super::section::{OPTIONAL, Section};

/// "SnowFlock VM descriptor".
pub(super) const MAGIC: [u8; 4] = *b"SFVD";
/// Magic, version, flags, length; bytes.
pub(super) const HEADER: usize = 12;
/// The checksum at the end, bytes.
pub(super) const CHECKSUM: usize = 4;
/// Where the length stands.
pub(super) const LENGTH_AT: Range<usize> = 8..12;

const VERSION_AT: Range<usize> = 4..6;
const FLAGS_AT: Range<usize> = 6..8;

/// The content of each section.
pub(super) struct Sections<'a> {
    found: Vec<Reader<'a>>,
    end: usize,
}

impl<'a> Sections<'a> {
    /// Checks the frame and finds the sections in it.
    pub(super) fn find(bytes: &'a [u8]) -> Result<Self, Fault> {
        check_magic_and_version(bytes)?;
        check_length(bytes)?;
        let (content, sum) = bytes.split_at(bytes.len() - CHECKSUM);
        check_sum(content, number(sum))?;
        check_flags(content)?;
        let mut sections = Self { found: Vec::with_capacity(Section::ALL.len()), end: content.len() };
        let mut rest = Reader::new(&content[HEADER..], HEADER, None);
        let mut before = 0;
        while !rest.is_empty() {
            sections.take(&mut rest, &mut before)?;
        }
        Ok(sections)
    }

    /// The content of a section.
    pub(super) fn get(&self, wanted: Section) -> Result<Reader<'a>, Fault> {
        self.found.iter().find(|reader| reader.section() == Some(wanted)).copied().ok_or_else(|| {
            let found = "the end of the descriptor without it".into();
            fault(Check::Structure, Some(wanted), self.end, found, "one in every descriptor")
        })
    }

    /// Where the content of a section begins, bytes.
    pub(super) fn offset(&self, section: Option<Section>) -> Option<usize> {
        self.found.iter().find(|reader| reader.section() == section).map(Reader::offset)
    }

    /// Takes the next section. Tags ascend, so none can come twice, and there are at most 65,536.
    fn take(&mut self, rest: &mut Reader<'a>, before: &mut u16) -> Result<(), Fault> {
        let at = rest.offset();
        let tag = rest.u16("a section's tag")?;
        let section = Section::from_tag(tag);
        let refused = |found, wanted| Err(fault(Check::Structure, section, at, found, wanted));
        if section.is_none() && tag & OPTIONAL == 0 {
            return refused(
                format!("the unknown tag {tag:#06x}"),
                "a tag of this version, or an optional one",
            );
        }
        if section.is_some_and(|section| self.get(section).is_ok()) || tag == *before {
            return refused(format!("the tag {tag:#06x} a second time"), "each section once");
        }
        if tag < *before {
            return refused(format!("the tag {tag:#06x} after {before:#06x}"), "tags in ascending order");
        }
        *before = tag;
        let len = rest.u32("a section's length")? as usize;
        let offset = rest.offset();
        let content = rest.take(len, "a section's content")?;
        if section.is_some() {
            self.found.push(Reader::new(content, offset, section));
        }
        Ok(())
    }
}

fn check_magic_and_version(bytes: &[u8]) -> Result<(), Fault> {
    if !bytes.starts_with(&MAGIC) {
        let found = format!("\"{}\"", bytes[..bytes.len().min(MAGIC.len())].escape_ascii());
        return Err(fault(Check::Magic, None, 0, found, "\"SFVD\", with which a VM descriptor begins"));
    }
    let version = bytes.get(VERSION_AT).map(number);
    if version.is_some_and(|version| version != u32::from(FORMAT_VERSION)) {
        let found = format!("format version {}", version.unwrap_or_default());
        let wanted =
            format!("version {FORMAT_VERSION}; make a new checkpoint, or use the release that made this");
        return Err(fault(Check::Version, None, VERSION_AT.start, found, &wanted));
    }
    Ok(())
}

fn check_length(bytes: &[u8]) -> Result<(), Fault> {
    let refused = |at, found, wanted: &str| Err(fault(Check::Length, None, at, found, wanted));
    if bytes.len() < HEADER + CHECKSUM {
        let wanted = format!("at least {}", HEADER + CHECKSUM);
        return refused(bytes.len(), format!("the end after {} bytes", bytes.len()), &wanted);
    }
    if bytes.len() > MAX_FILE {
        return refused(MAX_FILE, format!("more than {MAX_FILE} bytes"), "at most as many");
    }
    let declared = number(&bytes[LENGTH_AT]) as usize;
    if declared != bytes.len() {
        let found = format!("a length of {declared} bytes");
        return refused(LENGTH_AT.start, found, &format!("{}, as many as there are", bytes.len()));
    }
    Ok(())
}

fn check_sum(content: &[u8], declared: u32) -> Result<(), Fault> {
    let sum = crc32fast::hash(content);
    if sum == declared {
        return Ok(());
    }
    let found = format!("the checksum {declared:#010x}");
    let wanted = format!("{sum:#010x}, that of the bytes before it; the descriptor was damaged");
    Err(fault(Check::Checksum, None, content.len(), found, &wanted))
}

fn check_flags(content: &[u8]) -> Result<(), Fault> {
    match number(&content[FLAGS_AT]) {
        0 => Ok(()),
        flags => {
            let found = format!("the flags {flags:#06x}");
            Err(fault(Check::Structure, None, FLAGS_AT.start, found, "none, for this version has no flags"))
        }
    }
}

/// Up to four little-endian bytes.
fn number(bytes: &[u8]) -> u32 {
    bytes.iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte))
}

fn fault(check: Check, section: Option<Section>, offset: usize, found: String, wanted: &str) -> Fault {
    Fault { check, section, offset: Some(offset), found, wanted: wanted.into() }
}
