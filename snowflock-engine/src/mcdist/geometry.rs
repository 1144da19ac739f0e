//! Which pages there are, and how they are cut: streams of pages, groups of 128
//! that are repaired together, and lanes that fit into small datagrams.
//!
//! Inside, all streams stand in one row, each beginning a new group, so a page
//! of any stream is one [`Place`]. On the wire it is a stream and a page.

use crate::memory::{PAGE_BYTES, PageIndex};

/// Pages of a group: what one repair can stand for.
pub const GROUP_PAGES: u32 = 128;
/// Pieces of a page where a datagram cannot hold it whole.
pub const LANES: usize = 3;
/// Streams that a checkpoint may have: memory and disks.
pub const MAX_STREAMS: usize = 16;

/// One of the things that are distributed together: memory is 0, disks follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StreamId(pub u8);

impl StreamId {
    /// Guest memory.
    pub const MEMORY: Self = Self(0);
    /// Blocks of the frozen disk's layers.
    pub const DISK: Self = Self(1);
}

/// A page of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PageRef {
    /// Which stream.
    pub stream: StreamId,
    /// Which page of it.
    pub page: PageIndex,
}

/// A page as its position in the row of all streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Place(pub u32);

impl Place {
    /// The group it is in.
    #[must_use]
    pub fn group(self) -> Group {
        Group(self.0 / GROUP_PAGES)
    }

    /// Its bit in masks over the group.
    #[must_use]
    pub fn bit(self) -> u128 {
        1 << (self.0 % GROUP_PAGES)
    }
}

/// Pages that are repaired together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Group(pub u32);

impl Group {
    /// The places of a mask, in order.
    pub fn places(self, mut mask: u128) -> impl Iterator<Item = Place> {
        std::iter::from_fn(move || {
            let bit = (mask != 0).then(|| mask.trailing_zeros())?;
            mask &= mask - 1;
            Some(Place(self.0 * GROUP_PAGES + bit))
        })
    }
}

/// Whole page, or which piece of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Lane {
    /// The page in one datagram.
    Whole,
    /// Piece 0, 1 or 2.
    Part(u8),
}

impl Lane {
    /// The pieces that it stands for.
    pub fn parts(self) -> impl Iterator<Item = usize> {
        match self {
            Self::Whole => 0..LANES,
            Self::Part(part) => usize::from(part)..usize::from(part) + 1,
        }
    }
}

/// What both ends must agree on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Geometry {
    streams: Vec<(StreamId, u32)>,
    page_bytes: usize,
}

/// Why streams cannot be distributed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GeometryError {
    /// Names are single bytes and tables are small.
    #[error("{0} streams: there must be 1 to {MAX_STREAMS}")]
    Streams(usize),
    /// Two streams have the same name.
    #[error("stream {} comes twice", .0.0)]
    Twice(StreamId),
    /// Places are 32 bits wide.
    #[error("all streams together have {0} pages, more than 2^31")]
    TooLarge(u64),
}

impl Geometry {
    /// Memory of so many pages, and so many blocks of disk.
    ///
    /// # Errors
    /// As for [`Geometry::new`].
    pub fn of_checkpoint(pages: u32, blocks: u32) -> Result<Self, GeometryError> {
        match blocks {
            0 => Self::new(&[(StreamId::MEMORY, pages)]),
            _ => Self::new(&[(StreamId::MEMORY, pages), (StreamId::DISK, blocks)]),
        }
    }

    /// Streams with their numbers of pages.
    ///
    /// # Errors
    /// See [`GeometryError`].
    pub fn new(streams: &[(StreamId, u32)]) -> Result<Self, GeometryError> {
        Self::with_page_bytes(streams, PAGE_BYTES)
    }

    /// The same with small pages, for simulations.
    ///
    /// # Errors
    /// As above.
    pub fn with_page_bytes(streams: &[(StreamId, u32)], page_bytes: usize) -> Result<Self, GeometryError> {
        if streams.is_empty() || streams.len() > MAX_STREAMS {
            return Err(GeometryError::Streams(streams.len()));
        }
        for (at, (stream, _)) in streams.iter().enumerate() {
            if streams[..at].iter().any(|(other, _)| other == stream) {
                return Err(GeometryError::Twice(*stream));
            }
        }
        let pages = streams.iter().map(|(_, pages)| u64::from(*pages)).sum();
        if pages > 1 << 31 {
            return Err(GeometryError::TooLarge(pages));
        }
        Ok(Self { streams: streams.to_vec(), page_bytes })
    }

    /// The streams with their numbers of pages.
    #[must_use]
    pub fn streams(&self) -> &[(StreamId, u32)] {
        &self.streams
    }

    /// Bytes of a page.
    #[must_use]
    pub fn page_bytes(&self) -> usize {
        self.page_bytes
    }

    /// Pages of all streams.
    #[must_use]
    pub fn pages(&self) -> u32 {
        self.streams.iter().map(|(_, pages)| pages).sum()
    }

    /// Groups of all streams.
    #[must_use]
    pub fn groups(&self) -> u32 {
        self.streams.iter().map(|(_, pages)| pages.div_ceil(GROUP_PAGES)).sum()
    }

    /// Where a page stands; `None` if there is no such page.
    #[must_use]
    pub fn place(&self, page: PageRef) -> Option<Place> {
        let mut first = 0;
        for (stream, pages) in &self.streams {
            if *stream == page.stream {
                return (page.page.0 < *pages).then(|| Place(first + page.page.0));
            }
            first += pages.div_ceil(GROUP_PAGES) * GROUP_PAGES;
        }
        None
    }

    /// Which page stands there; `None` behind the end of a stream.
    #[must_use]
    pub fn page(&self, place: Place) -> Option<PageRef> {
        let mut first = 0;
        for (stream, pages) in &self.streams {
            let end = first + pages.div_ceil(GROUP_PAGES) * GROUP_PAGES;
            if place.0 < end {
                let page = PageIndex(place.0 - first);
                return (page.0 < *pages).then_some(PageRef { stream: *stream, page });
            }
            first = end;
        }
        None
    }

    /// The places of a group that hold a page; the last group of a stream may be short.
    #[must_use]
    pub fn mask(&self, group: Group) -> u128 {
        let mut first = 0;
        for (_, pages) in &self.streams {
            let groups = pages.div_ceil(GROUP_PAGES);
            if group.0 < first + groups {
                let left = pages - (group.0 - first) * GROUP_PAGES;
                return if left >= GROUP_PAGES { u128::MAX } else { (1 << left) - 1 };
            }
            first += groups;
        }
        0
    }

    /// Bytes of a datagram's share of a page. Pieces are of equal length, so that they can be sent as
    /// one batch; the last one ends in zeros.
    #[must_use]
    pub fn share_bytes(&self, lane: Lane) -> usize {
        match lane {
            Lane::Whole => self.page_bytes,
            Lane::Part(_) => self.page_bytes.div_ceil(LANES).next_multiple_of(2),
        }
    }

    /// The bytes of a page that a piece holds, zeros at the end left out.
    #[must_use]
    pub fn part(&self, part: usize) -> std::ops::Range<usize> {
        let share = self.share_bytes(Lane::Part(0));
        share * part..(share * (part + 1)).min(self.page_bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: StreamId = StreamId(3);

    fn two() -> Geometry {
        Geometry::new(&[(StreamId::MEMORY, 130), (DISK, 5)]).unwrap()
    }

    #[test]
    fn every_page_has_one_place_and_every_stream_begins_a_group() {
        let geometry = two();
        let at = |stream, page| geometry.place(PageRef { stream, page: PageIndex(page) });
        assert_eq!((at(StreamId::MEMORY, 129), at(DISK, 0)), (Some(Place(129)), Some(Place(256))));
        assert_eq!((at(StreamId::MEMORY, 130), at(DISK, 5), at(StreamId(9), 0)), (None, None, None));
        for place in (0..400).map(Place) {
            assert!(geometry.page(place).is_none_or(|page| geometry.place(page) == Some(place)));
            let is_in_mask = geometry.mask(place.group()) & place.bit() != 0;
            assert_eq!(is_in_mask, geometry.page(place).is_some(), "{place:?}");
        }
        assert_eq!((geometry.pages(), geometry.groups()), (135, 3));
    }

    #[test]
    fn pieces_make_up_the_page_and_are_equally_long_on_the_wire() {
        let geometry = two();
        assert_eq!(
            (0..LANES).flat_map(|part| geometry.part(part)).collect::<Vec<_>>(),
            (0..PAGE_BYTES).collect::<Vec<_>>()
        );
        assert_eq!(geometry.share_bytes(Lane::Part(2)), 1366);
    }

    #[test]
    fn streams_that_cannot_be_told_apart_or_counted_are_refused() {
        let refused = |streams: &[_]| Geometry::new(streams).unwrap_err().to_string();
        assert_eq!(refused(&[]), "0 streams: there must be 1 to 16");
        assert_eq!(refused(&[(DISK, 1), (DISK, 2)]), "stream 3 comes twice");
        let half = (1 << 30) + 1;
        assert_eq!(
            refused(&[(DISK, half), (StreamId(1), half)]),
            "all streams together have 2147483650 pages, more than 2^31"
        );
    }
}
