//! Gives the clones of one checkpoint the pages that they miss.
//!
//!   absent page -> in the image already? -> wake
//!               -> content              -> put it into the image (once per host), wake
//!               -> zeros                -> the clone gets a zero page of its own, the image keeps its hole
//!
//! Clones that miss the same page at once queue up for it, so that it is fetched once.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::freezer::Freezer;
use super::frozen::{Content, FrozenView};
use super::image::Image;
use super::protocol::PagerStats;
use super::{PAGE_BYTES, Page, PageIndex, Region};
use crate::sys::uffd::{Fault, Uffd};

mod counters;
pub use counters::Counters;

const ZERO_PAGE: Page = [0; PAGE_BYTES];
/// The record of a working set ends here: a quarter of a GiB, more than a clone touches while it becomes ready.
const RECORD_LIMIT: usize = 65_536;
/// Locks over which pages are spread: faults on different pages seldom share one.
const QUEUES: usize = 64;

/// The pages of one checkpoint on this host.
#[derive(Debug)]
pub struct Pager {
    view: FrozenView,
    record: Mutex<Vec<PageIndex>>,
    recording: AtomicBool,
    counters: Counters,
    queues: [Mutex<()>; QUEUES],
}

impl Pager {
    /// Serves from this view; records the order of first touches from the start.
    #[must_use]
    pub fn new(view: FrozenView) -> Self {
        Self {
            view,
            record: Mutex::default(),
            recording: AtomicBool::new(true),
            counters: Counters::default(),
            queues: [const { Mutex::new(()) }; QUEUES],
        }
    }

    /// Resolves one fault on an absent page. `freezer` knows whether the clone is itself a
    /// checkpoint's parent, so that it may not get a page behind the back of its write protection.
    ///
    /// # Errors
    /// The page cannot be had or stored (the clone goes on waiting), or the clone is gone.
    pub fn on_absent(&self, uffd: &Uffd, region: Region, fault: Fault, freezer: &Freezer) -> io::Result<()> {
        let start = Instant::now();
        let page = region.page_at(fault.address).ok_or(io::ErrorKind::InvalidInput)?;
        let address = region.address_of(page);
        if self.obtain(page)? == Content::Zero {
            match freezer.unless_frozen(|| give_zero(uffd, address, fault.write)) {
                Some(given) => given?,
                None => {
                    self.view.image.fill(page, &ZERO_PAGE)?;
                    uffd.wake(address, PAGE_BYTES as u64)?;
                }
            }
        } else {
            uffd.wake(address, PAGE_BYTES as u64)?;
        }
        self.counters.fault(start.elapsed());
        Ok(())
    }

    /// Makes sure that the image has the page, or knows that it is zero.
    fn obtain(&self, page: PageIndex) -> io::Result<Content> {
        let _queue = self.queues[page.0 as usize % QUEUES].lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = ZERO_PAGE;
        let content = self.view.read(page, &mut buffer)?;
        match content {
            Content::InImage => self.counters.shared(),
            Content::Read => {
                if self.view.image.fill(page, &buffer)? {
                    self.counters.fetched();
                    self.note(page);
                } else {
                    self.counters.repeated();
                }
            }
            Content::Zero => {
                self.counters.zero();
                if self.view.image.present().insert_zero(page) {
                    self.note(page);
                }
            }
        }
        Ok(content)
    }

    /// Fetches a working set ahead of any fault. Its zero pages are put in as well: who touches one
    /// then needs no help. Returns how many were new.
    ///
    /// # Errors
    /// A page cannot be had or stored.
    pub fn prefetch(&self, pages: impl Iterator<Item = PageIndex>) -> io::Result<u32> {
        self.fetch(pages, Image::fill)
    }

    /// Fetches all that is absent, so that the source may go away; zero pages stay holes. Returns how
    /// many there were.
    ///
    /// # Errors
    /// As for [`Pager::prefetch`].
    pub fn complete(&self) -> io::Result<u32> {
        self.fetch(self.view.image.present().absent(), Image::keep)
    }

    fn fetch(
        &self,
        pages: impl Iterator<Item = PageIndex>,
        put: fn(&Image, PageIndex, &Page) -> io::Result<bool>,
    ) -> io::Result<u32> {
        let mut buffer = ZERO_PAGE;
        let mut fetched = 0;
        for page in pages {
            match self.view.read(page, &mut buffer)? {
                Content::Read => fetched += u32::from(put(&self.view.image, page, &buffer)?),
                Content::Zero => fetched += u32::from(put(&self.view.image, page, &ZERO_PAGE)?),
                Content::InImage => {}
            }
        }
        self.counters.prefetched(fetched);
        Ok(fetched)
    }

    /// Ends the record and returns it: pages in the order of their first fault.
    pub fn take_record(&self) -> Vec<PageIndex> {
        self.recording.store(false, Ordering::Relaxed);
        std::mem::take(&mut *self.record.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What happened so far.
    #[must_use]
    pub fn stats(&self) -> PagerStats {
        self.counters.stats(self.view.image.count())
    }

    fn note(&self, page: PageIndex) {
        if self.recording.load(Ordering::Relaxed) {
            let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
            if record.len() < RECORD_LIMIT {
                record.push(page);
            }
        }
    }
}

/// Gives one clone a zero page of its own.
fn give_zero(uffd: &Uffd, address: u64, to_write: bool) -> io::Result<()> {
    let is_new = match to_write {
        true => uffd.copy(address, &ZERO_PAGE),
        false => uffd.zero(address, PAGE_BYTES as u64),
    };
    if is_new? { Ok(()) } else { uffd.wake(address, PAGE_BYTES as u64) }
}
