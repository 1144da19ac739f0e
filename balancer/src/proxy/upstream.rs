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

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::client::conn::TrySendError;
use hyper::client::conn::http1::{Builder, Connection, SendRequest};
use hyper_util::rt::TokioIo;

use super::body::RequestBody;
use super::shared::Shared;
use crate::net::{Gathered, Stream};
use crate::pool::{Backend, Ends};
use crate::server::{Expired, Session};

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

impl ExchangeError {
    /// What happened, in an account of the request.
    pub(crate) fn word(&self) -> &'static str {
        match self {
            Self::NotSent(_) => "not sent",
            Self::Broken(_) => "broke off",
            Self::Expired(Expired::Backend) => "no answer in time",
            Self::Expired(Expired::Client) => "the client did not send its body in time",
            Self::Cut => "removed from the pool",
        }
    }
}

/// One connection to a backend that carries one request at a time (HTTP/1.1).
pub(crate) struct Single(Box<Inner>);

struct Inner {
    sender: SendRequest<RequestBody>,
    /// `None` once it has ended. Dropping it is what returns an unsent request.
    connection: Option<Connection<TokioIo<Gathered>, RequestBody>>,
    /// `None` for a new one.
    idle_since: Option<Instant>,
}

impl Single {
    /// Begins HTTP/1.1 on a new connection.
    pub(crate) async fn begin(stream: Stream) -> Result<Self, ConnectError> {
        let handshake = Builder::new().handshake(TokioIo::new(Gathered::new(stream)));
        let (sender, connection) = handshake.await.map_err(ConnectError::Http)?;
        let connection = Some(connection);
        Ok(Self(Box::new(Inner { sender, connection, idle_since: None })))
    }

    /// Whether it was idle before this request: then it may have been closed meanwhile.
    pub(crate) fn was_idle(&self) -> bool {
        self.0.idle_since.is_some()
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
            let answer = answer.as_mut().poll(&mut no_waker());
            outcome(answer, session, backend, cx)
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

    /// Sends a request that may turn the connection into a tunnel, and waits for the head
    /// of the answer. With 101 the connection is over for HTTP and what is left of it comes
    /// with the answer.
    pub(crate) async fn upgrade(
        mut self,
        request: Request<RequestBody>,
        session: &Session,
        backend: &Backend,
    ) -> Result<(Response<Incoming>, AfterUpgrade), ExchangeError> {
        let inner = &mut *self.0;
        let mut answer = pin!(inner.sender.try_send_request(request));
        let Some(mut connection) = inner.connection.take() else {
            return Err(ExchangeError::Cut);
        };
        let mut over = false;
        let answer = poll_fn(|cx| {
            over = over || Pin::new(&mut connection).poll(cx).is_ready();
            let answer = answer.as_mut().poll(&mut no_waker());
            outcome(answer, session, backend, cx)
        })
        .await?;
        if answer.status() == StatusCode::SWITCHING_PROTOCOLS {
            if !over {
                // hyper lets go of the socket with its next look.
                let _ = Pin::new(&mut connection).poll(&mut no_waker());
            }
            let parts = connection.into_parts();
            return Ok((answer, AfterUpgrade::Tunnel(parts.io.into_inner(), parts.read_buf)));
        }
        inner.connection = (!over).then_some(connection);
        Ok((answer, AfterUpgrade::Http(self)))
    }

    /// Notes that it is idle from now on.
    pub(crate) fn rests(&mut self, now: Instant) {
        self.0.idle_since = Some(now);
    }
}

/// What an exchange has come to: the answer's head, or why there will be none.
#[inline]
pub(super) fn outcome(
    answer: Poll<Result<Response<Incoming>, TrySendError<Request<RequestBody>>>>,
    session: &Session,
    backend: &Backend,
    cx: &Context<'_>,
) -> Poll<Result<Response<Incoming>, ExchangeError>> {
    if let Poll::Ready(answer) = answer {
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
}

/// What a connection is after an answer to an upgrade.
pub(crate) enum AfterUpgrade {
    /// A tunnel, and the first bytes out of it.
    Tunnel(Gathered, Bytes),
    /// What it was: the backend did not want to.
    Http(Single),
}

/// A connection to a backend, for one request.
pub(crate) enum Upstream {
    /// HTTP/1.1, for this request alone.
    Single(Single),
    /// HTTP/2, with others.
    Shared(Shared),
}

impl Upstream {
    /// Connects to a backend, for a client if the backend wants to know it.
    pub(crate) async fn connect(
        backend: &Backend,
        ends: Ends,
        limit: Duration,
    ) -> Result<Self, ConnectError> {
        let link = backend.link();
        let connecting = async {
            let raw = backend.dial().await.map_err(ConnectError::Io)?;
            link.set_up(raw, ends).await.map_err(ConnectError::Io)
        };
        let stream = match tokio::time::timeout(limit, connecting).await {
            Ok(stream) => stream?,
            Err(_elapsed) => return Err(ConnectError::Timeout(limit)),
        };
        if link.http2 {
            return Shared::begin(stream, link.ping_interval).await.map(Self::Shared);
        }
        Single::begin(stream).await.map(Self::Single)
    }

    /// Whether it carried nothing before this request: then it may have been closed meanwhile.
    pub(crate) fn was_idle(&self) -> bool {
        match self {
            Self::Single(upstream) => upstream.was_idle(),
            Self::Shared(upstream) => upstream.was_idle(),
        }
    }

    /// Sends a request and waits for the head of the answer.
    pub(crate) async fn exchange(
        &mut self,
        request: Request<RequestBody>,
        session: &Session,
        backend: &Backend,
    ) -> Result<Response<Incoming>, ExchangeError> {
        match self {
            Self::Single(upstream) => upstream.exchange(request, session, backend).await,
            Self::Shared(upstream) => upstream.exchange(request, session, backend).await,
        }
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
