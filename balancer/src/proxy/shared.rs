//! Connections to backends that carry many requests at once (HTTP/2).
//!
//! Each worker has its own. h2 drives a connection in a task of its own; requests hold
//! handles, and the task ends when the last handle is gone. Nobody notices a backend that
//! has silently gone away while there is nothing to send, so it is asked now and then.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::body::RequestBody;
use super::upstream::{ConnectError, ExchangeError, outcome};
use crate::net::{Gathered, Stream};
use crate::pool::Backend;
use crate::server::{Session, ThisThread};

/// Requests that one connection carries at once; beyond that there is one more connection.
/// Servers allow 100 to 128 by default.
const MAX_STREAMS: usize = 100;
/// Bytes that a backend may send ahead of its client, per answer and per connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;

/// The longest time for an answer to a PING.
const PING_TIMEOUT: Duration = Duration::from_secs(20);

/// How a connection is used.
#[derive(Default)]
struct Usage {
    /// Requests on it.
    load: Cell<usize>,
    /// When it was first seen without any.
    idle_since: Cell<Option<Instant>>,
}

/// A handle of a connection, for one request.
pub(crate) struct Shared {
    sender: SendRequest<RequestBody>,
    usage: Rc<Usage>,
    was_idle: bool,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.usage.load.set(self.usage.load.get() - 1);
    }
}

impl Shared {
    fn new(sender: SendRequest<RequestBody>, usage: Rc<Usage>, was_idle: bool) -> Self {
        usage.load.set(usage.load.get() + 1);
        usage.idle_since.set(None);
        Self { sender, usage, was_idle }
    }

    /// Begins HTTP/2 on a new connection. While there are requests on it and nothing comes, the
    /// backend is asked for a sign of life in each `ping_interval`.
    pub(crate) async fn begin(stream: Stream, ping_interval: Duration) -> Result<Self, ConnectError> {
        let mut builder = Builder::new(ThisThread);
        builder
            .timer(TokioTimer::new())
            .keep_alive_interval(ping_interval)
            .keep_alive_timeout(PING_TIMEOUT.min(ping_interval))
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .initial_max_send_streams(MAX_STREAMS);
        let handshake = builder.handshake(TokioIo::new(Gathered::new(stream)));
        let (sender, connection) = handshake.await.map_err(ConnectError::Http)?;
        tokio::task::spawn_local(async move {
            // What went wrong reaches whoever waits for an answer.
            let _ = connection.await;
        });
        Ok(Self::new(sender, Rc::default(), false))
    }

    /// Whether it carried nothing when this request took it: then it may have been closed before.
    pub(crate) fn was_idle(&self) -> bool {
        self.was_idle
    }

    /// Sends a request and waits for the head of the answer.
    pub(crate) async fn exchange(
        &mut self,
        request: Request<RequestBody>,
        session: &Session,
        backend: &Backend,
    ) -> Result<Response<Incoming>, ExchangeError> {
        let mut answer = pin!(self.sender.try_send_request(request));
        poll_fn(|cx| {
            let answer = answer.as_mut().poll(cx);
            outcome(answer, session, backend, cx)
        })
        .await
    }
}

/// A connection that further requests may take.
struct Kept {
    sender: SendRequest<RequestBody>,
    usage: Rc<Usage>,
}

impl Kept {
    /// Whether it has carried nothing for `max_idle`; begins to count if it has not before.
    fn is_old(&self, max_idle: Duration, now: Instant) -> bool {
        if self.usage.load.get() > 0 {
            return false;
        }
        let since = self.usage.idle_since.get().unwrap_or(now);
        self.usage.idle_since.set(Some(since));
        now.saturating_duration_since(since) >= max_idle
    }
}

/// The shared connections of one worker to one backend.
#[derive(Default)]
pub(crate) struct SharedConnections(Vec<Kept>);

impl SharedConnections {
    /// A handle of a connection with room.
    pub(crate) fn take(&mut self) -> Option<Shared> {
        self.forget_closed();
        let with_room = self.0.iter().find(|kept| kept.usage.load.get() < MAX_STREAMS)?;
        let was_idle = with_room.usage.load.get() == 0;
        Some(Shared::new(with_room.sender.clone(), Rc::clone(&with_room.usage), was_idle))
    }

    /// Lets others use a connection, too.
    pub(crate) fn add(&mut self, shared: &Shared) {
        self.0.push(Kept { sender: shared.sender.clone(), usage: Rc::clone(&shared.usage) });
    }

    /// Gives a connection to nobody any more; those who have it go on.
    pub(crate) fn discard(&mut self, shared: &Shared) {
        self.0.retain(|kept| !Rc::ptr_eq(&kept.usage, &shared.usage));
    }

    /// Lets go of what is closed; says whether there is any left.
    pub(crate) fn forget_closed(&mut self) -> bool {
        self.0.retain(|kept| !kept.sender.is_closed());
        !self.0.is_empty()
    }

    /// Lets go of what is closed, and of what nobody uses if its backend is `gone` or it has been idle for
    /// too long; says whether there is any left.
    pub(crate) fn sweep(&mut self, gone: bool, max_idle: Duration, now: Instant) -> bool {
        let max_idle = if gone { Duration::ZERO } else { max_idle };
        self.0.retain(|kept| !kept.is_old(max_idle, now));
        self.forget_closed()
    }
}
