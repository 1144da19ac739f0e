//! Counts every request once, when it is over: its status, its latency, its ending.
//!
//! A request is over when the last of its answer was handed on, or when either side went
//! away; both end with a [`Record`] being dropped.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use http::{Request, Response};
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;
use tower::{Layer, Service};

use super::affinity;
use super::body::{BodyError, ResponseBody};
use crate::account::{Account, End};
use crate::load::Ending;
use crate::server::{Session, Worker};

/// What is known about a request while it lasts.
struct Record {
    worker: Rc<Worker>,
    session: Rc<Session>,
    began: Instant,
    status: u16,
    own: bool,
    ending: Ending,
}

impl Record {
    /// Hands the account of the request over, if there is one.
    #[inline]
    fn tell(&self, now: Instant) {
        if let Some(notes) = self.session.take_notes() {
            let route = self.session.route().as_ref().map(|route| Arc::clone(&route.name));
            let end = End { at: now, status: self.status, ending: self.ending, route };
            if let Some((notes, end)) = self.session.tell_later(notes, end) {
                notes.finish(end);
            }
        }
    }
}

/// Begins the account of a request.
#[inline(never)]
fn begin_notes<B>(account: Arc<Account>, request: &mut Request<B>, session: &Session, began: Instant) {
    let client = affinity::client(request.headers(), session);
    if let Some(notes) = account.begin(request, &session.client, client, began) {
        session.notes_begin(notes);
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let now = Instant::now();
        self.tell(now);
        let latency = now.saturating_duration_since(self.began);
        self.worker.counters.request_ended(self.status, self.own, self.ending, latency);
        if let Some(route) = &*self.session.route() {
            if route.is_scaled && self.session.had_a_place() {
                self.worker.counters.scaled.request_ended(self.status, self.own, self.ending, latency);
            }
            route.load.worker(self.worker.index).request_ended(self.status, latency);
        }
        if self.status == 0 {
            self.session.is_given_up();
        }
        self.session.request_ended(now);
    }
}

/// The layer that counts.
#[derive(Clone)]
pub(crate) struct ObserveLayer {
    pub(crate) worker: Rc<Worker>,
    pub(crate) session: Rc<Session>,
}

impl<S> Layer<S> for ObserveLayer {
    type Service = Observe<S>;

    fn layer(&self, inner: S) -> Observe<S> {
        Observe { inner, layer: self.clone() }
    }
}

/// The service that counts, in front of another one.
#[derive(Clone)]
pub(crate) struct Observe<S> {
    inner: S,
    layer: ObserveLayer,
}

impl<S, B> Service<Request<B>> for Observe<S>
where
    S: Service<Request<B>, Response = Response<ResponseBody>>,
{
    type Response = Response<ObservedBody>;
    type Error = S::Error;
    type Future = Observed<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let began = Instant::now();
        self.layer.session.request_began(began);
        if let Some(account) = self.layer.worker.account() {
            begin_notes(account, &mut request, &self.layer.session, began);
        }
        let (worker, session) = (Rc::clone(&self.layer.worker), Rc::clone(&self.layer.session));
        let record = Record { worker, session, began, status: 0, own: false, ending: Ending::Abandoned };
        Observed { record: Some(record), answer: self.inner.call(request) }
    }
}

pin_project! {
    /// An answer on its way, counted.
    pub(crate) struct Observed<F> {
        record: Option<Record>,
        #[pin]
        answer: F,
    }
}

impl<F, E> Future for Observed<F>
where
    F: Future<Output = Result<Response<ResponseBody>, E>>,
{
    type Output = Result<Response<ObservedBody>, E>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let response = ready!(this.answer.poll(cx))?;
        let mut record = this.record.take();
        if let Some(record) = &mut record {
            record.status = response.status().as_u16();
            record.own = response.body().is_own();
            record.session.answer_began();
            if record.own && record.status >= 400 {
                record.session.note(|notes| notes.why = response.body().own_text());
            }
            if record.own || response.body().is_end_stream() {
                record.ending = Ending::Answered;
            }
        }
        Poll::Ready(Ok(response.map(|body| ObservedBody { body, record })))
    }
}

/// The body of an answer; the request is over when it is dropped.
pub(crate) struct ObservedBody {
    body: ResponseBody,
    record: Option<Record>,
}

impl ObservedBody {
    fn end(&mut self, ending: Ending) {
        if let Some(mut record) = self.record.take() {
            record.ending = ending;
        }
    }
}

impl Body for ObservedBody {
    type Data = bytes::Bytes;
    type Error = BodyError;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, BodyError>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        if let Some(record) = &this.record {
            record.session.answer_asked_for(polled.is_ready());
            if let Poll::Ready(Some(Ok(frame))) = &polled {
                let length = frame.data_ref().map_or(0, bytes::Bytes::len);
                record.session.answer_moved(length);
                record.session.note(|notes| notes.bytes_out += length as u64);
            }
        }
        match &polled {
            Poll::Ready(Some(Ok(_))) if this.body.is_end_stream() => this.end(Ending::Answered),
            Poll::Ready(None) => this.end(Ending::Answered),
            Poll::Ready(Some(Err(_))) => this.end(Ending::CutOff),
            Poll::Ready(Some(Ok(_))) | Poll::Pending => {}
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
