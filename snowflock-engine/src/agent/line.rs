//! The two halves of a line to a guest: a thread that listens for as long as the guest lives, and a way
//! to answer its calls without ever waiting for it.
//!
//!   port --bytes--> listener --calls-----> whoever serves them (`Called`)
//!                            \--answers--> the `Agent` that asked
//!
//! What a guest sends is bounded: bytes by the second, answers and calls by the length of their queues.
//! Beyond that the listener sleeps, and the guest's own port fills up.

use std::io::{self, ErrorKind, Read};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use nix::sys::socket::{MsgFlags, send};
use tokio::sync::mpsc::Sender;

use crate::network::identity::CloneId;
use crate::wire::api::{Answer, Call};
use crate::wire::frame::MAX_FRAME;
use crate::wire::{Decoder, GuestMessage, HostMessage, RequestId};

/// Bytes that a guest may send in a second: a hundred times what an honest one needs.
const BYTES_PER_SECOND: u32 = 64 << 10;
/// Answers that wait to be read; one more is lost, and the request is repeated.
const ANSWERS: usize = 64;

/// A call of a guest, and the way back to it.
#[derive(Debug)]
pub struct Called {
    /// Whose; known by the line, whatever the guest says.
    pub from: CloneId,
    /// The guest's number of the call.
    pub request: RequestId,
    /// The call.
    pub call: Call,
    /// For the answer.
    pub reply: ReplyLine,
}

/// A way to answer a guest. Cheap to copy.
#[derive(Debug, Clone)]
pub struct ReplyLine(Arc<UnixStream>);

impl ReplyLine {
    /// Answers a call, unless the guest does not read: then it has itself to blame.
    pub fn answer(&self, request: RequestId, answer: Answer) {
        let mut room = [0; MAX_FRAME];
        let frame = HostMessage::Answer(request, answer).encode(&mut room);
        // A unix socket takes a frame whole or not at all.
        let sent = send(self.0.as_raw_fd(), frame, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL);
        if let Err(error) = sent {
            tracing::debug!(%error, "a guest does not take the answer to its call");
        }
    }
}

/// Where the calls of one guest go.
#[derive(Debug, Clone)]
pub struct Caller {
    /// The guest.
    pub from: CloneId,
    /// Who serves calls.
    pub to: Sender<Called>,
}

/// Starts to listen. The thread ends when the stream is shut down.
pub(super) fn listen(stream: &UnixStream, caller: Option<Caller>) -> io::Result<Receiver<GuestMessage>> {
    let (answers, inbox) = sync_channel(ANSWERS);
    let reply = ReplyLine(Arc::new(stream.try_clone()?));
    let mut listener = Listener { stream: stream.try_clone()?, reply, caller, answers };
    std::thread::Builder::new().name("guest-line".into()).spawn(move || listener.run())?;
    Ok(inbox)
}

struct Listener {
    stream: UnixStream,
    reply: ReplyLine,
    caller: Option<Caller>,
    answers: SyncSender<GuestMessage>,
}

impl Listener {
    fn run(&mut self) {
        let (mut decoder, mut budget) = (Decoder::default(), Budget::new(Instant::now()));
        loop {
            match self.stream.read(decoder.space()) {
                Ok(0) => return,
                Ok(count) => {
                    decoder.filled(count);
                    while let Some(frame) = decoder.next_frame() {
                        match GuestMessage::parse(&frame) {
                            Ok(message) => self.pass_on(message),
                            Err(error) => tracing::debug!(%error, "passed over a message of a guest"),
                        }
                    }
                    std::thread::sleep(budget.spend(count as u32, Instant::now()));
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    }

    fn pass_on(&self, message: GuestMessage) {
        let GuestMessage::Call(request, call) = message else {
            // Full: nobody has asked for so much.
            let _ = self.answers.try_send(message);
            return;
        };
        let Some(Caller { from, to }) = &self.caller else { return };
        let called = Called { from: *from, request, call, reply: self.reply.clone() };
        if to.try_send(called).is_err() {
            self.reply.answer(request, Answer::refused("too many calls at once; try again later"));
        }
    }
}

/// What a guest may still send in the second that has begun.
struct Budget {
    began: Instant,
    left: u32,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self { began: now, left: BYTES_PER_SECOND }
    }

    /// So many bytes have come; returns for how long not to read on.
    fn spend(&mut self, bytes: u32, now: Instant) -> Duration {
        const SECOND: Duration = Duration::from_secs(1);
        if now.duration_since(self.began) >= SECOND {
            *self = Self::new(now);
        }
        self.left = self.left.saturating_sub(bytes);
        if self.left > 0 { Duration::ZERO } else { SECOND.saturating_sub(now.duration_since(self.began)) }
    }
}

#[cfg(test)]
mod tests;
