//! The system calls that neither the standard library nor nix offers, each behind a safe signature.
//!
//! This is the only module of the crate with `unsafe` in it.
#![allow(unsafe_code)]

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};

/// Loads a kernel module from an open file, with these parameters.
pub(crate) fn load_module(file: &File, parameters: &str) -> io::Result<()> {
    let parameters = CString::new(parameters)?;
    // SAFETY: the fd is open for the length of the call, and the string is zero-terminated.
    let result = unsafe { libc::syscall(libc::SYS_finit_module, file.as_raw_fd(), parameters.as_ptr(), 0) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Cuts the power at once.
pub(crate) fn power_off() -> io::Error {
    // SAFETY: no memory is passed.
    unsafe { libc::reboot(libc::RB_POWER_OFF) };
    io::Error::last_os_error()
}

const TUNSETIFF: u64 = 0x4004_54ca;
const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;
const IFF_VNET_HDR: u16 = 0x4000;
const NAME_BYTES: usize = 16;

#[repr(C)]
struct InterfaceRequest {
    name: [u8; NAME_BYTES],
    flags: u16,
    rest: [u8; 22],
}

const _: () = assert!(size_of::<InterfaceRequest>() == 40, "struct ifreq of 64-bit Linux");

/// Opens a tap device of the calling thread's namespace; it must be there.
pub(crate) fn open_tap(name: &str) -> io::Result<File> {
    if name.is_empty() || name.len() >= NAME_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("interface name {name:?}")));
    }
    let device = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    let flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR;
    let mut request = InterfaceRequest { name: [0; NAME_BYTES], flags, rest: [0; 22] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: TUNSETIFF takes a `struct ifreq` of 40 bytes, which this is.
    if unsafe { libc::ioctl(device.as_raw_fd(), TUNSETIFF as _, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(device)
}

/// Starts a program that has these descriptors under these numbers, and is killed when the calling
/// thread ends. The numbers must be apart from the descriptors' own.
pub(crate) fn spawn_with(command: &mut Command, handed: &[(BorrowedFd<'_>, RawFd)]) -> io::Result<Child> {
    let handed: Vec<(RawFd, RawFd)> = handed.iter().map(|(fd, number)| (fd.as_raw_fd(), *number)).collect();
    let prepare = move || {
        // SAFETY: no memory is passed.
        if unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) } < 0 {
            return Err(io::Error::last_os_error());
        }
        // Out of the way of each other first.
        for (fd, number) in &handed {
            // SAFETY: no memory is passed.
            let moved = unsafe { libc::fcntl(*fd, libc::F_DUPFD_CLOEXEC, FIRST_FREE) };
            // SAFETY: no memory is passed; the copy made by dup2 stays open in the program.
            if moved < 0 || unsafe { libc::dup2(moved, *number) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: between fork and exec only prctl, fcntl and dup2 are called, which are async-signal-safe.
    unsafe { command.pre_exec(prepare) }.spawn()
}

/// Above every number that a program is handed descriptors under.
const FIRST_FREE: libc::c_int = 64;
