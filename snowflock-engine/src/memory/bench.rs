//! Measures what a fault costs the guest: from the touch of a page to the
//! moment when the toucher goes on.
//!
//! - [`local_fault_service`]: a clone reads a page that it has not got (memtap)
//! - [`write_fault_service`]: a frozen parent writes to a page for the first time (memserver)
//! - [`remote_fault_service`]: a clone reads a page that only another host has (memtap, memserver)
//!
//! This process plays the guest: it maps memory as one, and a real memory
//! process serves it. Nothing of the host's network or of a hypervisor takes
//! part. Every page has content, and is checked.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::frozen::{FrozenView, Source};
use super::image::Image;
use super::protocol::{CheckpointId, GuestId, PagerStats};
use super::remote::{GuestMemory, MemoryError, MemoryProcess};
use super::{PAGE_BYTES, PageIndex, Region};
use crate::hypervisor::plain::content;
use crate::mcdist::fetcher::FetcherConfig;
use crate::sys::memory::{SharedWords, memfd};
use crate::sys::uffd::{Mode, Uffd, explained};

/// Fewer pages than this (64 MiB) fit into caches, which a guest's memory does not.
pub const FEWEST_PAGES: u32 = 16_384;

/// Seed of the content, and that of the order.
const CONTENT: u64 = 1;
const ORDER: u64 = 0x5eed;

/// Why nothing was measured.
#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    /// The measurement needs more pages to mean anything.
    #[error("{asked} pages are too few to measure: at least {FEWEST_PAGES} are needed")]
    TooFewPages {
        /// What was asked for.
        asked: u32,
    },
    /// memtap does not serve.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// No memory left, or no userfaultfd.
    #[error("cannot set up a process that misses pages")]
    System(#[from] io::Error),
    /// A page came with wrong content: no figure counts then.
    #[error("page {} has the wrong content", .0.0)]
    WrongPage(PageIndex),
}

/// How long something took, many times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Distribution {
    /// How many times.
    pub samples: u32,
    /// Half took no longer.
    pub p50: Duration,
    /// Nine in ten took no longer.
    pub p90: Duration,
    /// All but one in a hundred took no longer.
    pub p99: Duration,
    /// The longest.
    pub max: Duration,
}

impl Distribution {
    /// Of these samples; `None` of none.
    #[must_use]
    pub fn of(mut samples: Vec<Duration>) -> Option<Self> {
        samples.sort_unstable();
        let at = |share: f64| {
            let rank = (samples.len() as f64 * share).ceil() as usize;
            samples.get(rank.saturating_sub(1)).copied()
        };
        let max = *samples.last()?;
        Some(Self { samples: samples.len() as u32, p50: at(0.5)?, p90: at(0.9)?, p99: at(0.99)?, max })
    }
}

/// In which order pages are touched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Walk {
    /// Anyhow, by this seed.
    Random(u64),
    /// One after the other.
    Ascending,
}

/// Reads every page of a clone of `pages` pages, in random order, each absent until then, and times
/// each touch. `memtap` is the program, `folder` gets its log.
///
/// # Errors
/// See [`BenchError`].
pub fn local_fault_service(memtap: &Path, folder: &Path, pages: u32) -> Result<Distribution, BenchError> {
    check(pages)?;
    fault_service(memtap, folder, pages, Walk::Random(ORDER)).map(|(touches, _)| touches)
}

/// The same over any number of pages in a chosen order, with what memtap counted.
///
/// # Errors
/// As for [`local_fault_service`].
pub fn fault_service(
    memtap: &Path,
    folder: &Path,
    pages: u32,
    walk: Walk,
) -> Result<(Distribution, PagerStats), BenchError> {
    let view = FrozenView { image: Image::new(pages)?, source: Source::RamFile(filled_ram(pages)?) };
    let memory = SharedWords::map_private(view.image.file(), words(pages))?;
    let guest = guest(&memory, pages, Mode::MissingAndWriteProtect, None)?;
    with_process(memtap, folder, |process| {
        process.open(&view, false)?;
        process.add_guest(&guest, &[])?;
        let touches = touch(&memory, pages, walk, |word| word.load(Ordering::Relaxed), first_word)?;
        Ok((touches, process.stats()?.pager))
    })
}

/// Writes to every page of a frozen parent of `pages` pages, in random order, each protected until
/// then, and times each write. `memserver` is the program, `folder` gets its log.
///
/// # Errors
/// See [`BenchError`].
pub fn write_fault_service(memserver: &Path, folder: &Path, pages: u32) -> Result<Distribution, BenchError> {
    check(pages)?;
    let (ram, image) = (filled_ram(pages)?, Image::new(pages)?);
    let memory = SharedWords::map(&ram, words(pages))?;
    let guest = guest(&memory, pages, Mode::WriteProtect, Some(ram))?;
    with_process(memserver, folder, |process| {
        process.add_guest(&guest, &[])?;
        process.freeze(guest.guest, CheckpointId(1), &image)?;
        let overwrite = |word: &AtomicU64| word.fetch_xor(u64::MAX, Ordering::Relaxed);
        let touches = touch(&memory, pages, Walk::Random(ORDER), overwrite, first_word)?;
        let mut saved = [0; PAGE_BYTES];
        for page in (0..pages).map(PageIndex) {
            image.read(page, &mut saved)?;
            if saved != content::page(CONTENT, page) {
                return Err(BenchError::WrongPage(page));
            }
        }
        Ok(touches)
    })
}

/// Reads every page of a clone whose memtap runs on another host than the frozen VM, each absent until
/// then, and times each touch. `image` is the host's image, `expected` the first word of each page.
///
/// # Errors
/// See [`BenchError`].
pub fn remote_fault_service(
    memtap: &MemoryProcess,
    image: &Image,
    from: &FetcherConfig,
    walk: Walk,
    expected: impl Fn(PageIndex) -> u64,
) -> Result<(Distribution, PagerStats), BenchError> {
    let pages = image.present().pages();
    let memory = SharedWords::map_private(image.file(), words(pages))?;
    let guest = guest(&memory, pages, Mode::MissingAndWriteProtect, None)?;
    memtap.open_remote(image, None, from, false)?;
    memtap.add_guest(&guest, &[])?;
    let touches = touch(&memory, pages, walk, |word| word.load(Ordering::Relaxed), expected)?;
    let stats = memtap.stats()?.pager;
    memtap.remove_guest(guest.guest)?;
    Ok((touches, stats))
}

/// A parent that is played by this process: its memory is frozen by a memserver, and may be overwritten.
#[derive(Debug)]
pub struct FrozenParent {
    memory: SharedWords,
    /// Its memory as it was.
    pub view: FrozenView,
}

impl FrozenParent {
    /// Freezes `pages` pages with this content.
    ///
    /// # Errors
    /// See [`BenchError`].
    pub fn freeze(
        memserver: &MemoryProcess,
        pages: u32,
        content: impl Fn(PageIndex) -> [u8; PAGE_BYTES],
    ) -> Result<Self, BenchError> {
        let (ram, image) = (ram(pages, content)?, Image::new(pages)?);
        let memory = SharedWords::map(&ram, words(pages))?;
        let guest = guest(&memory, pages, Mode::WriteProtect, Some(ram.try_clone()?))?;
        memserver.add_guest(&guest, &[])?;
        memserver.freeze(guest.guest, CheckpointId(1), &image)?;
        Ok(Self { memory, view: FrozenView { image, source: Source::RamFile(ram) } })
    }

    /// Writes to every page.
    pub fn overwrite(&self) {
        for page in self.memory.words().chunks(content::PAGE_WORDS) {
            page[0].fetch_xor(u64::MAX, Ordering::Relaxed);
        }
    }
}

fn first_word(page: PageIndex) -> u64 {
    content::word(CONTENT, page, 0)
}

fn check(pages: u32) -> Result<(), BenchError> {
    if pages < FEWEST_PAGES { Err(BenchError::TooFewPages { asked: pages }) } else { Ok(()) }
}

fn words(pages: u32) -> usize {
    pages as usize * content::PAGE_WORDS
}

fn filled_ram(pages: u32) -> io::Result<File> {
    ram(pages, |page| content::page(CONTENT, page))
}

fn ram(pages: u32, content: impl Fn(PageIndex) -> [u8; PAGE_BYTES]) -> io::Result<File> {
    let ram = memfd("flurry-bench-ram", u64::from(pages) * PAGE_BYTES as u64)?;
    for page in (0..pages).map(PageIndex) {
        ram.write_all_at(&content(page), page.offset())?;
    }
    Ok(ram)
}

fn guest(memory: &SharedWords, pages: u32, mode: Mode, ram_file: Option<File>) -> io::Result<GuestMemory> {
    let region = Region { address: memory.address(), len: u64::from(pages) * PAGE_BYTES as u64 };
    let uffd = Uffd::open().map_err(explained)?;
    uffd.register(region.address, region.len, mode)?;
    Ok(GuestMemory { guest: GuestId(1), pid: std::process::id(), region, uffd, ram_file })
}

fn with_process<T>(
    program: &Path,
    folder: &Path,
    run: impl FnOnce(&MemoryProcess) -> Result<T, BenchError>,
) -> Result<T, BenchError> {
    let log = File::options().create(true).append(true).open(folder.join("memory.log"))?;
    let (process, mut child) = MemoryProcess::start(program, folder, log)?;
    let outcome = run(&process);
    drop(process);
    let _ = child.wait();
    outcome
}

fn touch(
    memory: &SharedWords,
    pages: u32,
    walk: Walk,
    access: impl Fn(&AtomicU64) -> u64,
    expected: impl Fn(PageIndex) -> u64,
) -> Result<Distribution, BenchError> {
    let order = match walk {
        Walk::Random(seed) => seed,
        Walk::Ascending => 0,
    };
    let mut samples = Vec::with_capacity(pages as usize);
    for page in content::shuffled(0, pages, order) {
        let word = &memory.words()[page.0 as usize * content::PAGE_WORDS];
        let before = Instant::now();
        let found = access(word);
        samples.push(before.elapsed());
        if found != expected(page) {
            return Err(BenchError::WrongPage(page));
        }
    }
    Distribution::of(samples).ok_or(BenchError::TooFewPages { asked: pages })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_has_its_ranks_and_none_has_no_samples() {
        let micros = |n| Duration::from_micros(n);
        let found = Distribution::of((1..=200).rev().map(micros).collect()).unwrap();
        let Distribution { samples, p50, p90, p99, max } = found;
        assert_eq!((samples, p50, p90, p99, max), (200, micros(100), micros(180), micros(198), micros(200)));
        assert_eq!(Distribution::of(Vec::new()), None);
    }

    #[test]
    fn too_few_pages_are_refused_before_anything_starts() {
        let refused = local_fault_service(Path::new("/nowhere"), Path::new("/nowhere"), FEWEST_PAGES - 1);
        assert!(matches!(refused, Err(BenchError::TooFewPages { asked: 16_383 })));
        let refused = write_fault_service(Path::new("/nowhere"), Path::new("/nowhere"), 0);
        assert!(matches!(refused, Err(BenchError::TooFewPages { asked: 0 })));
    }
}
