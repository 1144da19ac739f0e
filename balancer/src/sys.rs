//! The only `unsafe` of this crate: what the allocator offers beyond allocating, and how much of
//! what was written waits in a socket.

use std::os::fd::{AsFd, AsRawFd};

/// Gives memory that this thread has freed back to the system. Costs some 10 us; memory is
/// otherwise kept for as long as the thread allocates nothing of its size.
///
/// The program's allocator is mimalloc; where another one is in force this does nothing.
#[allow(unsafe_code, reason = "a function of the C library behind mimalloc")]
pub(crate) fn give_back_freed_memory() {
    // SAFETY: mi_collect takes no pointer and may be called by any thread at any time; it
    // looks at the calling thread's own heap.
    unsafe { libmimalloc_sys::mi_collect(true) }
}

/// Bytes that were written to a socket and not taken by the other side yet; 0 if nobody knows.
#[allow(unsafe_code, reason = "nothing safe asks a socket for its queue")]
pub(crate) fn untaken(socket: &impl AsFd) -> u64 {
    let mut bytes: libc::c_int = 0;
    let socket = socket.as_fd();
    // SAFETY: the descriptor is open for as long as it is borrowed, and TIOCOUTQ writes one int to where
    // the pointer leads, which is ours.
    let asked = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if asked == 0 { u64::try_from(bytes).unwrap_or(0) } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Read, Write};

    #[test]
    fn what_the_other_side_has_not_read_is_counted_once_its_own_buffer_is_full() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut far = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut near = listener.accept().unwrap().0;
        near.set_nonblocking(true).unwrap();
        assert_eq!(untaken(&near), 0);
        let mut given = 0;
        while let Ok(bytes) = near.write(&[7; 65536]) {
            given += bytes as u64;
        }
        let waiting = untaken(&near);
        assert!(waiting > 0 && waiting <= given, "{waiting} of {given}");
        drop(near);
        let mut all = Vec::new();
        far.read_to_end(&mut all).unwrap();
        assert_eq!(all.len() as u64, given);
    }

    #[test]
    fn what_is_no_socket_has_nothing_waiting() {
        assert_eq!(untaken(&std::fs::File::open("/dev/null").unwrap()), 0);
    }
}
