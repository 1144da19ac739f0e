//! What a receiver has: pages, thirds of pages, repairs that wait for more, and
//! pages that wait for the one that they are the same as.

use std::collections::HashMap;
use std::io;

use crate::mcdist::code::Decoder;
use crate::mcdist::geometry::{Geometry, Group, LANES, Lane, Place};
use crate::mcdist::source::{Found, PageStore};

/// Pages of which only thirds are here, at most: 16 MiB.
const MOST_PARTIAL: usize = 4_096;
/// Repairs that wait, at most: 64 MiB.
const MOST_HELD: usize = 16_384;

#[derive(Debug, Default)]
struct Held {
    covers: u128,
    repairs: Vec<(u8, Vec<u8>)>,
}

/// All that has come.
#[derive(Debug)]
pub(super) struct Shelf {
    geometry: Geometry,
    /// For each third, the pages of each group of which it is here.
    known: [Vec<u128>; LANES],
    missing: u32,
    partial: HashMap<Place, Vec<u8>>,
    held: HashMap<(Group, Lane), Held>,
    held_count: usize,
    /// Pages that are the same as this one, which is missing.
    same: HashMap<Place, Vec<Place>>,
    same_as: HashMap<Place, Place>,
    decoder: Decoder,
    /// Pages that were computed from repairs.
    pub(super) repaired: u64,
    /// Pages that have become known and were not yet looked at.
    pub(super) arrived: Vec<Place>,
}

impl Shelf {
    pub(super) fn new(geometry: Geometry) -> Self {
        let groups = geometry.groups() as usize;
        Self {
            missing: geometry.pages(),
            known: [vec![0; groups], vec![0; groups], vec![0; groups]],
            partial: HashMap::new(),
            held: HashMap::new(),
            held_count: 0,
            same: HashMap::new(),
            same_as: HashMap::new(),
            decoder: Decoder::default(),
            repaired: 0,
            arrived: Vec::new(),
            geometry,
        }
    }

    /// Pages that are missing.
    pub(super) fn missing(&self) -> u32 {
        self.missing
    }

    /// The pages of a group that are here.
    pub(super) fn known(&self, group: Group) -> u128 {
        self.known.iter().fold(u128::MAX, |all, known| all & known[group.0 as usize])
    }

    pub(super) fn knows(&self, place: Place) -> bool {
        self.known(place.group()) & place.bit() != 0
    }

    /// The missing pages of a group that must be asked for, and the repairs that are there for them.
    pub(super) fn wanting(&self, group: Group) -> (u128, u8) {
        let missing = self.geometry.mask(group) & !self.known(group);
        let waits = |place: &Place| self.same_as.contains_key(place);
        let waiting = group.places(missing).filter(waits).fold(0, |all, place| all | place.bit());
        let useful = |lane: Lane, known: u128| {
            let held = self.held.get(&(group, lane));
            held.map_or(0, |held| {
                held.repairs.len().min((held.covers & missing & !known).count_ones() as usize)
            })
        };
        let parts = (0..LANES).map(|part| {
            let known = self.known[part][group.0 as usize];
            // A third that is here needs no repair.
            let here = (missing & known).count_ones() as usize;
            useful(Lane::Part(part as u8), known) + here
        });
        let repairs = useful(Lane::Whole, 0).max(parts.min().unwrap_or(0));
        (missing & !waiting, repairs.min(127) as u8)
    }

    /// The page that this one is known to be the same as, which is missing.
    pub(super) fn waits_for(&self, place: Place) -> Option<Place> {
        self.same_as.get(&place).copied()
    }

    /// The page was here before the start.
    pub(super) fn note_known(&mut self, place: Place) {
        if !self.knows(place) {
            self.set(place, Lane::Whole);
            self.missing -= 1;
        }
    }

    fn set(&mut self, place: Place, lane: Lane) {
        for part in lane.parts() {
            self.known[part][place.group().0 as usize] |= place.bit();
        }
    }

    fn unset(&mut self, place: Place) {
        for known in &mut self.known {
            known[place.group().0 as usize] &= !place.bit();
        }
    }

    /// A page or a third of one has come.
    pub(super) fn page(
        &mut self,
        place: Place,
        lane: Lane,
        data: &[u8],
        store: &mut impl PageStore,
    ) -> io::Result<()> {
        self.shelve(place, lane, data, store)?;
        self.settle(place.group(), store)
    }

    fn shelve(
        &mut self,
        place: Place,
        lane: Lane,
        data: &[u8],
        store: &mut impl PageStore,
    ) -> io::Result<()> {
        if self.knows(place) {
            return Ok(());
        }
        let Lane::Part(part) = lane else {
            return self.put(place, Found::Data(data), store);
        };
        if !self.partial.contains_key(&place) && self.partial.len() >= MOST_PARTIAL {
            self.forget_partial();
        }
        let range = self.geometry.part(part.into());
        let page = self.partial.entry(place).or_insert_with(|| vec![0; self.geometry.page_bytes()]);
        page[range.clone()].copy_from_slice(&data[..range.len()]);
        self.set(place, lane);
        if self.knows(place)
            && let Some(page) = self.partial.remove(&place)
        {
            self.unset(place);
            return self.put(place, Found::Data(&page), store);
        }
        Ok(())
    }

    fn forget_partial(&mut self) {
        if let Some(place) = self.partial.keys().next().copied() {
            self.partial.remove(&place);
            self.unset(place);
        }
    }

    /// A page needs no content.
    pub(super) fn zero(&mut self, place: Place, store: &mut impl PageStore) -> io::Result<()> {
        if self.knows(place) {
            return Ok(());
        }
        self.put(place, Found::Zero, store)?;
        self.settle(place.group(), store)
    }

    /// A page is the same as another one.
    pub(super) fn same(&mut self, place: Place, of: Place, store: &mut impl PageStore) -> io::Result<()> {
        if self.knows(place) {
            return Ok(());
        }
        self.no_longer_same(place);
        // Another life of the sender may have said it the other way round. Neither page must wait for ever.
        self.no_longer_same(of);
        if let Some(page) = self.geometry.page(of).filter(|_| self.knows(of)) {
            return self.put(place, Found::Same(page), store);
        }
        self.same_as.insert(place, of);
        self.same.entry(of).or_default().push(place);
        Ok(())
    }

    fn no_longer_same(&mut self, place: Place) {
        if let Some(of) = self.same_as.remove(&place)
            && let Some(waiting) = self.same.get_mut(&of)
        {
            waiting.retain(|other| *other != place);
        }
    }

    /// A repair has come.
    pub(super) fn repair(
        &mut self,
        (group, lane): (Group, Lane),
        index: u8,
        covers: u128,
        data: &[u8],
        store: &mut impl PageStore,
    ) -> io::Result<()> {
        if covers & !self.known(group) == 0 || self.held_count >= MOST_HELD {
            return Ok(());
        }
        let held = self.held.entry((group, lane)).or_default();
        if held.covers != covers {
            // Of another life of the sender.
            self.held_count -= held.repairs.len();
            *held = Held { covers, repairs: Vec::new() };
        }
        if held.repairs.iter().all(|(other, _)| *other != index) {
            held.repairs.push((index, data.to_vec()));
            self.held_count += 1;
        }
        self.settle(group, store)
    }

    /// Stores a page and all that are the same. Those that cannot be stored wait for nothing any more: they
    /// are asked for by themselves.
    fn put(&mut self, place: Place, found: Found<'_>, store: &mut impl PageStore) -> io::Result<()> {
        self.put_one(place, found, store)?;
        let (mut came, mut failed) = (vec![place], None);
        while let Some(of) = came.pop() {
            let Some(page) = self.geometry.page(of) else { continue };
            for twin in self.same.remove(&of).unwrap_or_default() {
                self.same_as.remove(&twin);
                if failed.is_none() {
                    match self.put_one(twin, Found::Same(page), store) {
                        Ok(()) => came.push(twin),
                        Err(error) => failed = Some(error),
                    }
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn put_one(&mut self, place: Place, found: Found<'_>, store: &mut impl PageStore) -> io::Result<()> {
        let page = self.geometry.page(place).ok_or(io::ErrorKind::InvalidInput)?;
        store.put(page, found)?;
        self.set(place, Lane::Whole);
        self.missing -= 1;
        self.partial.remove(&place);
        self.arrived.push(place);
        self.no_longer_same(place);
        Ok(())
    }

    /// Computes what can be computed, and drops repairs that are of no use any more.
    fn settle(&mut self, group: Group, store: &mut impl PageStore) -> io::Result<()> {
        if self.held_count == 0 {
            return Ok(());
        }
        for lane in [Lane::Whole, Lane::Part(0), Lane::Part(1), Lane::Part(2)] {
            let Some(held) = self.held.get(&(group, lane)) else { continue };
            let known = match lane {
                Lane::Whole => self.known(group),
                Lane::Part(part) => self.known[usize::from(part)][group.0 as usize],
            };
            let missing = (held.covers & !known).count_ones() as usize;
            if held.repairs.len() < missing {
                continue;
            }
            let held = self.held.remove(&(group, lane)).unwrap_or_default();
            self.held_count -= held.repairs.len();
            if missing > 0 {
                self.compute(group, lane, known, &held, missing, store)?;
            }
        }
        Ok(())
    }

    fn compute(
        &mut self,
        group: Group,
        lane: Lane,
        known: u128,
        held: &Held,
        missing: usize,
        store: &mut impl PageStore,
    ) -> io::Result<()> {
        let (share, first) = (self.geometry.share_bytes(lane), Place(group.0 * super::GROUP_PAGES));
        let mut page = vec![0; self.geometry.page_bytes()];
        let (geometry, partial) = (&self.geometry, &self.partial);
        let read = |index: usize, out: &mut Vec<u8>| {
            let place = Place(first.0 + index as u32);
            let whole = match partial.get(&place) {
                Some(partial) => partial,
                None => {
                    let page_ref = geometry.page(place).ok_or(io::ErrorKind::InvalidInput)?;
                    store.read(page_ref, &mut page)?;
                    &page
                }
            };
            match lane {
                Lane::Whole => out.extend_from_slice(whole),
                Lane::Part(part) => out.extend_from_slice(&whole[geometry.part(part.into())]),
            }
            Ok(())
        };
        let repairs = held.repairs.iter().take(missing).map(|(index, share)| (*index, &share[..]));
        let mut found = Vec::new();
        self.decoder.restore(share, held.covers, known, read, repairs, |index, share| {
            found.push((Place(first.0 + index as u32), share.to_vec()));
        })?;
        for (place, share) in found {
            self.repaired += 1;
            self.shelve(place, lane, &share, store)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mcdist::geometry::{PageRef, StreamId};

    /// A disk that is full for the first copies.
    struct Full(u32);

    impl PageStore for Full {
        fn put(&mut self, _: PageRef, found: Found<'_>) -> io::Result<()> {
            match found {
                Found::Same(_) if self.0 > 0 => {
                    self.0 -= 1;
                    Err(io::ErrorKind::StorageFull.into())
                }
                _ => Ok(()),
            }
        }

        fn read(&mut self, _: PageRef, into: &mut [u8]) -> io::Result<()> {
            into.fill(1);
            Ok(())
        }
    }

    #[test]
    fn pages_that_could_not_be_copied_from_their_twin_are_asked_for_themselves() {
        let geometry = Geometry::with_page_bytes(&[(StreamId::MEMORY, 5)], 64).unwrap();
        let (mut shelf, mut store) = (Shelf::new(geometry), Full(1));
        for twin in [1, 2, 3] {
            shelf.same(Place(twin), Place(0), &mut store).unwrap();
        }
        assert_eq!(shelf.wanting(Group(0)).0, 0b1_0001);
        shelf.page(Place(0), Lane::Whole, &[1; 64], &mut store).unwrap_err();
        assert_eq!((shelf.wanting(Group(0)).0, shelf.missing()), (0b1_1110, 4));
        for place in [1, 2, 3, 4] {
            shelf.page(Place(place), Lane::Whole, &[1; 64], &mut store).unwrap();
        }
        assert_eq!(shelf.missing(), 0);
    }
}
