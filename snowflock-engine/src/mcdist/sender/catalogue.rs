//! What a sender has learned of its pages: which need no content, and when each
//! one went out to all.

use std::collections::HashMap;
use std::io;
use std::time::Duration;

use crate::mcdist::geometry::{Geometry, Group, Place};
use crate::mcdist::source::PageSource;

/// What it takes to send a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Class {
    /// Its content.
    Plain,
    /// Two bytes: it is all zeros.
    Zero,
    /// A reference to a plain page with the same content.
    Same(Place),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Unknown,
    Plain,
    Zero,
    Same,
}

/// When a page went out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sent {
    /// With which counter of its channel; 0 is never.
    pub(super) counter: u64,
    /// Microseconds since the sender's start.
    micros: u64,
}

impl Sent {
    pub(super) fn new(counter: u64, at: Duration) -> Self {
        Self { counter, micros: at.as_micros() as u64 }
    }

    pub(super) fn at(self) -> Duration {
        Duration::from_micros(self.micros)
    }
}

/// All pages.
#[derive(Debug)]
pub(super) struct Catalogue {
    kinds: Vec<Kind>,
    sent: Vec<Sent>,
    same: HashMap<Place, Place>,
    /// The first plain page with this checksum. Equal content is compared byte by byte.
    first: HashMap<u32, Place>,
    twin: Vec<u8>,
}

impl Catalogue {
    pub(super) fn new(geometry: &Geometry) -> Self {
        let places = geometry.groups() as usize * crate::mcdist::geometry::GROUP_PAGES as usize;
        Self {
            kinds: vec![Kind::Unknown; places],
            sent: vec![Sent::default(); places],
            same: HashMap::new(),
            first: HashMap::new(),
            twin: vec![0; geometry.page_bytes()],
        }
    }

    /// Reads a page; the buffer holds it if it is plain. What a page is, it stays.
    pub(super) fn load(
        &mut self,
        geometry: &Geometry,
        source: &mut impl PageSource,
        place: Place,
        buffer: &mut [u8],
    ) -> io::Result<Class> {
        let page = geometry.page(place).ok_or(io::ErrorKind::InvalidInput)?;
        match self.kinds[place.0 as usize] {
            Kind::Zero => return Ok(Class::Zero),
            Kind::Same => {
                if let Some(of) = self.same.get(&place) {
                    return Ok(Class::Same(*of));
                }
            }
            Kind::Plain | Kind::Unknown => {}
        }
        let has_content = source.read(page, buffer)?;
        if self.kinds[place.0 as usize] == Kind::Plain {
            if !has_content {
                buffer.fill(0);
            }
            return Ok(Class::Plain);
        }
        let class = if has_content { self.classify(geometry, source, place, buffer)? } else { Class::Zero };
        self.kinds[place.0 as usize] = match class {
            Class::Plain => Kind::Plain,
            Class::Zero => Kind::Zero,
            Class::Same(_) => Kind::Same,
        };
        Ok(class)
    }

    fn classify(
        &mut self,
        geometry: &Geometry,
        source: &mut impl PageSource,
        place: Place,
        content: &[u8],
    ) -> io::Result<Class> {
        let sum = crc32fast::hash(content);
        let Some(twin) = self.first.get(&sum).copied().filter(|twin| *twin != place) else {
            self.first.insert(sum, place);
            return Ok(Class::Plain);
        };
        let page = geometry.page(twin).ok_or(io::ErrorKind::InvalidInput)?;
        if source.read(page, &mut self.twin)? && self.twin == content {
            self.same.insert(place, twin);
            return Ok(Class::Same(twin));
        }
        Ok(Class::Plain)
    }

    /// When the page went out to all.
    pub(super) fn sent(&self, place: Place) -> Sent {
        self.sent[place.0 as usize]
    }

    pub(super) fn note_sent(&mut self, place: Place, sent: Sent) {
        self.sent[place.0 as usize] = sent;
    }

    /// Of these pages of a group, those that never went out to all.
    pub(super) fn never_sent(&self, group: Group, pages: u128) -> u128 {
        let never = group.places(pages).filter(|place| self.sent(*place).counter == 0);
        never.fold(0, |mask, place| mask | place.bit())
    }

    /// Of these pages of a group, those that are sent with content.
    pub(super) fn plain(&self, group: Group, pages: u128) -> u128 {
        let plain = group.places(pages).filter(|place| self.kinds[place.0 as usize] == Kind::Plain);
        plain.fold(0, |mask, place| mask | place.bit())
    }
}
