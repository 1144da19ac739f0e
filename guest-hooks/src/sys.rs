//! Every system call that the standard library does not offer, each behind a safe signature.
//!
//! This is the only module of the guest programs with `unsafe` in it.
#![allow(unsafe_code)]

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

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
