//! What the pages hold, and stores that notice anything else.

use std::io;
use std::rc::Rc;

use super::page_ref;
use crate::hypervisor::plain::content::mix;
use crate::mcdist::geometry::{Geometry, PageRef, Place};
use crate::mcdist::source::{Found, PageSource, PageStore};

/// The content of all pages: a function of the seed.
#[derive(Debug)]
pub(super) struct Truth {
    geometry: Geometry,
    seed: u64,
    /// By place: whose content it has; `None` is zeros.
    holds: Vec<Option<u32>>,
}

impl Truth {
    pub(super) fn new(geometry: &Geometry, seed: u64, zero: f64, same: f64) -> Self {
        let mut random = super::Random::new(seed ^ 0x7417);
        let places = geometry.groups() * crate::mcdist::geometry::GROUP_PAGES;
        let mut holds: Vec<Option<u32>> = Vec::new();
        for place in 0..places {
            let twin = if place > 0 { holds[random.below(place.into()) as usize] } else { None };
            holds.push(match () {
                () if geometry.page(Place(place)).is_none() || random.chance(zero) => None,
                () if random.chance(same) => twin,
                () => Some(place),
            });
        }
        Self { geometry: geometry.clone(), seed, holds }
    }

    /// Pages with content of their own.
    pub(super) fn unique(&self) -> u32 {
        self.holds.iter().zip(0..).filter(|(holds, place)| **holds == Some(*place)).count() as u32
    }

    /// The page that a guest touches at a step.
    pub(super) fn touched(&self, step: u32) -> PageRef {
        let number = mix(self.seed ^ u64::from(step)) % u64::from(self.geometry.pages());
        page_ref(&self.geometry, number as u32)
    }

    fn holds(&self, page: PageRef) -> io::Result<Option<u32>> {
        let place = self.geometry.place(page).ok_or(io::ErrorKind::InvalidInput)?;
        Ok(self.holds[place.0 as usize])
    }

    fn write(&self, page: PageRef, into: &mut [u8]) -> io::Result<bool> {
        let Some(of) = self.holds(page)? else {
            into.fill(0);
            return Ok(false);
        };
        for (at, bytes) in into.chunks_mut(8).enumerate() {
            let word = mix(self.seed ^ u64::from(of) << 20 ^ (at as u64)) | 1;
            bytes.copy_from_slice(&word.to_le_bytes()[..bytes.len()]);
        }
        Ok(true)
    }
}

/// The sender's source, some of whose reads fail.
pub(super) struct Flawed {
    pub(super) truth: Rc<Truth>,
    pub(super) share: f64,
    pub(super) random: super::Random,
}

impl PageSource for Flawed {
    fn read(&mut self, page: PageRef, into: &mut [u8]) -> io::Result<bool> {
        if self.share > 0.0 && self.random.chance(self.share) {
            return Err(io::ErrorKind::TimedOut.into());
        }
        self.truth.write(page, into)
    }
}

/// A store that keeps only which pages came, and panics at wrong content.
#[derive(Debug)]
pub(super) struct Verified {
    truth: Rc<Truth>,
    has: Vec<bool>,
    expected: Vec<u8>,
}

impl Verified {
    pub(super) fn new(truth: Rc<Truth>) -> Self {
        let (has, expected) = (vec![false; truth.holds.len()], vec![0; truth.geometry.page_bytes()]);
        Self { truth, has, expected }
    }

    fn index(&self, page: PageRef) -> usize {
        self.truth.geometry.place(page).map_or(0, |place| place.0 as usize)
    }

    pub(super) fn has(&self, page: PageRef) -> bool {
        self.has[self.index(page)]
    }
}

impl PageStore for Verified {
    fn put(&mut self, page: PageRef, found: Found<'_>) -> io::Result<()> {
        let has_content = self.truth.write(page, &mut self.expected)?;
        let is_right = match found {
            Found::Data(data) => data == self.expected,
            Found::Zero => !has_content,
            Found::Same(of) => self.has(of) && self.truth.holds(of)? == self.truth.holds(page)?,
        };
        assert!(is_right, "{page:?} came with wrong content: {found:?}");
        let index = self.index(page);
        assert!(!std::mem::replace(&mut self.has[index], true), "{page:?} was put twice");
        Ok(())
    }

    fn read(&mut self, page: PageRef, into: &mut [u8]) -> io::Result<()> {
        assert!(self.has(page), "{page:?} is read before it came");
        self.truth.write(page, into).map(drop)
    }
}
