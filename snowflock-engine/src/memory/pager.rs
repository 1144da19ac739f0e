//! Gives the clones of one checkpoint the pages that they miss.
//!
//!   absent page -> in the image already? -> wake
//!               -> content              -> put it into the image (once per host), wake
//!               -> zeros                -> the clone gets a zero page of its own, the image keeps its hole

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::freezer::Freezer;
use super::frozen::{Content, FrozenView};
use super::protocol::PagerStats;
use super::{PAGE_BYTES, Page, PageIndex, Region};
use crate::sys::uffd::{Fault, Uffd};

mod counters;
pub use counters::Counters;

const ZERO_PAGE: Page = [0; PAGE_BYTES];
/// The record of a working set ends here: a quarter of a GiB, more than a clone touches while it becomes ready.
const RECORD_LIMIT: usize = 65_536;

/// The pages of one checkpoint on this host.
#[derive(Debug)]
pub struct Pager {
    view: FrozenView,
    record: Mutex<Vec<PageIndex>>,
    recording: AtomicBool,
    counters: Counters,
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
        let mut buffer = ZERO_PAGE;
        let content = self.view.read(page, &mut buffer)?;
        let given = match content {
            Content::Zero => freezer.unless_frozen(|| give_zero(uffd, address, fault.write)),
            Content::InImage | Content::Read => None,
        };
        match given {
            Some(given) => {
                given?;
                self.settle_zero(page);
            }
            None => {
                self.settle(page, content, &buffer)?;
                uffd.wake(address, PAGE_BYTES as u64)?;
            }
        }
        self.counters.fault(start.elapsed());
        Ok(())
    }

    /// Fetches these pages ahead of any fault; zero pages stay holes. Returns how many were new.
    ///
    /// # Errors
    /// A page cannot be had or stored.
    pub fn prefetch(&self, pages: impl Iterator<Item = PageIndex>) -> io::Result<u32> {
        let mut buffer = ZERO_PAGE;
        let mut fetched = 0;
        for page in pages {
            match self.view.read(page, &mut buffer)? {
                Content::Read => fetched += u32::from(self.view.image.fill(page, &buffer)?),
                Content::Zero => drop(self.view.image.present().insert_zero(page)),
                Content::InImage => {}
            }
        }
        self.counters.prefetched(fetched);
        Ok(fetched)
    }

    /// Fetches all that is absent, so that the source may go away.
    ///
    /// # Errors
    /// As for [`Pager::prefetch`].
    pub fn complete(&self) -> io::Result<u32> {
        self.prefetch(self.view.image.present().absent())
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

    fn settle(&self, page: PageIndex, content: Content, buffer: &Page) -> io::Result<()> {
        let content = match content {
            Content::InImage => {
                self.counters.shared();
                return Ok(());
            }
            Content::Read => buffer,
            Content::Zero => &ZERO_PAGE,
        };
        if self.view.image.fill(page, content)? {
            self.counters.fetched();
            self.note(page);
        } else {
            self.counters.repeated();
        }
        Ok(())
    }

    fn settle_zero(&self, page: PageIndex) {
        self.counters.zero();
        if self.view.image.present().insert_zero(page) {
            self.note(page);
        }
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
