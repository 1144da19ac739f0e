//! Gives the clones of one checkpoint the pages that they miss.
//!
//!   absent page -> in the image already? -> wake
//!               -> content              -> put it into the image (once per host), wake
//!               -> zeros                -> the clone gets a zero page of its own, the image keeps its hole
//!
//! Where the frozen VM is on another host, the page is asked for instead, and the rest happens when it
//! has come (see [`super::fetching`]).
//!
//! Clones that miss the same page at once queue up for it, so that it is fetched once.

use std::collections::HashSet;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError, Weak};
use std::time::Instant;

use super::bitmap::PageState;
use super::fetching::{RemotePages, Waiter};
use super::freezer::Freezer;
use super::frozen::{Content, FrozenView};
use super::image::Image;
use super::protocol::PagerStats;
use super::supply::{Failing, Supply};
use super::{PAGE_BYTES, Page, PageIndex, Region};
use crate::sys::uffd::{Fault, Uffd};

mod counters;
pub use counters::Counters;

const ZERO_PAGE: Page = [0; PAGE_BYTES];
/// The record of a working set ends here: a quarter of a GiB, more than a clone touches while it becomes ready.
const RECORD_LIMIT: usize = 65_536;
/// Locks over which pages are spread: faults on different pages seldom share one.
const QUEUES: usize = 64;

/// Pages in the order of their first faults.
#[derive(Debug, Default)]
struct Record {
    order: Vec<PageIndex>,
    seen: HashSet<PageIndex>,
}

/// Where absent pages come from.
#[derive(Debug)]
enum Origin {
    /// The frozen VM is on this host.
    Local(FrozenView),
    /// It is on another one.
    Remote(RemotePages),
}

/// The pages of one checkpoint on this host.
#[derive(Debug)]
pub struct Pager {
    origin: Origin,
    record: Mutex<Record>,
    recording: AtomicBool,
    counters: Counters,
    queues: [Mutex<()>; QUEUES],
    failing: Mutex<Failing>,
    /// Some may be failing: looked at before the lock is taken.
    fails: AtomicBool,
}

impl Pager {
    /// Serves from this view; records the order of first touches from the start.
    #[must_use]
    pub fn new(view: FrozenView) -> Self {
        Self::with(Origin::Local(view))
    }

    /// The same for a checkpoint of another host.
    #[must_use]
    pub fn remote(pages: RemotePages) -> Self {
        Self::with(Origin::Remote(pages))
    }

    fn with(origin: Origin) -> Self {
        Self {
            origin,
            record: Mutex::default(),
            recording: AtomicBool::new(true),
            counters: Counters::default(),
            queues: [const { Mutex::new(()) }; QUEUES],
            failing: Mutex::default(),
            fails: AtomicBool::new(false),
        }
    }

    fn image(&self) -> &Image {
        match &self.origin {
            Origin::Local(view) => &view.image,
            Origin::Remote(pages) => pages.image(),
        }
    }

    /// Resolves one fault on an absent page, at once or when the page has come. `freezer` knows whether
    /// the clone is itself a checkpoint's parent, so that it may not get a page behind the back of its
    /// write protection; `waiter` is told later.
    ///
    /// # Errors
    /// The page cannot be had or stored (the clone goes on waiting), or the clone is gone.
    pub fn on_absent(
        &self,
        uffd: &Uffd,
        region: Region,
        fault: Fault,
        freezer: &Freezer,
        waiter: impl FnOnce() -> Weak<dyn Waiter>,
    ) -> io::Result<()> {
        let start = Instant::now();
        let page = region.page_at(fault.address).ok_or(io::ErrorKind::InvalidInput)?;
        self.note(page);
        let content = match &self.origin {
            Origin::Local(view) => self.mark_failing(page, self.obtain(view, page))?,
            Origin::Remote(pages) => match found(pages.image(), page) {
                Some(content) => {
                    self.counters.shared();
                    content
                }
                None => {
                    pages.ask(page, waiter(), fault, start);
                    return Ok(());
                }
            },
        };
        self.give(uffd, (page, region.address_of(page)), fault, freezer, content)?;
        self.counters.fault(start.elapsed());
        Ok(())
    }

    /// Resolves a fault whose page has come meanwhile.
    ///
    /// # Errors
    /// As for [`Pager::on_absent`].
    pub fn on_arrival(
        &self,
        uffd: &Uffd,
        region: Region,
        fault: Fault,
        freezer: &Freezer,
        since: Instant,
    ) -> io::Result<()> {
        let page = region.page_at(fault.address).ok_or(io::ErrorKind::InvalidInput)?;
        let content = found(self.image(), page).ok_or(io::ErrorKind::NotFound)?;
        match content {
            Content::Zero => self.counters.zero(),
            Content::InImage | Content::Read => self.counters.fetched(),
        }
        self.give(uffd, (page, region.address_of(page)), fault, freezer, content)?;
        self.counters.fault(since.elapsed());
        Ok(())
    }

    /// The image has the page, or it is zero: the clone goes on.
    fn give(
        &self,
        uffd: &Uffd,
        (page, address): (PageIndex, u64),
        fault: Fault,
        freezer: &Freezer,
        content: Content,
    ) -> io::Result<()> {
        if content != Content::Zero {
            return uffd.wake(address, PAGE_BYTES as u64);
        }
        match freezer.unless_frozen(|| give_zero(uffd, address, fault.write)) {
            Some(given) => given,
            None => {
                self.image().fill(page, &ZERO_PAGE)?;
                uffd.wake(address, PAGE_BYTES as u64)
            }
        }
    }

    /// Takes note of what cannot be had, until it can.
    fn mark_failing(&self, page: PageIndex, obtained: io::Result<Content>) -> io::Result<Content> {
        let failing = || self.failing.lock().unwrap_or_else(PoisonError::into_inner);
        match &obtained {
            Err(error) => {
                self.fails.store(true, Ordering::Relaxed);
                failing().failed(Instant::now(), page, error);
            }
            Ok(_) if self.fails.load(Ordering::Relaxed) => failing().worked(page),
            Ok(_) => {}
        }
        obtained
    }

    /// Whether the pages that guests wait for still come.
    #[must_use]
    pub fn supply(&self) -> Supply {
        if let Origin::Remote(pages) = &self.origin {
            return pages.supply();
        }
        let oldest = self.failing.lock().unwrap_or_else(PoisonError::into_inner).oldest(Instant::now());
        let missing = self.image().present().absent().count() as u32;
        let (waiting, failure) = oldest.unzip();
        Supply {
            missing,
            waiting_ms: waiting.map_or(0, |span| span.as_millis() as u64),
            silent_ms: None,
            failure: failure.map(|why| format!("they cannot be had on this host: {why}")),
        }
    }

    /// Makes sure that the image has the page, or knows that it is zero.
    fn obtain(&self, view: &FrozenView, page: PageIndex) -> io::Result<Content> {
        let _queue = self.queues[page.0 as usize % QUEUES].lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffer = ZERO_PAGE;
        let content = view.read(page, &mut buffer)?;
        match content {
            Content::InImage => self.counters.shared(),
            Content::Read => {
                if view.image.fill(page, &buffer)? {
                    self.counters.fetched();
                } else {
                    self.counters.repeated();
                }
            }
            Content::Zero => {
                self.counters.zero();
                view.image.present().insert_zero(page);
            }
        }
        Ok(content)
    }

    /// Fetches a working set ahead of any fault. Its zero pages are put in as well: who touches one
    /// then needs no help. Returns how many were new. Pages of another host come later, and are not
    /// waited for.
    ///
    /// # Errors
    /// A page cannot be had or stored.
    pub fn prefetch(&self, pages: impl Iterator<Item = PageIndex>) -> io::Result<u32> {
        match &self.origin {
            Origin::Local(view) => self.fetch(view, pages, Image::fill),
            Origin::Remote(remote) => Ok(remote.prefetch(pages)),
        }
    }

    /// Fetches all that is absent, so that the source may go away; zero pages stay holes. Returns how
    /// many there were.
    ///
    /// # Errors
    /// As for [`Pager::prefetch`].
    pub fn complete(&self) -> io::Result<u32> {
        match &self.origin {
            Origin::Local(view) => self.fetch(view, view.image.present().absent(), Image::keep),
            Origin::Remote(remote) => remote.complete(),
        }
    }

    fn fetch(
        &self,
        view: &FrozenView,
        pages: impl Iterator<Item = PageIndex>,
        put: fn(&Image, PageIndex, &Page) -> io::Result<bool>,
    ) -> io::Result<u32> {
        let mut buffer = ZERO_PAGE;
        let mut fetched = 0;
        for page in pages {
            match view.read(page, &mut buffer)? {
                Content::Read => fetched += u32::from(put(&view.image, page, &buffer)?),
                Content::Zero => fetched += u32::from(put(&view.image, page, &ZERO_PAGE)?),
                Content::InImage => {}
            }
        }
        self.counters.prefetched(fetched);
        Ok(fetched)
    }

    /// Ends the record and returns it: pages in the order of their first fault.
    pub fn take_record(&self) -> Vec<PageIndex> {
        self.recording.store(false, Ordering::Relaxed);
        std::mem::take(&mut *self.record.lock().unwrap_or_else(PoisonError::into_inner)).order
    }

    /// What happened so far.
    #[must_use]
    pub fn stats(&self) -> PagerStats {
        let fetcher = match &self.origin {
            Origin::Local(_) => None,
            Origin::Remote(pages) => Some(pages.stats()),
        };
        let recording = self.recording.load(Ordering::Relaxed);
        PagerStats { fetcher, recording, ..self.counters.stats(self.image().count()) }
    }

    fn note(&self, page: PageIndex) {
        if self.recording.load(Ordering::Relaxed) {
            let mut record = self.record.lock().unwrap_or_else(PoisonError::into_inner);
            if record.order.len() < RECORD_LIMIT && record.seen.insert(page) {
                record.order.push(page);
            }
        }
    }
}

/// What the image knows of a page.
fn found(image: &Image, page: PageIndex) -> Option<Content> {
    match image.state(page) {
        PageState::Present => Some(Content::InImage),
        PageState::Zero => Some(Content::Zero),
        PageState::Absent => None,
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
