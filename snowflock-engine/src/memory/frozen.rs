//! The frozen view: a page as it was at the checkpoint, while its VM goes on.
//!
//!   known to the image?  yes -> that is it
//!                        no  -> read the VM's memory, then look again:
//!                               saved meanwhile -> what was read may be torn, take what was saved
//!                               not saved       -> nobody has written to it, it is good
//!
//! The second look is sound because the freezer sets the bit before it lets the
//! VM's write through.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileExt;
use std::sync::atomic::{Ordering, fence};

use super::bitmap::PageState;
use super::image::{Image, is_zero};
use super::{PAGE_BYTES, Page, PageIndex, Region};

/// Where the pages of a frozen VM are read that the image has not got.
#[derive(Debug)]
pub enum Source {
    /// The RAM file of a root parent, which maps it shared.
    RamFile(File),
    /// A clone that was forked itself: its own pages are in its process, the rest in its parent's view.
    Process(Box<ProcessSource>),
}

/// The memory of a clone, seen from outside.
#[derive(Debug)]
pub struct ProcessSource {
    /// `/proc/PID/mem`.
    memory: File,
    /// `/proc/PID/pagemap`: which pages the clone has touched.
    pagemap: File,
    /// Where guest memory lies in it.
    region: Region,
    /// What it sees where it has touched nothing.
    base: FrozenView,
}

/// What a page holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Content {
    /// The image has it.
    InImage,
    /// The buffer has it.
    Read,
    /// All zeros.
    Zero,
}

/// The frozen memory of one checkpoint.
#[derive(Debug)]
pub struct FrozenView {
    /// The image that the clones of this checkpoint map.
    pub image: Image,
    /// Where the other pages are.
    pub source: Source,
}

impl FrozenView {
    /// Reads a page as it was at the checkpoint. The buffer holds it only where the answer says so.
    ///
    /// # Errors
    /// The page is outside of memory, or the process that held it is gone.
    pub fn read(&self, page: PageIndex, into: &mut Page) -> io::Result<Content> {
        self.image.check(page)?;
        if let Some(known) = self.known(page) {
            return Ok(known);
        }
        match &self.source {
            Source::RamFile(file) => file.read_exact_at(into, page.offset())?,
            Source::Process(process) => process.read(page, into)?,
        }
        // The content was read before the bit is.
        fence(Ordering::Acquire);
        let found = if is_zero(into) { Content::Zero } else { Content::Read };
        Ok(self.known(page).unwrap_or(found))
    }

    fn known(&self, page: PageIndex) -> Option<Content> {
        match self.image.state(page) {
            PageState::Present => Some(Content::InImage),
            PageState::Zero => Some(Content::Zero),
            PageState::Absent => None,
        }
    }

    /// The same, with the content always in the buffer.
    ///
    /// # Errors
    /// As for [`FrozenView::read`].
    pub fn read_into(&self, page: PageIndex, into: &mut Page) -> io::Result<()> {
        match self.read(page, into)? {
            Content::InImage => self.image.read(page, into),
            Content::Read => Ok(()),
            Content::Zero => {
                into.fill(0);
                Ok(())
            }
        }
    }

    /// What another process needs to have the same view: descriptors, and regions of the processes.
    #[must_use]
    pub fn parts(&self) -> (Vec<BorrowedFd<'_>>, Vec<Region>) {
        let mut fds = vec![self.image.file().as_fd(), self.image.present().file().as_fd()];
        match &self.source {
            Source::RamFile(file) => {
                fds.push(file.as_fd());
                (fds, Vec::new())
            }
            Source::Process(process) => {
                let (base_fds, base_regions) = process.base.parts();
                fds.extend([process.memory.as_fd(), process.pagemap.as_fd()]);
                fds.extend(base_fds);
                (fds, [vec![process.region], base_regions].concat())
            }
        }
    }

    /// The view made of parts that came from another process.
    ///
    /// # Errors
    /// Descriptors are missing, or a bitmap is too short.
    pub fn from_parts(fds: &mut impl Iterator<Item = OwnedFd>, regions: &[Region]) -> io::Result<Self> {
        let mut next = || fds.next().map(File::from).ok_or(io::ErrorKind::InvalidInput);
        let image = Image::open(next()?, next()?)?;
        let source = match regions.split_first() {
            None => Source::RamFile(next()?),
            Some((region, rest)) => {
                let (memory, pagemap) = (next()?, next()?);
                let base = Self::from_parts(fds, rest)?;
                Source::Process(Box::new(ProcessSource { memory, pagemap, region: *region, base }))
            }
        };
        Ok(Self { image, source })
    }

    /// Another handle on the same view.
    ///
    /// # Errors
    /// No free file descriptor.
    pub fn duplicate(&self) -> io::Result<Self> {
        let (fds, regions) = self.parts();
        let owned: Vec<_> = fds.iter().map(BorrowedFd::try_clone_to_owned).collect::<Result<_, _>>()?;
        Self::from_parts(&mut owned.into_iter(), &regions)
    }
}

impl ProcessSource {
    /// The memory of the clone that runs in process `pid`, over what its own checkpoint holds.
    ///
    /// # Errors
    /// The process is gone or not ours to read.
    pub fn open(pid: u32, region: Region, base: FrozenView) -> io::Result<Self> {
        let open = |what| File::open(format!("/proc/{pid}/{what}"));
        Ok(Self { memory: open("mem")?, pagemap: open("pagemap")?, region, base })
    }

    fn read(&self, page: PageIndex, into: &mut Page) -> io::Result<()> {
        let address = self.region.address_of(page);
        let mut entry = [0; 8];
        self.pagemap.read_exact_at(&mut entry, address / PAGE_BYTES as u64 * 8)?;
        if is_touched(u64::from_ne_bytes(entry)) {
            match self.memory.read_exact_at(into, address) {
                Ok(()) => return Ok(()),
                // A page that userfaultfd reports as absent cannot be read from outside.
                Err(error) if error.raw_os_error() == Some(libc::EIO) => {}
                Err(error) => return Err(error),
            }
        }
        self.base.read_into(page, into)
    }
}

/// Whether an entry of `/proc/PID/pagemap` tells of a page of the process's own. Protecting an absent
/// page leaves a marker, which looks like a page swapped out to the last of all devices.
fn is_touched(entry: u64) -> bool {
    const PRESENT: u64 = 1 << 63;
    const SWAPPED: u64 = 1 << 62;
    const PROTECTED: u64 = 1 << 57;
    const SWAP_DEVICE: u64 = 0b1_1111;
    let is_marker = entry & PROTECTED != 0 && entry & SWAP_DEVICE == SWAP_DEVICE;
    entry & PRESENT != 0 || entry & SWAPPED != 0 && !is_marker
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::memory::memfd;

    fn view() -> FrozenView {
        let ram = memfd("ram", 4 * PAGE_BYTES as u64).unwrap();
        ram.write_all_at(&[5; PAGE_BYTES], PageIndex(1).offset()).unwrap();
        FrozenView { image: Image::new(4).unwrap(), source: Source::RamFile(ram) }
    }

    #[test]
    fn an_unsaved_page_is_read_from_the_vm_and_a_hole_is_zero() {
        let (view, mut page) = (view(), [9; PAGE_BYTES]);
        assert_eq!(view.read(PageIndex(1), &mut page).unwrap(), Content::Read);
        assert_eq!(page, [5; PAGE_BYTES]);
        assert_eq!(view.read(PageIndex(2), &mut page).unwrap(), Content::Zero);
    }

    #[test]
    fn a_saved_page_wins_over_what_the_vm_holds_now() {
        let (view, mut page) = (view(), [0; PAGE_BYTES]);
        view.image.fill(PageIndex(1), &[4; PAGE_BYTES]).unwrap();
        view.read_into(PageIndex(1), &mut page).unwrap();
        assert_eq!(page, [4; PAGE_BYTES]);
    }

    #[test]
    fn a_page_that_was_zero_stays_so_whatever_the_vm_holds_now() {
        let (view, mut page) = (view(), [9; PAGE_BYTES]);
        view.image.keep(PageIndex(1), &[0; PAGE_BYTES]).unwrap();
        assert_eq!(view.read(PageIndex(1), &mut page).unwrap(), Content::Zero);
        view.read_into(PageIndex(1), &mut page).unwrap();
        assert_eq!(page, [0; PAGE_BYTES]);
    }

    #[test]
    fn a_page_outside_of_memory_is_an_error() {
        assert!(view().read(PageIndex(4), &mut [0; PAGE_BYTES]).is_err());
    }

    #[test]
    fn a_view_travels_as_its_parts() {
        let view = view();
        let copy = view.duplicate().unwrap();
        view.image.fill(PageIndex(0), &[8; PAGE_BYTES]).unwrap();
        let mut page = [0; PAGE_BYTES];
        copy.read_into(PageIndex(0), &mut page).unwrap();
        assert_eq!(page, [8; PAGE_BYTES]);
    }

    #[test]
    fn parts_that_are_missing_are_noticed() {
        let view = view();
        let (fds, regions) = view.parts();
        for kept in 0..fds.len() {
            let mut some = fds[..kept].iter().map(|fd| fd.try_clone_to_owned().unwrap());
            assert!(FrozenView::from_parts(&mut some, &regions).is_err(), "with {kept} of {}", fds.len());
        }
    }

    #[test]
    fn a_marker_of_protection_is_no_page_and_a_swapped_page_is_one() {
        let (present, swapped, protected) = (1 << 63, 1 << 62, 1 << 57);
        assert!(!is_touched(0));
        assert!(is_touched(present) && is_touched(present | protected));
        assert!(is_touched(swapped) && is_touched(swapped | protected | 3));
        assert!(!is_touched(swapped | protected | 0b10_0000 | 31));
    }
}
