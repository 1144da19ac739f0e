//! Measures what a fault costs the guest: from the touch of an absent page to
//! the moment when the toucher goes on.
//!
//! This process plays the guest: it maps an image privately, and a real memtap
//! serves it from a RAM file in which every page has content. Nothing of the
//! host's network or of a hypervisor takes part.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::frozen::{FrozenView, Source};
use super::image::Image;
use super::protocol::{GuestId, PagerStats};
use super::remote::{GuestMemory, MemoryError, MemoryProcess};
use super::{PAGE_BYTES, PageIndex, Region};
use crate::hypervisor::plain::content;
use crate::sys::memory::{SharedWords, memfd};
use crate::sys::uffd::{Mode, Uffd};

/// Fewer pages than this (64 MiB) fit into caches, which a guest's memory does not.
pub const FEWEST_PAGES: u32 = 16_384;

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

/// Touches every page of a guest of `pages` pages, in random order, each absent until then, and
/// times each touch. `memtap` is the program, `folder` gets its log.
///
/// # Errors
/// See [`BenchError`].
pub fn local_fault_service(memtap: &Path, folder: &Path, pages: u32) -> Result<Distribution, BenchError> {
    if pages < FEWEST_PAGES {
        return Err(BenchError::TooFewPages { asked: pages });
    }
    fault_service(memtap, folder, pages, Walk::Random(0x5eed)).map(|(touches, _)| touches)
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
    const CONTENT: u64 = 1;
    let bytes = u64::from(pages) * PAGE_BYTES as u64;
    let ram = memfd("flurry-bench-ram", bytes)?;
    for page in (0..pages).map(PageIndex) {
        ram.write_all_at(&content::page(CONTENT, page), page.offset())?;
    }
    let view = FrozenView { image: Image::new(pages)?, source: Source::RamFile(ram) };
    let log = File::options().create(true).append(true).open(folder.join("memory.log"))?;
    let (process, mut child) = MemoryProcess::start(memtap, folder, log)?;
    let touched = process.open(&view, false).map_err(BenchError::from).and_then(|()| {
        let memory = SharedWords::map_private(view.image.file(), bytes as usize / 8)?;
        let uffd = Uffd::open()?;
        let region = Region { address: memory.address(), len: bytes };
        uffd.register(region.address, region.len, Mode::MissingAndWriteProtect)?;
        let guest = GuestMemory { guest: GuestId(1), pid: std::process::id(), region, uffd, ram_file: None };
        process.add_guest(&guest, &[])?;
        let touches = touch(&memory, pages, walk, CONTENT)?;
        let stats = process.stats()?.pager;
        uffd_ends(&guest)?;
        Ok((touches, stats))
    });
    drop(process);
    let _ = child.wait();
    touched
}

fn uffd_ends(guest: &GuestMemory) -> io::Result<()> {
    guest.uffd.unregister(guest.region.address, guest.region.len)
}

fn touch(memory: &SharedWords, pages: u32, walk: Walk, seed: u64) -> Result<Distribution, BenchError> {
    let order = match walk {
        Walk::Random(seed) => seed,
        Walk::Ascending => 0,
    };
    let mut samples = Vec::with_capacity(pages as usize);
    for page in content::shuffled(0, pages, order) {
        let word = &memory.words()[page.0 as usize * content::PAGE_WORDS];
        let before = Instant::now();
        let found = word.load(Ordering::Relaxed);
        samples.push(before.elapsed());
        if found != content::word(seed, page, 0) {
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
    }
}
