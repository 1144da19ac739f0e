//! Bodies on their way through: never buffered, pulled by whoever takes them.
//!
//! The request's body is pulled by the connection to the backend, the answer's body by
//! the connection to the client, which thereby drives the connection to the backend.

use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;

use super::upstream::{Single, Upstream, no_waker};
use crate::pool::Permit;
use crate::route::Action;
use crate::server::{Session, Worker};

/// Why the body of an answer broke off.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BodyError {
    #[error("the backend broke off: {0}")]
    Backend(#[source] hyper::Error),
    #[error("the backend was removed from the pool")]
    Cut,
}

/// The body of a request on its way to a backend.
pub(crate) enum RequestBody {
    Empty,
    Client(Incoming, Rc<Session>),
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self::Client(incoming, session) = self.get_mut() else { return Poll::Ready(None) };
        let frame = Pin::new(incoming).poll_frame(cx);
        match &frame {
            Poll::Pending => session.body_pending(),
            Poll::Ready(Some(Ok(frame))) => {
                session.body_moved();
                let length = frame.data_ref().map_or(0, Bytes::len);
                session.note(|notes| notes.bytes_in += length as u64);
            }
            Poll::Ready(None) => session.body_moved(),
            Poll::Ready(Some(Err(_))) => session.body_broke(),
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Client(incoming, _) => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Client(incoming, _) => incoming.size_hint(),
        }
    }
}

/// The body of an answer on its way to a client.
pub(crate) enum ResponseBody {
    /// Ours, a line of text.
    Own(Option<Bytes>),
    /// A backend's.
    Backend(Streaming),
}

/// A backend's body, with what it needs to come in.
pub(crate) struct Streaming {
    incoming: Incoming,
    source: Option<Source>,
}

struct Source {
    upstream: Upstream,
    /// Whether the connection may carry requests of other clients.
    reusable: bool,
    permit: Permit,
    worker: Rc<Worker>,
    session: Rc<Session>,
}

impl Source {
    /// The body is complete: the connection may carry the next request.
    fn finish(self) {
        if let Upstream::Single(mut upstream) = self.upstream {
            if self.reusable && upstream.is_idle() {
                let serial = self.permit.backend().serial();
                self.worker.idle.borrow_mut().put(serial, upstream, Instant::now());
            }
        }
        drop(self.permit);
    }
}

impl ResponseBody {
    /// Our own answer.
    pub(crate) fn own(text: &'static str) -> Self {
        Self::Own((!text.is_empty()).then(|| Bytes::from_static(text.as_bytes())))
    }

    /// Our own answer with a text from the configuration.
    pub(crate) fn configured(text: &str) -> Self {
        Self::Own((!text.is_empty()).then(|| Bytes::copy_from_slice(text.as_bytes())))
    }

    /// A backend's answer. Without a body the connection is free at once.
    pub(crate) fn backend(
        incoming: Incoming,
        upstream: Upstream,
        permit: Permit,
        worker: Rc<Worker>,
        session: Rc<Session>,
    ) -> Self {
        let reusable = permit.backend().link().is_shared();
        let source = Source { upstream, reusable, permit, worker, session };
        if incoming.is_end_stream() {
            source.finish();
            return Self::Backend(Streaming { incoming, source: None });
        }
        Self::Backend(Streaming { incoming, source: Some(source) })
    }

    /// The text of an answer of our own that has not gone out yet.
    pub(crate) fn own_text(&self) -> Option<Bytes> {
        match self {
            Self::Own(text) => text.clone(),
            Self::Backend(_) => None,
        }
    }

    pub(crate) fn is_own(&self) -> bool {
        matches!(self, Self::Own(_))
    }
}

/// A piece of a body that comes over a connection which nobody else drives.
fn driven(
    incoming: &mut Incoming,
    upstream: &mut Single,
    cx: &mut Context<'_>,
) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
    let polled = Pin::new(&mut *incoming).poll_frame(&mut no_waker());
    if polled.is_ready() {
        return polled;
    }
    upstream.drive(cx);
    // Only the drive can bring a frame, so nobody has to be woken for it.
    Pin::new(incoming).poll_frame(&mut no_waker())
}

impl Streaming {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        let Some(source) = &mut self.source else { return Poll::Ready(None) };
        let polled = match &mut source.upstream {
            Upstream::Single(upstream) => driven(&mut self.incoming, upstream, cx),
            Upstream::Shared(_) => Pin::new(&mut self.incoming).poll_frame(cx),
        };
        match polled {
            Poll::Ready(Some(Ok(frame))) => {
                if self.incoming.is_end_stream() {
                    self.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(None) => {
                self.finish();
                Poll::Ready(None)
            }
            Poll::Ready(Some(Err(error))) => Poll::Ready(Some(Err(self.broke(BodyError::Backend(error))))),
            Poll::Pending if source.permit.backend().is_cut() => {
                Poll::Ready(Some(Err(self.broke(BodyError::Cut))))
            }
            Poll::Pending => {
                source.session.waits(cx.waker());
                Poll::Pending
            }
        }
    }

    fn finish(&mut self) {
        if let Some(source) = self.source.take() {
            source.finish();
        }
    }

    fn broke(&mut self, error: BodyError) -> BodyError {
        if let Some(source) = self.source.take() {
            tracing::debug!(backend = %source.permit.backend().id(), %error, "an answer broke off");
            if let Some(Action::Forward(pool)) = source.session.route().as_ref().map(|route| &route.action) {
                pool.exchange_failed(source.permit.backend());
            }
        }
        error
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, BodyError>>> {
        match self.get_mut() {
            Self::Own(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Backend(streaming) => streaming.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Own(text) => text.is_none(),
            Self::Backend(streaming) => streaming.incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Own(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
            Self::Backend(streaming) => streaming.incoming.size_hint(),
        }
    }
}
