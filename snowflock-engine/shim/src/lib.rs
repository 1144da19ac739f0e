//! Loaded into QEMU with LD_PRELOAD: gives memserver and memtap a hold on guest memory.
//!
//! It recognises the mapping of the RAM file (by the inherited file descriptor
//! named in the environment), makes it private for a clone although QEMU asked
//! for a shared one (so that QEMU leaves its pages out of the device state),
//! and serves requests for the userfaultfd on a thread of its own, so that a
//! QEMU whose main loop waits for a page can still be helped.
//!
//! It keeps a copy of the userfaultfd open for ever: when the last holder
//! closes it, absent pages would silently read as zeros.
#![allow(unsafe_code)]

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, RawFd};
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

use libc::{c_int, c_void, off_t, size_t};
use nix::sys::signal::{SigSet, SigmaskHow, pthread_sigmask};
use snowflock_engine::shim_protocol::{ENV_PRIVATE, ENV_RAM_FD, ENV_SOCKET, Reply, Request};
use snowflock_engine::sys::fdpass::{Channel, Listener};
use snowflock_engine::sys::memory::replace_mapping;
use snowflock_engine::sys::uffd::{Mode, Uffd};

static ADDRESS: AtomicU64 = AtomicU64::new(0);
static LENGTH: AtomicU64 = AtomicU64::new(0);

/// Stands in front of mmap(2).
///
/// # Safety
/// As for mmap(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap(
    address: *mut c_void,
    length: size_t,
    protection: c_int,
    flags: c_int,
    fd: c_int,
    offset: off_t,
) -> *mut c_void {
    let is_ram = fd >= 0 && ADDRESS.load(Ordering::Relaxed) == 0 && is_ram_file(fd);
    let flags = if is_ram && is_clone() { flags & !libc::MAP_SHARED | libc::MAP_PRIVATE } else { flags };
    // SAFETY: the caller's own arguments; only the sharing of the RAM file is changed.
    let raw = unsafe { libc::syscall(libc::SYS_mmap, address, length, protection, flags, fd, offset) };
    if is_ram && raw != -1 {
        LENGTH.store(length as u64, Ordering::Relaxed);
        ADDRESS.store(raw as u64, Ordering::Release);
        start_serving();
    }
    raw as *mut c_void
}

/// The same under its other name.
///
/// # Safety
/// As for mmap(2).
#[unsafe(no_mangle)]
pub unsafe extern "C" fn mmap64(
    address: *mut c_void,
    length: size_t,
    protection: c_int,
    flags: c_int,
    fd: c_int,
    offset: off_t,
) -> *mut c_void {
    // SAFETY: the same call on 64-bit machines.
    unsafe { mmap(address, length, protection, flags, fd, offset) }
}

fn ram_fd() -> Option<RawFd> {
    std::env::var(ENV_RAM_FD).ok()?.parse().ok()
}

fn is_clone() -> bool {
    std::env::var_os(ENV_PRIVATE).is_some_and(|v| v == "1")
}

/// QEMU opens the file again through `/proc/self/fd`, so the numbers differ and the file is the same.
fn is_ram_file(fd: RawFd) -> bool {
    let identity = |fd: RawFd| {
        // SAFETY: `stat` is plain data that fstat fills in.
        unsafe {
            let mut stat: libc::stat = std::mem::zeroed();
            (libc::fstat(fd, &raw mut stat) == 0).then_some((stat.st_dev, stat.st_ino))
        }
    };
    ram_fd().is_some_and(|ram| identity(ram).is_some() && identity(ram) == identity(fd))
}

/// Starts the thread that serves requests, with every signal blocked: signals are QEMU's.
fn start_serving() {
    let Some(path) = std::env::var_os(ENV_SOCKET).map(PathBuf::from) else { return };
    let mut before = SigSet::empty();
    let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&SigSet::all()), Some(&mut before));
    let listener = Listener::bind(&path);
    let started = listener.map(|l| std::thread::Builder::new().name("snowflock".into()).spawn(|| serve(l)));
    let _ = pthread_sigmask(SigmaskHow::SIG_SETMASK, Some(&before), None);
    if let Err(error) = started {
        eprintln!("snowflock shim: cannot listen at {}: {error}", path.display());
    }
}

fn serve(listener: Listener) {
    let memory = &*Box::leak(Box::new(Mutex::new(GuestMemory::default())));
    loop {
        match listener.accept() {
            Ok(channel) => {
                let _ = std::thread::Builder::new().spawn(move || converse(memory, &channel));
            }
            Err(error) => {
                eprintln!("snowflock shim: {error}");
                std::thread::sleep(std::time::Duration::from_millis(100));
            }
        }
    }
}

fn converse(memory: &Mutex<GuestMemory>, channel: &Channel) {
    while let Ok(message) = channel.receive() {
        let mut memory = memory.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let done = Request::decode(&message.bytes).and_then(|request| {
            if request == Request::Adopt {
                memory.adopt(message.fds.into_iter().next().map(File::from))?;
            }
            memory.hand_over(channel)
        });
        if let Err(error) = done {
            let errno = error.raw_os_error().unwrap_or(libc::EPROTO);
            if channel.send(&Reply::Failed { errno }.encode(), &[]).is_err() {
                return;
            }
        }
    }
}

/// What the shim holds on to for QEMU's life.
#[derive(Default)]
struct GuestMemory {
    uffd: Option<Uffd>,
    image: Option<File>,
}

impl GuestMemory {
    /// Puts the image in place of the hollow memory of a clone that has not run yet.
    fn adopt(&mut self, image: Option<File>) -> io::Result<()> {
        let image = image.ok_or(io::ErrorKind::InvalidInput)?;
        let (address, len) = region();
        if !is_clone() || image.metadata()?.len() != len {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        // SAFETY: the range is guest memory of a VM that waits for its device state: nothing has
        // touched it, and QEMU holds it by address only.
        unsafe { replace_mapping(address as usize, len as usize, &image)? };
        self.uffd = None;
        self.image = Some(image);
        Ok(())
    }

    fn hand_over(&mut self, channel: &Channel) -> io::Result<()> {
        let (address, len) = region();
        if self.uffd.is_none() {
            let uffd = Uffd::open()?;
            let mode = if is_clone() { Mode::MissingAndWriteProtect } else { Mode::WriteProtect };
            uffd.register(address, len, mode)?;
            self.uffd = Some(uffd);
        }
        let uffd = self.uffd.as_ref().ok_or(io::ErrorKind::NotFound)?;
        let ram = match (&self.image, ram_fd()) {
            (Some(image), _) => image.as_fd(),
            // SAFETY: inherited at the start and never closed.
            (None, Some(fd)) => unsafe { BorrowedFd::borrow_raw(fd) },
            (None, None) => return Err(io::ErrorKind::NotFound.into()),
        };
        channel.send(&Reply::Region { address, len }.encode(), &[uffd.as_fd(), ram])
    }
}

fn region() -> (u64, u64) {
    (ADDRESS.load(Ordering::Acquire), LENGTH.load(Ordering::Relaxed))
}
