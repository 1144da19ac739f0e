//! Memory that processes share: memfds, and mappings of them as atomic words.
//!
//! Who serves guest pages never maps them: a mapped read would fill holes. They
//! are read and written through their file, and mapped only by who runs a guest.

use std::fs::File;
use std::io;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::os::fd::AsFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

use nix::errno::Errno;
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::unistd::{Whence, lseek};

/// Creates an anonymous file in memory, all holes, of `len` bytes.
///
/// # Errors
/// No free file descriptor, or the length is beyond what the kernel allows.
pub fn memfd(name: &str, len: u64) -> io::Result<File> {
    let file = File::from(memfd_create(name, MFdFlags::MFD_CLOEXEC)?);
    file.set_len(len)?;
    Ok(file)
}

/// The parts of a file that are not holes, in order, as byte ranges.
///
/// # Errors
/// The file system cannot tell.
pub fn data_ranges(file: &File) -> io::Result<Vec<Range<u64>>> {
    let mut ranges = Vec::new();
    let mut at = 0;
    loop {
        let data = match lseek(file.as_fd(), at, Whence::SeekData) {
            Ok(data) => data,
            Err(Errno::ENXIO) => return Ok(ranges),
            Err(error) => return Err(error.into()),
        };
        at = lseek(file.as_fd(), data, Whence::SeekHole)?;
        ranges.push(data as u64..at as u64);
    }
}

/// A shared mapping of a file as 64-bit atomic words. Dropping it unmaps.
#[derive(Debug)]
pub struct SharedWords {
    start: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the mapping is plain shared memory that is only touched through atomics.
unsafe impl Send for SharedWords {}
// SAFETY: as above.
unsafe impl Sync for SharedWords {}

impl SharedWords {
    /// Maps the first `words` 64-bit words of `file`, which must be at least that long.
    ///
    /// # Errors
    /// The file is shorter, or address space is short.
    pub fn map(file: &File, words: usize) -> io::Result<Self> {
        Self::map_with(file, words, MapFlags::MAP_SHARED)
    }

    /// The same, but what is written here stays in this process, as a clone maps its image.
    ///
    /// # Errors
    /// As for [`SharedWords::map`].
    pub fn map_private(file: &File, words: usize) -> io::Result<Self> {
        Self::map_with(file, words, MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE)
    }

    fn map_with(file: &File, words: usize, flags: MapFlags) -> io::Result<Self> {
        let bytes = NonZeroUsize::new(words * 8).ok_or(io::ErrorKind::InvalidInput)?;
        if file.metadata()?.len() < bytes.get() as u64 {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "file shorter than its mapping"));
        }
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing. The length was
        // checked; a peer that shrinks the file is one of our own processes, none of which does.
        let start = unsafe { mmap(None, bytes, protection, flags, file.as_fd(), 0)? };
        Ok(Self { start: start.cast(), words })
    }

    /// Where the mapping starts in this process, bytes.
    #[must_use]
    pub fn address(&self) -> u64 {
        self.start.as_ptr() as u64
    }

    /// The words.
    #[must_use]
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page aligned, `words` long, and lives as long as `self`.
        unsafe { std::slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }
}

impl Drop for SharedWords {
    fn drop(&mut self) {
        // SAFETY: mapped by `map` with this length; `words()` borrows end before the drop.
        let _ = unsafe { munmap(self.start.cast(), self.words * 8) };
    }
}

/// Maps `len` bytes of `file` privately over `[address, address + len)` of this process.
///
/// # Errors
/// The kernel refuses the mapping.
///
/// # Safety
/// The range must be a mapping that the caller may replace, and no reference may point into it.
pub unsafe fn replace_mapping(address: usize, len: usize, file: &File) -> io::Result<()> {
    let (address, len) = (NonZeroUsize::new(address), NonZeroUsize::new(len));
    let len = len.ok_or(io::ErrorKind::InvalidInput)?;
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED | MapFlags::MAP_NORESERVE;
    // SAFETY: promised by the caller.
    unsafe { mmap(address, len, protection, flags, file.as_fd(), 0)? };
    Ok(())
}
