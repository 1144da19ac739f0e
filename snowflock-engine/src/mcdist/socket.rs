//! The only file of mcdist that knows sockets.
//!
//! Equal datagrams to one place go to the kernel as one (UDP GSO) and come back
//! as one (GRO): a page costs a fifteenth of a system call. Where the kernel or
//! the device cannot do that, they go one by one.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, recvmsg, sendmsg, setsockopt, sockopt,
};
use nix::sys::time::TimeSpec;
use socket2::{Domain, InterfaceIndexOrAddress, Protocol, Socket, Type};

/// Bytes of one batch: what fits into one UDP datagram of the kernel.
pub(super) const BATCH_BYTES: usize = 65_000;
/// Datagrams of one batch (`UDP_MAX_SEGMENTS` of older kernels).
const BATCH_DATAGRAMS: usize = 64;
/// Datagrams may wait in the kernel while the thread does other things: 100 ms at a gigabit.
const RECEIVE_BUFFER: usize = 16 << 20;
/// A shaped link holds the sender back when so much waits: 20 ms at 100 Mbit/s. A page that a guest waits
/// for queues behind it.
const SEND_BUFFER: usize = 256 << 10;
/// How long a full send buffer is waited for; then the datagrams are lost. A slow link needs tens of
/// milliseconds to make room.
const FULL: Duration = Duration::from_millis(500);
/// Between two tries to receive, when that fails.
const REST: Duration = Duration::from_millis(10);

/// Consecutive datagrams to one place; all are as long as the first, but for the last.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) bytes: Vec<u8>,
    size: usize,
    count: usize,
    to: Option<SocketAddrV4>,
}

impl Batch {
    /// Whether a datagram that was appended to `bytes` belongs to the batch; otherwise it is split off.
    pub(super) fn take(&mut self, start: usize, to: SocketAddrV4) -> Option<Vec<u8>> {
        let len = self.bytes.len() - start;
        let fits = self.to.is_none_or(|other| other == to)
            && (self.count == 0 || len <= self.size && start == self.size * self.count)
            && self.count < BATCH_DATAGRAMS
            && self.bytes.len() <= BATCH_BYTES;
        if !fits {
            return Some(self.bytes.split_off(start));
        }
        if self.count == 0 {
            self.size = len;
        }
        (self.to, self.count) = (Some(to), self.count + 1);
        None
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn clear(&mut self) {
        self.bytes.clear();
        (self.size, self.count, self.to) = (0, 0, None);
    }
}

/// A socket, and how it sends.
#[derive(Debug)]
pub(super) struct Port {
    socket: UdpSocket,
    batches: bool,
    unsent: Troubles,
}

/// Errors that come again and again: all are counted, and fewer and fewer are told.
#[derive(Debug, Default)]
pub(super) struct Troubles(u64);

impl Troubles {
    /// Counts so many; whether it is time to tell.
    pub(super) fn add(&mut self, more: u64) -> bool {
        let before = self.0;
        self.0 += more;
        self.0.checked_ilog2() != before.checked_ilog2()
    }

    pub(super) fn count(&self) -> u64 {
        self.0
    }
}

impl Port {
    /// One at this address (port 0: any), which sends multicast out of that interface.
    pub(super) fn open(at: SocketAddrV4) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        socket.bind(&SocketAddr::from(at).into())?;
        socket.set_multicast_if_v4(at.ip())?;
        // Receivers of this host, in processes of their own, hear as well.
        socket.set_multicast_loop_v4(true)?;
        Self::prepare(socket)
    }

    /// One that hears a group on the interface with this address.
    pub(super) fn join(group: SocketAddrV4, interface: Ipv4Addr) -> io::Result<Self> {
        let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP))?;
        // Several checkpoints of a host may share a group.
        socket.set_reuse_address(true)?;
        socket.bind(&SocketAddr::from(group).into())?;
        socket.join_multicast_v4_n(group.ip(), &InterfaceIndexOrAddress::Address(interface))?;
        socket.set_multicast_all_v4(false)?;
        Self::prepare(socket)
    }

    fn prepare(socket: Socket) -> io::Result<Self> {
        socket.set_nonblocking(true)?;
        // Beyond the limit of the system only root may; then what the system gives.
        if setsockopt(&socket, sockopt::RcvBufForce, &RECEIVE_BUFFER).is_err() {
            socket.set_recv_buffer_size(RECEIVE_BUFFER)?;
        }
        if setsockopt(&socket, sockopt::SndBufForce, &SEND_BUFFER).is_err() {
            socket.set_send_buffer_size(SEND_BUFFER)?;
        }
        // Without it, batches come as single datagrams.
        let _ = setsockopt(&socket, sockopt::UdpGroSegment, &true);
        Ok(Self { socket: socket.into(), batches: true, unsent: Troubles::default() })
    }

    pub(super) fn local(&self) -> io::Result<SocketAddrV4> {
        match self.socket.local_addr()? {
            SocketAddr::V4(address) => Ok(address),
            SocketAddr::V6(_) => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Sends a batch and empties it. What cannot be sent is lost, as it may be anywhere on the way.
    pub(super) fn send(&mut self, batch: &mut Batch) {
        if let Some(to) = batch.to {
            let many = batch.count > 1 && self.batches;
            let sent = if many { self.send_together(&batch.bytes, batch.size as u16, to) } else { Ok(()) };
            match sent {
                // No GSO on this way, or the route's MTU is smaller than a datagram of the batch.
                Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::EIO)) => {
                    tracing::info!("datagrams cannot be sent in batches here");
                    self.batches = false;
                }
                Err(error) => self.note_unsent(batch.count, to, &error),
                Ok(()) => {}
            }
            if !many || !self.batches {
                for datagram in batch.bytes.chunks(batch.size.max(1)) {
                    if let Err(error) = self.send_one(datagram, to) {
                        self.note_unsent(1, to, &error);
                    }
                }
            }
        }
        batch.clear();
    }

    /// Datagrams that the system did not take so far.
    pub(super) fn unsent(&self) -> u64 {
        self.unsent.count()
    }

    fn note_unsent(&mut self, datagrams: usize, to: SocketAddrV4, error: &io::Error) {
        if self.unsent.add(datagrams as u64) {
            tracing::warn!(%error, %to, unsent = self.unsent.count(), "datagrams cannot be sent");
        }
    }

    fn send_together(&self, bytes: &[u8], size: u16, to: SocketAddrV4) -> io::Result<()> {
        let address = SockaddrIn::from(to);
        self.patiently(|| {
            let control = [ControlMessage::UdpGsoSegments(&size)];
            let flags = MsgFlags::MSG_DONTWAIT;
            Ok(sendmsg(self.socket.as_raw_fd(), &[IoSlice::new(bytes)], &control, flags, Some(&address))
                .map(drop)?)
        })
    }

    fn send_one(&self, bytes: &[u8], to: SocketAddrV4) -> io::Result<()> {
        self.patiently(|| self.socket.send_to(bytes, to).map(drop))
    }

    fn patiently(&self, send: impl Fn() -> io::Result<()>) -> io::Result<()> {
        match send() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait(&[(self.as_fd(), PollFlags::POLLOUT)], Some(FULL));
                send()
            }
            other => other,
        }
    }

    /// Receives what has come, as one or many datagrams in `inbox`; `false` if nothing has.
    pub(super) fn receive(&self, inbox: &mut Inbox) -> io::Result<bool> {
        let mut space = nix::cmsg_space!(i32);
        let mut slices = [IoSliceMut::new(&mut inbox.bytes)];
        let (fd, flags) = (self.socket.as_raw_fd(), MsgFlags::MSG_DONTWAIT);
        let message = match recvmsg::<SockaddrIn>(fd, &mut slices, Some(&mut space), flags) {
            Ok(message) => message,
            Err(nix::errno::Errno::EAGAIN | nix::errno::Errno::EINTR) => return Ok(false),
            // An earlier datagram met a closed port.
            Err(nix::errno::Errno::ECONNREFUSED) => return Ok(true),
            Err(error) => return Err(error.into()),
        };
        let size = message.cmsgs()?.find_map(|control| match control {
            ControlMessageOwned::UdpGroSegments(size) => usize::try_from(size).ok(),
            _ => None,
        });
        let from = message.address.map(SocketAddrV4::from);
        (inbox.len, inbox.size, inbox.from) = (message.bytes, size.unwrap_or(message.bytes).max(1), from);
        Ok(true)
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// What was received at once.
#[derive(Debug)]
pub(super) struct Inbox {
    bytes: Vec<u8>,
    len: usize,
    size: usize,
    from: Option<SocketAddrV4>,
}

impl Default for Inbox {
    fn default() -> Self {
        Self { bytes: vec![0; 1 << 16], len: 0, size: 1, from: None }
    }
}

impl Inbox {
    /// The datagrams, and who sent them; empties it.
    pub(super) fn datagrams(&mut self) -> (impl Iterator<Item = &mut [u8]>, Option<SocketAddrV4>) {
        let len = std::mem::take(&mut self.len);
        (self.bytes[..len].chunks_mut(self.size), self.from)
    }
}

/// Bytes that an IP packet may have on the way from this address to another; `None` if there is no way.
pub(super) fn route_mtu(from: Ipv4Addr, to: SocketAddrV4) -> Option<usize> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).ok()?;
    socket.bind(&SocketAddr::from((from, 0)).into()).ok()?;
    socket.set_multicast_if_v4(&from).ok()?;
    socket.connect(&SocketAddr::from(to).into()).ok()?;
    let mtu = nix::sys::socket::getsockopt(&socket, sockopt::IpMtu).ok()?;
    usize::try_from(mtu).ok()
}

/// A system that cannot receive now (no memory is left, say) may well do so later.
pub(super) fn rest_after(troubles: &mut Troubles, error: &io::Error) {
    if troubles.add(1) {
        tracing::error!(%error, times = troubles.count(), "datagrams cannot be received now");
    }
    std::thread::sleep(REST);
}

/// Waits until something happens, or the time has passed.
pub(super) fn wait(what: &[(BorrowedFd<'_>, PollFlags)], limit: Option<Duration>) {
    let mut polled: Vec<_> = what.iter().map(|(fd, flags)| PollFd::new(*fd, *flags)).collect();
    if let Err(error) = ppoll(&mut polled, limit.map(TimeSpec::from), None)
        && error != nix::errno::Errno::EINTR
    {
        tracing::error!(%error, "waiting for datagrams");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local() -> Port {
        Port::open(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 0)).unwrap()
    }

    fn received(port: &Port, count: usize) -> Vec<Vec<u8>> {
        let (mut inbox, mut all) = (Inbox::default(), Vec::new());
        while all.len() < count {
            wait(&[(port.as_fd(), PollFlags::POLLIN)], Some(Duration::from_secs(5)));
            assert!(port.receive(&mut inbox).unwrap(), "{} of {count} came", all.len());
            all.extend(inbox.datagrams().0.map(|datagram| datagram.to_vec()));
        }
        all
    }

    fn add(batch: &mut Batch, byte: u8, len: usize, to: SocketAddrV4) -> Option<Vec<u8>> {
        let start = batch.bytes.len();
        batch.bytes.resize(start + len, byte);
        batch.take(start, to)
    }

    #[test]
    fn a_batch_comes_as_the_datagrams_that_it_was_made_of_with_and_without_gso() {
        let (mut ours, theirs) = (local(), local());
        for batches in [true, false] {
            ours.batches = batches;
            let (mut batch, to) = (Batch::default(), theirs.local().unwrap());
            for (byte, len) in [(1, 900), (2, 900), (3, 900), (4, 50)] {
                assert!(add(&mut batch, byte, len, to).is_none());
            }
            ours.send(&mut batch);
            let all = received(&theirs, 4);
            assert_eq!(all, [vec![1; 900], vec![2; 900], vec![3; 900], vec![4; 50]]);
            assert!(batch.is_empty());
        }
        assert!(!theirs.receive(&mut Inbox::default()).unwrap(), "nothing more comes");
    }

    #[test]
    fn datagrams_that_cannot_be_sent_are_counted() {
        let mut ours = local();
        let nowhere = SocketAddrV4::new(Ipv4Addr::new(240, 0, 0, 1), 9);
        for batches in [true, false] {
            let (before, mut batch) = (ours.unsent(), Batch::default());
            ours.batches = batches;
            for _ in 0..3 {
                assert!(add(&mut batch, 1, 100, nowhere).is_none());
            }
            ours.send(&mut batch);
            assert_eq!(ours.unsent() - before, 3);
        }
    }

    #[test]
    fn of_errors_that_go_on_fewer_and_fewer_are_told() {
        let mut troubles = Troubles::default();
        let told = (0..1000).filter(|_| troubles.add(1)).count();
        assert_eq!((told, troubles.count()), (10, 1000));
        assert!(troubles.add(5_000));
    }

    #[test]
    fn what_does_not_fit_a_batch_is_given_back() {
        let to = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9);
        let other = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 8);
        let mut batch = Batch::default();
        assert!(add(&mut batch, 1, 100, to).is_none());
        assert_eq!(add(&mut batch, 2, 100, other), Some(vec![2; 100]), "it goes elsewhere");
        assert_eq!(add(&mut batch, 2, 101, to), Some(vec![2; 101]), "it is longer");
        assert!(add(&mut batch, 3, 10, to).is_none());
        assert_eq!(add(&mut batch, 4, 10, to), Some(vec![4; 10]), "only the last may be shorter");
        let mut full = Batch::default();
        let taken = (0..100).take_while(|_| add(&mut full, 1, 4_000, to).is_none()).count();
        assert_eq!(taken, BATCH_BYTES / 4_000);
    }

    #[test]
    fn the_mtu_of_a_way_is_known() {
        let loopback = SocketAddrV4::new(Ipv4Addr::LOCALHOST, 9);
        assert!(route_mtu(Ipv4Addr::LOCALHOST, loopback).unwrap() > 1_500);
        let nobody = Ipv4Addr::new(192, 0, 2, 1);
        assert_eq!(route_mtu(nobody, loopback), None, "it is not ours");
        assert!(Port::open(SocketAddrV4::new(nobody, 0)).is_err());
        assert!(Port::join(loopback, Ipv4Addr::LOCALHOST).is_err(), "it is no group");
    }
}
