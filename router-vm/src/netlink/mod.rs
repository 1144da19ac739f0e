//! Talking to the kernel's netlink: messages are written into one buffer, sent
//! as one datagram, and every refusal is read back.
//!
//! Written here and not taken from a crate: those that know nf_tables either wrap
//! the C libraries (no static program), have no licence that fits, or do not know
//! the expressions that throttle and count connections.
//!
//! [`message`] is about bytes, [`nft`] about rules and counters, [`link`] about addresses and routes.

pub(crate) mod link;
mod message;
pub mod nft;

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::sys::socket::sockopt::{ReceiveTimeout, SndBufForce};
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, send, setsockopt,
    socket,
};
use nix::sys::time::TimeVal;

use message::{Batch, NLMSG_DONE, NLMSG_ERROR, messages, word};

/// The largest ruleset takes under a megabyte.
const SEND_BUFFER: usize = 8 << 20;
/// The kernel answers before `send` returns; a lost answer must not hang us.
const ANSWER_SECONDS: i64 = 5;
const ANSWER_BYTES: usize = 64 << 10;

/// A socket to one part of the kernel.
pub(crate) struct Kernel(OwnedFd);

impl Kernel {
    /// Opens it in the calling thread's network namespace.
    pub(crate) fn open(part: SockProtocol) -> io::Result<Self> {
        let fd = socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, part)?;
        bind(fd.as_raw_fd(), &NetlinkAddr::new(0, 0))?;
        setsockopt(&fd, SndBufForce, &SEND_BUFFER)?;
        setsockopt(&fd, ReceiveTimeout, &TimeVal::new(ANSWER_SECONDS, 0))?;
        Ok(Self(fd))
    }

    /// Sends the batch, whose last message asks for an acknowledgement.
    ///
    /// # Errors
    /// The kernel refused a message: the first refusal, with the message's name.
    pub(crate) fn carry_out(&self, batch: &Batch) -> io::Result<()> {
        send(self.0.as_raw_fd(), batch.bytes(), MsgFlags::empty())?;
        let mut answer = vec![0; ANSWER_BYTES];
        let mut refused = None;
        loop {
            let count = match recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty()) {
                Err(nix::Error::EAGAIN) if refused.is_some() => 0,
                other => other?,
            };
            for (kind, sequence, body) in messages(&answer[..count]) {
                let code = word(body, 0) as i32;
                if kind == NLMSG_ERROR && code != 0 {
                    let error = io::Error::from_raw_os_error(-code);
                    let what = format!("{}: {error}", batch.name_of(sequence));
                    refused.get_or_insert(io::Error::new(error.kind(), what));
                }
                if kind == NLMSG_ERROR && sequence == batch.last() {
                    return refused.map_or(Ok(()), Err);
                }
            }
            if let Some(error) = refused.take_if(|_| count == 0 || batch.is_transaction()) {
                return Err(error);
            }
        }
    }

    /// Asks for a list; `each` gets the kind and the body of every message of the answer.
    pub(crate) fn list(&self, batch: &Batch, mut each: impl FnMut(u16, &[u8])) -> io::Result<()> {
        send(self.0.as_raw_fd(), batch.bytes(), MsgFlags::empty())?;
        let mut answer = vec![0; ANSWER_BYTES];
        loop {
            let count = recv(self.0.as_raw_fd(), &mut answer, MsgFlags::empty())?;
            for (kind, _, body) in messages(&answer[..count]) {
                match kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return Err(io::Error::from_raw_os_error(-(word(body, 0) as i32))),
                    _ => each(kind, body),
                }
            }
        }
    }
}
