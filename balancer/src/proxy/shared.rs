//! Connections to backends that carry many requests at once (HTTP/2).
//!
//! Each worker has its own. h2 drives a connection in a task of its own; requests hold
//! handles, and the task ends when the last handle is gone.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::TokioIo;

use super::body::RequestBody;
use super::upstream::{ConnectError, ExchangeError};
use crate::net::{Gathered, Stream};
use crate::pool::Backend;
use crate::server::{Session, ThisThread};

/// Requests that one connection carries at once; beyond that there is one more connection.
/// Servers allow 100 to 128 by default.
const MAX_STREAMS: usize = 100;
/// Bytes that a backend may send ahead of its client, per answer and per connection.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 8 * 1024 * 1024;

/// A handle of a connection, for one request.
pub(crate) struct Shared {
    sender: SendRequest<RequestBody>,
    load: Rc<Cell<usize>>,
    reused: bool,
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.load.set(self.load.get() - 1);
    }
}

impl Shared {
    fn new(sender: SendRequest<RequestBody>, load: Rc<Cell<usize>>, reused: bool) -> Self {
        load.set(load.get() + 1);
        Self { sender, load, reused }
    }

    /// Begins HTTP/2 on a new connection.
    pub(crate) async fn begin(stream: Stream) -> Result<Self, ConnectError> {
        let mut builder = Builder::new(ThisThread);
        builder
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

    pub(crate) fn reused(&self) -> bool {
        self.reused
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
            if let Poll::Ready(answer) = answer.as_mut().poll(cx) {
                return Poll::Ready(answer.map_err(|mut error| match error.take_message() {
                    Some(request) => ExchangeError::NotSent(Box::new(request)),
                    None => ExchangeError::Broken(error.into_error()),
                }));
            }
            session.waits(cx.waker());
            match session.expired() {
                Some(whose) => Poll::Ready(Err(ExchangeError::Expired(whose))),
                None if backend.is_cut() => Poll::Ready(Err(ExchangeError::Cut)),
                None => Poll::Pending,
            }
        })
        .await
    }
}

/// The shared connections of one worker to one backend.
#[derive(Default)]
pub(crate) struct SharedConnections(Vec<(SendRequest<RequestBody>, Rc<Cell<usize>>)>);

impl SharedConnections {
    /// A handle of a connection with room.
    pub(crate) fn take(&mut self) -> Option<Shared> {
        self.0.retain(|(sender, _)| !sender.is_closed());
        let with_room = self.0.iter().find(|(_, load)| load.get() < MAX_STREAMS)?;
        Some(Shared::new(with_room.0.clone(), Rc::clone(&with_room.1), true))
    }

    /// Lets others use a connection, too.
    pub(crate) fn add(&mut self, shared: &Shared) {
        self.0.push((shared.sender.clone(), Rc::clone(&shared.load)));
    }

    /// Lets go of what is closed, and of what nobody uses if its backend is `gone`; says
    /// whether there is any left.
    pub(crate) fn sweep(&mut self, gone: bool) -> bool {
        let useful = |load: &Cell<usize>| !gone || load.get() > 0;
        self.0.retain(|(sender, load)| !sender.is_closed() && useful(load));
        !self.0.is_empty()
    }
}
