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

/// Descriptors that one message may carry at most.
pub const MAX_FDS: usize = 64;
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
