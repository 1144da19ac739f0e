//! userfaultfd: registering a range, reading its faults, resolving them.
//!
//! Two modes are used. MISSING faults (a page that a clone has not got) are
//! resolved by putting the page into the file behind the mapping and waking the
//! range, or by giving the clone a private page (`copy`, `zero`). WP faults (a
//! write to a frozen page) are resolved by saving the old content and lifting
//! the protection. Source of layouts and numbers: `linux/userfaultfd.h`.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const UFFD_API: u64 = 0xAA;
const IOCTL_API: u64 = 0xc018_aa3f;
const IOCTL_REGISTER: u64 = 0xc020_aa00;
const IOCTL_UNREGISTER: u64 = 0x8010_aa01;
const IOCTL_WAKE: u64 = 0x8010_aa02;
const IOCTL_COPY: u64 = 0xc028_aa03;
const IOCTL_ZEROPAGE: u64 = 0xc020_aa04;
const IOCTL_WRITEPROTECT: u64 = 0xc018_aa06;

const FEATURE_PAGEFAULT_FLAG_WP: u64 = 1 << 0;
const FEATURE_MISSING_SHMEM: u64 = 1 << 5;
const FEATURE_WP_HUGETLBFS_SHMEM: u64 = 1 << 12;
const NEEDED: u64 = FEATURE_PAGEFAULT_FLAG_WP | FEATURE_MISSING_SHMEM | FEATURE_WP_HUGETLBFS_SHMEM;

const EVENT_PAGEFAULT: u8 = 0x12;
const FAULT_WRITE: u64 = 1 << 0;
const FAULT_WP: u64 = 1 << 1;
const REGISTER_MISSING: u64 = 1 << 0;
const REGISTER_WP: u64 = 1 << 1;
const WRITEPROTECT_ON: u64 = 1 << 0;
const MESSAGE_BYTES: usize = 32;
/// Faults taken from the kernel in one read: more than a guest has vCPUs and QEMU has I/O threads.
const BATCH: usize = 16;

#[repr(C)]
struct Api {
    api: u64,
    features: u64,
    ioctls: u64,
}

#[repr(C)]
#[derive(Clone, Copy)]
struct Range {
    start: u64,
    len: u64,
}

#[repr(C)]
struct Register {
    range: Range,
    mode: u64,
    ioctls: u64,
}

#[repr(C)]
struct Copy {
    dst: u64,
    src: u64,
    len: u64,
    mode: u64,
    copied: i64,
}

#[repr(C)]
struct Zero {
    range: Range,
    mode: u64,
    zeroed: i64,
}

#[repr(C)]
struct WriteProtect {
    range: Range,
    mode: u64,
}

/// Which faults of a range are reported.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Writes to protected pages only (the root parent).
    WriteProtect,
    /// Absent pages, and writes to protected pages (a clone).
    MissingAndWriteProtect,
}

/// A page fault, as told by the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// Faulting address in the faulting process, bytes.
    pub address: u64,
    /// The access was a write.
    pub write: bool,
    /// The page is there but write-protected; otherwise the page is absent.
    pub protected: bool,
}

/// An open userfaultfd. It acts on the address space of the process that created it.
#[derive(Debug)]
pub struct Uffd(File);

impl Uffd {
    /// Opens a userfaultfd on the calling process and agrees on the features needed.
    ///
    /// # Errors
    /// The kernel has no userfaultfd, refuses it to this user, or is older than 5.19.
    pub fn open() -> io::Result<Self> {
        // SAFETY: the call has no memory arguments.
        let raw = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC | libc::O_NONBLOCK) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
        let uffd = Self(unsafe { File::from_raw_fd(raw as i32) });
        let mut api = Api { api: UFFD_API, features: NEEDED, ioctls: 0 };
        uffd.ioctl(IOCTL_API, &mut api).map_err(|_| io::Error::from_raw_os_error(libc::EOPNOTSUPP))?;
        Ok(uffd)
    }

    /// Whether this process, and those that it starts, can use userfaultfd.
    ///
    /// # Errors
    /// As for [`Uffd::open`], in words, with the remedy.
    pub fn probe() -> io::Result<()> {
        Self::open().map(drop).map_err(explained)
    }

    /// Asks for faults in `[start, start + len)`, in bytes, both multiples of the page size.
    ///
    /// # Errors
    /// The range is not mapped, or mapped by something that the kernel cannot watch.
    pub fn register(&self, start: u64, len: u64, mode: Mode) -> io::Result<()> {
        let mode = match mode {
            Mode::WriteProtect => REGISTER_WP,
            Mode::MissingAndWriteProtect => REGISTER_MISSING | REGISTER_WP,
        };
        self.ioctl(IOCTL_REGISTER, &mut Register { range: Range { start, len }, mode, ioctls: 0 })
    }

    /// Ends the watch on a range and wakes its sleepers.
    ///
    /// # Errors
    /// The range is not registered.
    pub fn unregister(&self, start: u64, len: u64) -> io::Result<()> {
        self.ioctl(IOCTL_UNREGISTER, &mut Range { start, len })
    }

    /// Protects a range against writes.
    ///
    /// # Errors
    /// The range is not registered for write protection, or its process is gone (`ESRCH`).
    pub fn protect(&self, start: u64, len: u64) -> io::Result<()> {
        self.retrying(IOCTL_WRITEPROTECT, || WriteProtect {
            range: Range { start, len },
            mode: WRITEPROTECT_ON,
        })
    }

    /// Lifts the write protection of a range and wakes who waits there.
    ///
    /// # Errors
    /// As for [`Uffd::protect`].
    pub fn unprotect(&self, start: u64, len: u64) -> io::Result<()> {
        self.retrying(IOCTL_WRITEPROTECT, || WriteProtect { range: Range { start, len }, mode: 0 })
    }

    /// Wakes all who wait for pages in the range; they look at their page again.
    ///
    /// # Errors
    /// The range is not within one registered mapping.
    pub fn wake(&self, start: u64, len: u64) -> io::Result<()> {
        self.ioctl(IOCTL_WAKE, &mut Range { start, len })
    }

    /// Gives the process a private page with this content. `Ok(false)`: it had one already.
    ///
    /// # Errors
    /// The process is gone, or the address is not registered.
    pub fn copy(&self, address: u64, page: &[u8]) -> io::Result<bool> {
        let make =
            || Copy { dst: address, src: page.as_ptr() as u64, len: page.len() as u64, mode: 0, copied: 0 };
        exists_is_false(self.retrying(IOCTL_COPY, make))
    }

    /// Gives the process zero pages. `Ok(false)`: there was a page already.
    ///
    /// # Errors
    /// The process is gone, or the range is not registered.
    pub fn zero(&self, start: u64, len: u64) -> io::Result<bool> {
        let make = || Zero { range: Range { start, len }, mode: 0, zeroed: 0 };
        exists_is_false(self.retrying(IOCTL_ZEROPAGE, make))
    }

    /// Takes the faults that wait, oldest first, into `into`. Does not block.
    ///
    /// # Errors
    /// Anything but "nothing there", which leaves `into` empty.
    pub fn read(&self, into: &mut Vec<Fault>) -> io::Result<()> {
        let mut buffer = [0u8; MESSAGE_BYTES * BATCH];
        into.clear();
        match (&self.0).read(&mut buffer) {
            Ok(n) => into.extend(buffer[..n].chunks_exact(MESSAGE_BYTES).filter_map(parse)),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Err(e) => return Err(e),
        }
        Ok(())
    }

    /// The same file with a number of its own.
    ///
    /// # Errors
    /// No free file descriptor.
    pub fn duplicate(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// The kernel refuses these calls with `EAGAIN` while the mapping is being changed.
    fn retrying<T>(&self, request: u64, make: impl Fn() -> T) -> io::Result<()> {
        loop {
            match self.ioctl(request, &mut make()) {
                Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => std::thread::yield_now(),
                other => return other,
            }
        }
    }

    fn ioctl<T>(&self, request: u64, argument: &mut T) -> io::Result<()> {
        // SAFETY: every caller pairs the request with the struct that the kernel defines for it, and
        // source buffers outlive the call. The ranges belong to a guest's memory, which no Rust
        // reference points into.
        let r = unsafe { libc::ioctl(self.0.as_raw_fd(), request as _, argument as *mut T) };
        if r < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// The error of [`Uffd::open`] in words, with the remedy; any other error as it is.
#[must_use]
pub fn explained(error: io::Error) -> io::Error {
    let why = match error.raw_os_error() {
        Some(libc::EPERM) => "this user may not use userfaultfd: run as root, or with CAP_SYS_PTRACE",
        Some(libc::ENOSYS) => "the kernel has no userfaultfd: use one with CONFIG_USERFAULTFD=y",
        Some(libc::EOPNOTSUPP) => {
            "the kernel's userfaultfd cannot write-protect files in memory: use Linux 5.19 or later"
        }
        _ => return error,
    };
    io::Error::new(error.kind(), why)
}

fn exists_is_false(result: io::Result<()>) -> io::Result<bool> {
    match result {
        Ok(()) => Ok(true),
        Err(e) if e.raw_os_error() == Some(libc::EEXIST) => Ok(false),
        Err(e) => Err(e),
    }
}

fn parse(message: &[u8]) -> Option<Fault> {
    let word = |at: usize| message.get(at..at + 8)?.try_into().ok().map(u64::from_ne_bytes);
    if message.first() != Some(&EVENT_PAGEFAULT) {
        return None;
    }
    let (flags, address) = (word(8)?, word(16)?);
    Some(Fault { address, write: flags & FAULT_WRITE != 0, protected: flags & FAULT_WP != 0 })
}

impl From<OwnedFd> for Uffd {
    fn from(fd: OwnedFd) -> Self {
        Self(File::from(fd))
    }
}

impl AsFd for Uffd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_of_userfaultfd_names_its_remedy() {
        let said = |errno| explained(io::Error::from_raw_os_error(errno)).to_string();
        assert!(said(libc::EPERM).contains("run as root"));
        assert!(said(libc::ENOSYS).contains("CONFIG_USERFAULTFD"));
        assert!(said(libc::EOPNOTSUPP).contains("Linux 5.19"));
        assert!(said(libc::ENOMEM).contains("os error 12"), "others are left as they are");
    }

    #[test]
    fn a_range_that_nobody_registered_is_refused() {
        let uffd = Uffd::open().unwrap();
        assert!(uffd.protect(0x1000_0000, 4096).is_err());
        assert!(uffd.register(0x1000_0000, 4096, Mode::WriteProtect).is_err());
        assert!(uffd.zero(0x1000_0000, 4096).is_err());
        assert!(uffd.copy(0x1000_0000, &[0; 4096]).is_err());
        assert!(uffd.wake(0x1000_0001, 4096).is_err(), "not at a page");
        assert!(uffd.unregister(0x1000_0000, 4096).is_err());
    }
}
