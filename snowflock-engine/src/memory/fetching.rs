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
use super::image::{Image, is_zero};
use super::layers::DiskCopy;
use super::supply::Supply;
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
    began: Instant,
}

impl std::fmt::Debug for RemotePages {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RemotePages").field("image", &self.image).finish_non_exhaustive()
    }
}

impl RemotePages {
    /// Fills this image from now on, and first the copy of the disk; what they have is not fetched.
    ///
    /// # Errors
    /// See [`Fetcher::start`]; or they are larger than the protocol allows.
    pub fn start(image: Image, disk: Option<DiskCopy>, config: FetcherConfig) -> io::Result<Self> {
        let pages = image.present().pages();
        let blocks = disk.as_ref().map_or(0, |disk| disk.present.pages());
        let geometry = Geometry::of_checkpoint(pages, blocks).map_err(io::Error::other)?;
        let waiting = Waiting::default();
        let for_listener = Arc::clone(&waiting);
        let is_known = |page: &PageRef| match (page.stream, &disk) {
            (StreamId::DISK, Some(disk)) => disk.present.state(page.page) != PageState::Absent,
            _ => image.state(page.page) != PageState::Absent,
        };
        let all = (0..pages).map(PageIndex).map(in_memory).chain((0..blocks).map(PageIndex).map(on_disk));
        let known = all.filter(is_known);
        let memory_alone = |page: &&PageRef| page.stream == StreamId::MEMORY;
        let listener = move |came: &[PageRef]| {
            came.iter().filter(memory_alone).for_each(|page| arrived(&for_listener, page.page));
        };
        let missing: Vec<PageRef> = disk.iter().flat_map(|disk| disk.absent().map(on_disk)).collect();
        let store =
            Store { image: image.duplicate()?, disk: disk.as_ref().map(DiskCopy::duplicate).transpose()? };
        let fetcher = Fetcher::start(config, geometry, known, store, listener)?;
        fetcher.prefetch(missing);
        Ok(Self { image, fetcher, waiting, began: Instant::now() })
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

    /// Whether the pages that guests wait for still come.
    #[must_use]
    pub fn supply(&self) -> Supply {
        let stats = self.fetcher.stats();
        let failure = stats.store_errno.map(|errno| {
            format!("they cannot be stored on this host: {}", io::Error::from_raw_os_error(errno))
        });
        let never_heard = || self.began.elapsed().as_millis() as u64;
        Supply {
            missing: self.image.present().absent().count() as u32,
            waiting_ms: self.oldest_wait().map_or(0, |since| since.elapsed().as_millis() as u64),
            silent_ms: Some(stats.heard_ms.unwrap_or_else(never_heard)),
            failure,
        }
    }

    /// Since when a guest that still lives has waited for a page.
    fn oldest_wait(&self) -> Option<Instant> {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let living = waiting.values().flatten().filter(|(waiter, ..)| waiter.strong_count() > 0);
        living.map(|(.., since)| *since).min()
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

fn on_disk(page: PageIndex) -> PageRef {
    PageRef { stream: StreamId::DISK, page }
}

fn arrived(waiting: &Waiting, page: PageIndex) {
    let waiters = waiting.lock().unwrap_or_else(PoisonError::into_inner).remove(&page);
    for (waiter, fault, since) in waiters.unwrap_or_default() {
        if let Some(waiter) = waiter.upgrade() {
            waiter.resolve_late(fault, since);
        }
    }
}

/// Fetched pages go into the image and the copy of the disk; zeros as a mark only.
struct Store {
    image: Image,
    disk: Option<DiskCopy>,
}

impl Store {
    fn keep(&self, page: PageRef, content: &Page) -> io::Result<()> {
        match (page.stream, &self.disk) {
            (StreamId::DISK, Some(disk)) => disk.keep(page.page, content),
            // What was sent as data counts as such: nobody looks for zeros twice.
            _ => self.image.fill(page.page, content).map(drop),
        }
    }

    fn keep_zero(&self, page: PageRef) {
        match (page.stream, &self.disk) {
            (StreamId::DISK, Some(disk)) => disk.present.insert_zero(page.page),
            _ => self.image.present().insert_zero(page.page),
        };
    }
}

impl PageStore for Store {
    fn put(&mut self, page: PageRef, found: Found<'_>) -> io::Result<()> {
        match found {
            Found::Data(data) => {
                let content: &Page = data.try_into().map_err(|_| io::ErrorKind::InvalidInput)?;
                self.keep(page, content)
            }
            Found::Zero => {
                self.keep_zero(page);
                Ok(())
            }
            Found::Same(of) => {
                let mut content = [0; PAGE_BYTES];
                PageStore::read(self, of, &mut content)?;
                match is_zero(&content) {
                    true => self.keep_zero(page),
                    false => self.keep(page, &content)?,
                }
                Ok(())
            }
        }
    }

    fn read(&mut self, page: PageRef, into: &mut [u8]) -> io::Result<()> {
        let content: &mut Page = into.try_into().map_err(|_| io::ErrorKind::InvalidInput)?;
        match (page.stream, &self.disk) {
            (StreamId::DISK, Some(disk)) => disk.layers.read(page.page, content),
            // A hole reads as zeros, which a page marked as zero is.
            _ => self.image.read(page.page, content),
        }
    }
}
