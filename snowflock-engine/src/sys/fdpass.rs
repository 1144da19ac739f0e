//! Messages with file descriptors over unix sockets of type SEQPACKET.
//!
//! A message arrives whole or not at all; its descriptors come with it.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

use nix::sys::socket::{
    self, AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
};
use nix::sys::time::TimeVal;

/// Descriptors that one message may carry at most: the kernel's own limit (`SCM_MAX_FD`). A view needs
/// three, and four more for every fork above it; a guest two for every live checkpoint.
pub const MAX_FDS: usize = 253;
/// Bytes that one message may have at most.
pub const MAX_BYTES: usize = 16 * 1024;

/// One end of a connection.
#[derive(Debug)]
pub struct Channel(OwnedFd);

/// A received message.
#[derive(Debug)]
pub struct Message {
    /// The bytes.
    pub bytes: Vec<u8>,
    /// The descriptors, in the order in which they were sent.
    pub fds: Vec<OwnedFd>,
}

impl Channel {
    /// Two connected ends.
    ///
    /// # Errors
    /// No free file descriptor.
    pub fn pair() -> io::Result<(Self, Self)> {
        let (a, b) =
            socket::socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)?;
        Ok((Self(a), Self(b)))
    }

    /// Connects to a listening socket.
    ///
    /// # Errors
    /// Nobody listens at `path`.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let fd = new_socket()?;
        socket::connect(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        Ok(Self(fd))
    }

    /// How long [`Channel::receive`] waits; `None` for ever.
    ///
    /// # Errors
    /// The kernel refuses the option.
    pub fn set_timeout(&self, limit: Option<Duration>) -> io::Result<()> {
        let limit = limit.unwrap_or(Duration::ZERO);
        let value = TimeVal::new(limit.as_secs() as i64, i64::from(limit.subsec_micros()));
        Ok(socket::setsockopt(&self.0, socket::sockopt::ReceiveTimeout, &value)?)
    }

    /// Sends one message.
    ///
    /// # Errors
    /// The peer is gone, or the message is too long.
    pub fn send(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<()> {
        let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &rights[..0] } else { &rights[..] };
        let flags = MsgFlags::MSG_NOSIGNAL;
        socket::sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None)?;
        Ok(())
    }

    /// Waits for one message.
    ///
    /// # Errors
    /// The peer is gone (`UnexpectedEof`), the timeout has passed, or the message is cut off.
    pub fn receive(&self) -> io::Result<Message> {
        let mut bytes = vec![0; MAX_BYTES];
        let mut space = nix::cmsg_space!([RawFd; MAX_FDS]);
        let mut slices = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = socket::recvmsg::<()>(self.0.as_raw_fd(), &mut slices, Some(&mut space), flags)?;
        let length = message.bytes;
        let cut = message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
        let mut fds = Vec::new();
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = control {
                // SAFETY: the kernel has just installed these descriptors for us; nobody else owns them.
                fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        if cut {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "message longer than its limit"));
        }
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.truncate(length);
        Ok(Message { bytes, fds })
    }
}

impl From<OwnedFd> for Channel {
    fn from(fd: OwnedFd) -> Self {
        Self(fd)
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A listening socket at a path.
#[derive(Debug)]
pub struct Listener(OwnedFd);

impl Listener {
    /// Listens at `path`, which must not exist.
    ///
    /// # Errors
    /// The path exists, is too long (107 bytes), or its folder is missing.
    pub fn bind(path: &Path) -> io::Result<Self> {
        let fd = new_socket()?;
        socket::bind(fd.as_raw_fd(), &UnixAddr::new(path)?)?;
        socket::listen(&fd, Backlog::MAXCONN)?;
        Ok(Self(fd))
    }

    /// Waits for the next connection.
    ///
    /// # Errors
    /// No free file descriptor, or the socket was shut down.
    pub fn accept(&self) -> io::Result<Channel> {
        let raw = socket::accept4(self.0.as_raw_fd(), SockFlag::SOCK_CLOEXEC)?;
        // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
        Ok(Channel(unsafe { OwnedFd::from_raw_fd(raw) }))
    }
}

fn new_socket() -> io::Result<OwnedFd> {
    Ok(socket::socket(AddressFamily::Unix, SockType::SeqPacket, SockFlag::SOCK_CLOEXEC, None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_carries_as_many_descriptors_as_the_kernel_allows_and_no_more() {
        let (a, b) = Channel::pair().unwrap();
        a.send(b"x", &[b.as_fd(); MAX_FDS]).unwrap();
        assert_eq!(b.receive().unwrap().fds.len(), MAX_FDS);
        assert!(a.send(b"x", &[b.as_fd(); MAX_FDS + 1]).is_err());
        a.send(b"y", &[]).unwrap();
        assert_eq!(b.receive().unwrap().bytes, b"y");
    }

    #[test]
    fn a_message_over_the_limit_is_refused_and_the_longest_passes() {
        let (a, b) = Channel::pair().unwrap();
        a.send(&[7; MAX_BYTES], &[]).unwrap();
        assert_eq!(b.receive().unwrap().bytes.len(), MAX_BYTES);
        a.send(&[7; MAX_BYTES + 1], &[a.as_fd()]).unwrap();
        assert_eq!(b.receive().unwrap_err().to_string(), "message longer than its limit");
    }

    #[test]
    fn a_peer_that_is_gone_and_one_that_is_silent_differ() {
        let (a, b) = Channel::pair().unwrap();
        a.set_timeout(Some(Duration::from_millis(5))).unwrap();
        assert_eq!(a.receive().unwrap_err().kind(), io::ErrorKind::WouldBlock);
        drop(b);
        assert_eq!(a.receive().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(a.send(b"x", &[]).is_err());
    }

    #[test]
    fn a_path_is_bound_once_and_nobody_is_met_where_nobody_listens() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("socket");
        assert!(Channel::connect(&path).is_err());
        let listener = Listener::bind(&path).unwrap();
        assert!(Listener::bind(&path).is_err());
        assert!(Listener::bind(&folder.path().join("x".repeat(108))).is_err());
        let ours = Channel::connect(&path).unwrap();
        ours.send(b"hello", &[]).unwrap();
        assert_eq!(listener.accept().unwrap().receive().unwrap().bytes, b"hello");
    }
}
