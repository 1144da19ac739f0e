//! Every system call that the standard library does not offer, each behind a safe signature.
//!
//! This is the only module of the guest programs with `unsafe` in it.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

fn checked(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

fn c_string(text: &str) -> io::Result<CString> {
    CString::new(text).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

fn raw_mount(source: &str, target: &str, kind: &str, flags: libc::c_ulong) -> io::Result<()> {
    let (source, target, kind) = (c_string(source)?, c_string(target)?, c_string(kind)?);
    // SAFETY: the three strings are zero-terminated and outlive the call; no mount data is passed.
    checked(unsafe { libc::mount(source.as_ptr(), target.as_ptr(), kind.as_ptr(), flags, std::ptr::null()) })
        .map(drop)
}

/// Mounts `source` of file system type `kind` on `target`.
pub(crate) fn mount(source: &str, target: &str, kind: &str, read_only: bool) -> io::Result<()> {
    let flags = if read_only { libc::MS_RDONLY } else { 0 };
    raw_mount(source, target, kind, flags)
}

/// Moves a mounted tree to another place.
pub(crate) fn move_mount(from: &str, to: &str) -> io::Result<()> {
    raw_mount(from, to, "none", libc::MS_MOVE)
}

/// Makes the tree mounted at `new_root` the root of this process.
pub(crate) fn switch_root(new_root: &str) -> io::Result<()> {
    std::env::set_current_dir(new_root)?;
    move_mount(".", "/")?;
    std::os::unix::fs::chroot(".")?;
    std::env::set_current_dir("/")
}

/// Loads a kernel module from an open file.
pub(crate) fn load_module(file: &File) -> io::Result<()> {
    // SAFETY: the fd is open for the length of the call, the parameter string is a static empty C string.
    let result = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), c"".as_ptr(), 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Replaces this process by the program `path`, with an empty argument list but its own name.
/// Returns only when that failed.
pub(crate) fn exec(path: &CStr) -> io::Error {
    let argv = [path.as_ptr(), std::ptr::null()];
    // SAFETY: argv is a null-terminated array of valid C strings that outlives the call.
    unsafe { libc::execv(path.as_ptr(), argv.as_ptr()) };
    io::Error::last_os_error()
}

/// A pool entry as `RNDADDENTROPY` takes it (random(4)).
#[repr(C)]
struct PoolEntry {
    entropy_bits: libc::c_int,
    size: libc::c_int,
    bytes: [u8; 32],
}

const RNDADDENTROPY: libc::c_ulong = 0x4008_5203;
const RNDRESEEDCRNG: libc::c_ulong = 0x5207;

/// Mixes `entropy` into the kernel's random pool and makes the generator start from it at once.
pub(crate) fn reseed(random: &File, entropy: &[u8; 32]) -> io::Result<()> {
    let entry = PoolEntry { entropy_bits: 256, size: 32, bytes: *entropy };
    // SAFETY: the kernel reads `size` bytes behind the two integers, all of them inside `entry`.
    checked(unsafe { libc::ioctl(random.as_raw_fd(), RNDADDENTROPY as _, &raw const entry) })?;
    // SAFETY: this request takes no argument.
    checked(unsafe { libc::ioctl(random.as_raw_fd(), RNDRESEEDCRNG as _) }).map(drop)
}

/// 16 bytes from the kernel's generator.
pub(crate) fn random() -> io::Result<[u8; 16]> {
    let mut bytes = [0; 16];
    // SAFETY: the kernel writes at most 16 bytes into the array.
    let count = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    if count == 16 { Ok(bytes) } else { Err(io::Error::last_os_error()) }
}

/// Sets the wall clock to this many nanoseconds since 1970.
pub(crate) fn step_clock(unix_time_ns: u64) -> io::Result<()> {
    let time = libc::timespec {
        tv_sec: (unix_time_ns / 1_000_000_000) as libc::time_t,
        tv_nsec: (unix_time_ns % 1_000_000_000) as libc::c_long,
    };
    // SAFETY: the kernel only reads the timespec.
    checked(unsafe { libc::clock_settime(libc::CLOCK_REALTIME, &raw const time) }).map(drop)
}

/// Sets the kernel's host name.
pub(crate) fn set_hostname(name: &str) -> io::Result<()> {
    // SAFETY: the kernel reads `len` bytes of `name`; no terminator is needed.
    checked(unsafe { libc::sethostname(name.as_ptr().cast(), name.len()) }).map(drop)
}

/// A socket to the kernel's routing tables. `read` and `write` on it talk to the kernel alone.
pub(crate) fn open_rtnetlink() -> io::Result<File> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: no memory is passed.
    let fd = checked(unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_ROUTE) })?;
    // SAFETY: the fd is new and nobody else's.
    Ok(File::from(unsafe { OwnedFd::from_raw_fd(fd) }))
}

/// Keeps all pages that this process has now in memory.
pub(crate) fn lock_memory() -> io::Result<()> {
    // SAFETY: no memory is passed.
    checked(unsafe { libc::mlockall(libc::MCL_CURRENT) }).map(drop)
}

/// Lets this process run before all ordinary ones. Its children are ordinary again.
pub(crate) fn run_first() -> io::Result<()> {
    let priority = libc::sched_param { sched_priority: 1 };
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    // SAFETY: the kernel only reads the parameter; 0 is this process.
    checked(unsafe { libc::sched_setscheduler(0, policy, &raw const priority) }).map(drop)
}

fn poll(fd: RawFd, timeout: Duration) -> io::Result<libc::c_short> {
    let mut entry = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    let timeout_ms = libc::c_int::try_from(timeout.as_millis()).unwrap_or(libc::c_int::MAX);
    // SAFETY: one valid pollfd is passed, and its count is 1.
    match checked(unsafe { libc::poll(&raw mut entry, 1, timeout_ms) }) {
        Ok(_) => Ok(entry.revents),
        Err(e) if e.kind() == io::ErrorKind::Interrupted => Ok(0),
        Err(e) => Err(e),
    }
}

/// Things that may have something to read. Its room is kept, so that waiting again allocates nothing.
#[derive(Default)]
pub(crate) struct Watch(Vec<libc::pollfd>);

impl Watch {
    /// Forgets all.
    pub(crate) fn clear(&mut self) {
        self.0.clear();
    }

    /// One more.
    pub(crate) fn add(&mut self, thing: &impl AsRawFd) {
        self.0.push(libc::pollfd { fd: thing.as_raw_fd(), events: libc::POLLIN, revents: 0 });
    }

    /// Waits, for ever if need be, until one has bytes or has been closed.
    pub(crate) fn wait(&mut self) -> io::Result<()> {
        // SAFETY: the entries are valid pollfds, and their count is that of the vector.
        match checked(unsafe { libc::poll(self.0.as_mut_ptr(), self.0.len() as libc::nfds_t, -1) }) {
            Err(e) if e.kind() != io::ErrorKind::Interrupted => Err(e),
            _ => Ok(()),
        }
    }

    /// Has this one bytes, or has it been closed?
    pub(crate) fn has_news(&self, thing: &impl AsRawFd) -> bool {
        self.0.iter().any(|entry| entry.fd == thing.as_raw_fd() && entry.revents != 0)
    }
}

/// Are there bytes to read within `timeout`?
pub(crate) fn readable_within(file: &File, timeout: Duration) -> io::Result<bool> {
    poll(file.as_raw_fd(), timeout).map(|events| events & libc::POLLIN != 0)
}

/// Waits for the child process `pid` to end, at most until `ends`. Does not reap it.
pub(crate) fn wait_until(pid: u32, ends: Instant) -> io::Result<bool> {
    // SAFETY: no memory is passed.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
    let fd = checked(libc::c_int::try_from(fd).unwrap_or(-1))?;
    // SAFETY: the fd is new and nobody else's.
    let process = unsafe { OwnedFd::from_raw_fd(fd) };
    loop {
        let left = ends.saturating_duration_since(Instant::now());
        if poll(process.as_raw_fd(), left)? & libc::POLLIN != 0 {
            return Ok(true);
        }
        if left.is_zero() {
            return Ok(false);
        }
    }
}

fn kill(pid: libc::pid_t, signal: libc::c_int) -> io::Result<()> {
    // SAFETY: no memory is passed.
    checked(unsafe { libc::kill(pid, signal) }).map(drop)
}

/// Kills the process group that `leader`, a child of this process, leads.
pub(crate) fn kill_group(leader: u32) -> io::Result<()> {
    kill(-libc::pid_t::try_from(leader).unwrap_or(libc::pid_t::MAX), libc::SIGKILL)
}

/// Asks systemd, process 1, to start `poweroff.target` (systemd(1), "Signals").
pub(crate) fn ask_systemd_to_power_off() -> io::Result<()> {
    kill(1, libc::SIGRTMIN() + 4)
}

/// Writes all files back and cuts the power.
pub(crate) fn power_off_now() -> io::Result<()> {
    // SAFETY: no memory is passed.
    unsafe { libc::sync() };
    // SAFETY: no memory is passed.
    checked(unsafe { libc::reboot(libc::RB_POWER_OFF) }).map(drop)
}
