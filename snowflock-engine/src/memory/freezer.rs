//! Keeps a checkpoint as it was while its VM goes on: copy-on-write by
//! userfaultfd write protection.
//!
//!   freeze: protect all of memory that holds anything (the VM is paused)
//!   write:  save the old page into every checkpoint that has not got it,
//!           then lift the protection, which lets the write through
//!   thaw:   forget a checkpoint; with the last one all protection is lifted

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock, RwLockReadGuard};
use std::time::{Duration, Instant};

use super::bitmap::PageState;
use super::image::Image;
use super::protocol::CheckpointId;
use super::{PAGE_BYTES, Page, PageIndex, Region};
use crate::sys::memory::data_ranges;
use crate::sys::uffd::Uffd;

/// How the old content of a page is read, at the moment of the first write.
#[derive(Debug)]
pub enum OldContent {
    /// The RAM file of a root parent.
    RamFile(File),
    /// `/proc/PID/mem` of a clone. The page is mapped then, since its write was stopped by protection.
    ProcessMemory(File),
}

/// The memory of one VM, and its live checkpoints.
#[derive(Debug)]
pub struct Freezer {
    region: Region,
    old: OldContent,
    checkpoints: RwLock<Vec<(CheckpointId, Image)>>,
    saved: AtomicU64,
}

impl Freezer {
    /// For the VM whose guest memory is at `region`.
    #[must_use]
    pub fn new(region: Region, old: OldContent) -> Self {
        Self { region, old, checkpoints: RwLock::default(), saved: AtomicU64::new(0) }
    }

    /// Takes up a checkpoint whose protection is in place already (after a restart).
    pub fn resume(&self, checkpoint: CheckpointId, image: Image) {
        self.checkpoints.write().unwrap_or_else(PoisonError::into_inner).push((checkpoint, image));
    }

    /// Freezes memory as it is now; the VM must be paused. Returns the time it took.
    ///
    /// # Errors
    /// The VM is gone, or its memory is not registered; then nothing is frozen.
    pub fn freeze(&self, uffd: &Uffd, checkpoint: CheckpointId, image: Image) -> io::Result<Duration> {
        let start = Instant::now();
        // No write is let through by half a freeze.
        let mut live = self.checkpoints.write().unwrap_or_else(PoisonError::into_inner);
        self.protect(uffd, &image)?;
        live.push((checkpoint, image));
        Ok(start.elapsed())
    }

    /// Protects what holds something. Pages that a root parent has never touched are holes of its RAM
    /// file, and that much is known of them for ever: they are zero.
    fn protect(&self, uffd: &Uffd, image: &Image) -> io::Result<()> {
        let OldContent::RamFile(ram) = &self.old else {
            return uffd.protect(self.region.address, self.region.len);
        };
        let mut hole = 0;
        for data in data_ranges(ram)? {
            mark_zero(image, hole..data.start);
            uffd.protect(self.region.address + data.start, data.end - data.start)?;
            hole = data.end;
        }
        mark_zero(image, hole..self.region.len);
        Ok(())
    }

    /// Ends a checkpoint: what the VM writes from now on is not saved for it.
    ///
    /// # Errors
    /// Protection cannot be lifted although the VM lives.
    pub fn thaw(&self, uffd: &Uffd, checkpoint: CheckpointId) -> io::Result<()> {
        self.forget(checkpoint);
        if self.is_frozen() {
            return Ok(());
        }
        match uffd.unprotect(self.region.address, self.region.len) {
            Err(e) if e.raw_os_error() == Some(libc::ESRCH) => Ok(()),
            other => other,
        }
    }

    /// Whether any checkpoint depends on protection.
    #[must_use]
    pub fn is_frozen(&self) -> bool {
        !self.live().is_empty()
    }

    /// The VM is about to write to a protected page: save it, then let the VM write.
    ///
    /// # Errors
    /// The page cannot be read or stored. The writer stays stopped: going on would change a checkpoint.
    pub fn on_write(&self, uffd: &Uffd, page: PageIndex) -> io::Result<()> {
        // Held until protection is lifted: a checkpoint that begins in between would lose the page.
        let live = self.live();
        let mut content = None;
        for (_, image) in live.iter().filter(|(_, image)| image.state(page) == PageState::Absent) {
            let content = match &content {
                Some(content) => content,
                None => content.insert(self.read(page)?),
            };
            if image.keep(page, content)? {
                self.saved.fetch_add(1, Ordering::Relaxed);
            }
        }
        uffd.unprotect(self.region.address_of(page), PAGE_BYTES as u64)
    }

    /// Gives the VM a page behind the back of protection, unless it is frozen or about to be.
    pub fn unless_frozen<T>(&self, give: impl FnOnce() -> T) -> Option<T> {
        let live = self.live();
        live.is_empty().then(give)
    }

    /// Pages saved so far, over all checkpoints.
    #[must_use]
    pub fn pages_saved(&self) -> u64 {
        self.saved.load(Ordering::Relaxed)
    }

    fn read(&self, page: PageIndex) -> io::Result<Page> {
        let mut content = [0; PAGE_BYTES];
        match &self.old {
            OldContent::RamFile(file) => file.read_exact_at(&mut content, page.offset())?,
            OldContent::ProcessMemory(file) => {
                file.read_exact_at(&mut content, self.region.address_of(page))?;
            }
        }
        Ok(content)
    }

    fn forget(&self, checkpoint: CheckpointId) {
        self.checkpoints.write().unwrap_or_else(PoisonError::into_inner).retain(|(id, _)| *id != checkpoint);
    }

    fn live(&self) -> RwLockReadGuard<'_, Vec<(CheckpointId, Image)>> {
        self.checkpoints.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Marks all pages of a range of bytes as zero.
fn mark_zero(image: &Image, bytes: Range<u64>) {
    for page in PageIndex::containing(bytes.start).0..PageIndex::containing(bytes.end).0 {
        image.present().insert_zero(PageIndex(page));
    }
}
