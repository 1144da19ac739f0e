//! Pages of a checkpoint that another host has: they come over the page network
//! into this host's image file.
//!
//!   absent page -> note who waits -> ask -> ... -> it is in the image -> resolve their faults
//!
//! A fault does not hold up the ones behind it: the thread of its guest goes on at once.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use super::bitmap::PageState;
use super::image::Image;
use super::{PAGE_BYTES, Page, PageIndex};
use crate::mcdist::fetcher::{Fetcher, FetcherConfig};
use crate::mcdist::geometry::{Geometry, PageRef, StreamId};
use crate::mcdist::receiver::ReceiverStats;
use crate::mcdist::source::{Found, PageStore};
use crate::sys::uffd::Fault;

/// Whoever asks for all pages waits so long for news of any.
const STALLED: Duration = Duration::from_secs(10);

/// A guest, as someone whose fault waits for a page.
pub trait Waiter: Send + Sync {
    /// The page of this fault is there, since when it was waited for.
    fn resolve_late(self: Arc<Self>, fault: Fault, since: Instant);
}

type Waiting = Arc<Mutex<HashMap<PageIndex, Vec<(Weak<dyn Waiter>, Fault, Instant)>>>>;

/// The image of a checkpoint whose frozen VM is on another host.
pub struct RemotePages {
    image: Image,
    fetcher: Fetcher,
    waiting: Waiting,
}

impl std::fmt::Debug for RemotePages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemotePages").field("image", &self.image).finish_non_exhaustive()
    }
}

impl RemotePages {
    /// Fills this image from now on; pages that it has are not fetched.
    ///
    /// # Errors
    /// See [`Fetcher::start`]; or the image is larger than the protocol allows.
    pub fn start(image: Image, config: FetcherConfig) -> io::Result<Self> {
        let pages = image.present().pages();
        let geometry = Geometry::new(&[(StreamId::MEMORY, pages)]).map_err(io::Error::other)?;
        let waiting = Waiting::default();
        let (store, for_listener) = (ImageStore(image.duplicate()?), Arc::clone(&waiting));
        let known =
            (0..pages).map(PageIndex).filter(|page| image.state(*page) != PageState::Absent).map(in_memory);
        let listener = move |came: &[PageRef]| came.iter().for_each(|page| arrived(&for_listener, page.page));
        let fetcher = Fetcher::start(config, geometry, known, store, listener)?;
        Ok(Self { image, fetcher, waiting })
    }

    /// The image.
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// Asks for an absent page; when it is there, the fault is resolved.
    pub fn ask(&self, page: PageIndex, waiter: Weak<dyn Waiter>, fault: Fault, since: Instant) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.entry(page).or_default().push((waiter, fault, since));
        drop(waiting);
        // If it has come in between, the fetcher says so again.
        self.fetcher.ask(in_memory(page));
    }

    /// Fetches pages ahead of their faults; returns how many are absent.
    pub fn prefetch(&self, pages: impl Iterator<Item = PageIndex>) -> u32 {
        let absent: Vec<_> =
            pages.filter(|page| self.image.state(*page) == PageState::Absent).map(in_memory).collect();
        let count = absent.len() as u32;
        self.fetcher.prefetch(absent);
        count
    }

    /// Fetches all absent pages, and returns how many there were.
    ///
    /// # Errors
    /// None has come for ten seconds.
    pub fn complete(&self) -> io::Result<u32> {
        let absent = || self.image.present().absent().count() as u32;
        let before = absent();
        self.fetcher.fill(true);
        let (mut left, mut news) = (before, Instant::now());
        while left > 0 {
            std::thread::sleep(Duration::from_millis(2));
            let now = absent();
            if now < left {
                (left, news) = (now, Instant::now());
            } else if news.elapsed() > STALLED {
                let why = format!("{left} pages are still missing, and none has come for {STALLED:?}");
                return Err(io::Error::new(io::ErrorKind::TimedOut, why));
            }
        }
        Ok(before)
    }

    /// The fetcher's counters.
    #[must_use]
    pub fn stats(&self) -> ReceiverStats {
        self.fetcher.stats()
    }
}

fn in_memory(page: PageIndex) -> PageRef {
    PageRef { stream: StreamId::MEMORY, page }
}

fn arrived(waiting: &Waiting, page: PageIndex) {
    let waiters = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&page);
    for (waiter, fault, since) in waiters.unwrap_or_default() {
        if let Some(waiter) = waiter.upgrade() {
            waiter.resolve_late(fault, since);
        }
    }
}

/// Fetched pages go into the image; zeros as a mark only.
struct ImageStore(Image);

impl PageStore for ImageStore {
    fn put(&mut self, page: PageRef, found: Found<'_>) -> io::Result<()> {
        match found {
            Found::Data(data) => {
                let content: &Page = data.try_into().map_err(|_| io::ErrorKind::InvalidInput)?;
                self.0.fill(page.page, content)?;
            }
            Found::Zero => {
                self.0.present().insert_zero(page.page);
            }
            Found::Same(of) => {
                let mut content = [0; PAGE_BYTES];
                PageStore::read(self, of, &mut content)?;
                self.0.keep(page.page, &content)?;
            }
        }
        Ok(())
    }

    fn read(&mut self, page: PageRef, into: &mut [u8]) -> io::Result<()> {
        let content: &mut Page = into.try_into().map_err(|_| io::ErrorKind::InvalidInput)?;
        // A hole reads as zeros, which a page marked as zero is.
        self.0.read(page.page, content)
    }
}
