//! One connection to a backend, driven by whoever uses it.
//!
//! hyper's client connection is usually a task of its own; here the request that uses
//! the connection polls it. That saves two task switches a request, gives back-pressure
//! for nothing (a client that does not read is a connection that is not polled), and
//! ends the exchange with its request.
//!
//! An idle connection is polled with a waker that does nothing: tokio notes a close in
//! its readiness, and the next poll sees it without a system call. A request that was
//! given to a closed connection comes back unsent.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;

use super::body::RequestBody;
use crate::pool::Backend;
use crate::server::{Expired, Gathered, Session};

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectError {
    #[error("cannot connect: {0}")]
    Io(#[source] io::Error),
    #[error("no connection within {0:?}")]
    Timeout(Duration),
    #[error("cannot begin HTTP: {0}")]
    Http(#[source] hyper::Error),
}

/// Why an exchange brought no answer.
pub(crate) enum ExchangeError {
    /// Nothing was sent; here is the request again.
    NotSent(Box<Request<RequestBody>>),
    /// The connection broke before the head of the answer.
    Broken(hyper::Error),
    /// The time for it is over.
    Expired(Expired),
    /// The backend was removed from the pool.
    Cut,
}

/// One connection to a backend.
pub(crate) struct Upstream(Box<Inner>);

struct Inner {
    sender: SendRequest<RequestBody>,
    /// `None` once it has ended. Dropping it is what returns an unsent request.
    connection: Option<Connection<TokioIo<Gathered>, RequestBody>>,
    reused: bool,
    idle_since: Option<Instant>,
}

impl Upstream {
    /// Connects to a backend.
    pub(crate) async fn connect(backend: &Backend, limit: Duration) -> Result<Self, ConnectError> {
        let dialing = backend.dialer().dial(backend.address());
        let stream = match tokio::time::timeout(limit, dialing).await {
            Ok(stream) => stream.map_err(ConnectError::Io)?,
            Err(_elapsed) => return Err(ConnectError::Timeout(limit)),
        };
        stream.set_nodelay(true).map_err(ConnectError::Io)?;
        let handshake = Builder::new().handshake(TokioIo::new(Gathered::new(stream)));
        let (sender, connection) = handshake.await.map_err(ConnectError::Http)?;
        let connection = Some(connection);
        Ok(Self(Box::new(Inner { sender, connection, reused: false, idle_since: None })))
    }

    /// Whether it has carried a request before.
    pub(crate) fn reused(&self) -> bool {
        self.0.reused
    }

    /// Since when it has been idle.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        self.0.idle_since
    }

    /// Sends a request and waits for the head of the answer.
    pub(crate) async fn exchange(
        &mut self,
        request: Request<RequestBody>,
        session: &Session,
        backend: &Backend,
    ) -> Result<Response<Incoming>, ExchangeError> {
        let inner = &mut *self.0;
        let mut answer = pin!(inner.sender.try_send_request(request));
        let connection = &mut inner.connection;
        poll_fn(|cx| {
            drive(connection, cx);
            // Only the poll above can bring the answer, so nobody has to be woken for it.
            if let Poll::Ready(answer) = answer.as_mut().poll(&mut no_waker()) {
                return Poll::Ready(answer.map_err(|mut error| match error.take_message() {
                    Some(request) => ExchangeError::NotSent(Box::new(request)),
                    None => ExchangeError::Broken(error.into_error()),
                }));
            }
            match session.expired() {
                Some(whose) => Poll::Ready(Err(ExchangeError::Expired(whose))),
                None if backend.is_cut() => Poll::Ready(Err(ExchangeError::Cut)),
                None => Poll::Pending,
            }
        })
        .await
    }

    /// Moves bytes, as far as both sides take them.
    #[inline]
    pub(crate) fn drive(&mut self, cx: &mut Context<'_>) {
        drive(&mut self.0.connection, cx);
    }

    /// Looks after itself without a user; says whether it is idle and, as far as is known,
    /// open: ready for a request.
    pub(crate) fn is_idle(&mut self) -> bool {
        self.drive(&mut no_waker());
        self.0.connection.is_some() && self.0.sender.is_ready()
    }

    /// Notes that it is idle from now on.
    pub(crate) fn rests(&mut self, now: Instant) {
        self.0.reused = true;
        self.0.idle_since = Some(now);
    }
}

#[inline]
fn drive(connection: &mut Option<Connection<TokioIo<Gathered>, RequestBody>>, cx: &mut Context<'_>) {
    if let Some(open) = connection {
        // What went wrong reaches whoever waits for the answer.
        if Pin::new(open).poll(cx).is_ready() {
            *connection = None;
        }
    }
}

/// A context that wakes nobody.
pub(super) fn no_waker() -> Context<'static> {
    Context::from_waker(Waker::noop())
}
