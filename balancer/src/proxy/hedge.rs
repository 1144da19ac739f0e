//! A second backend is asked when the first one takes too long; the first good answer wins.
//!
//!   asked -> (delay) -> both asked -> one answers: the other is cancelled, its place is free
//!
//! Only what may be sent twice, and as far as the budget of retries allows. An answer of 5xx counts
//! only if the other one brings nothing better. A second backend is never waited for: it has a place
//! now, or the first one is all there is.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use http::{Request, Response};
use hyper::body::Incoming;

use super::body::{RequestBody, ResponseBody};
use super::forward::{Next, Trip};
use super::gate;
use super::retry::may_repeat;
use super::upstream::{ExchangeError, Upstream};
use crate::pool::{Backend, Permit};
use crate::route::Route;

/// How long the first backend has, if a second one may be asked at all.
#[inline]
pub(super) fn delay(route: &Route, request: &Request<RequestBody>) -> Option<Duration> {
    let hedge = route.traffic.hedge.as_ref()?;
    if !may_repeat(request) {
        return None;
    }
    hedge.delay(&route.load, Instant::now())
}

/// One backend that was asked, with what came of it.
struct Asked {
    upstream: Upstream,
    permit: Permit,
    sent: Option<Instant>,
    result: Result<Response<Incoming>, ExchangeError>,
}

impl Asked {
    fn is_good(&self) -> bool {
        self.result.as_ref().is_ok_and(|answer| !answer.status().is_server_error())
    }

    /// Which of two to go on with, if both came to an end.
    fn better(first: Self, second: Self) -> Self {
        if first.result.is_ok() || second.result.is_err() { first } else { second }
    }
}

impl Trip<'_> {
    /// Sends a request to a backend, and to a second one if it does not answer in time.
    pub(super) async fn hedged(
        &mut self,
        after: Duration,
        request: Request<RequestBody>,
        upstream: Upstream,
        permit: Permit,
    ) -> Result<Response<ResponseBody>, Next> {
        let Asked { upstream, permit, sent, result } =
            self.one_or_both(after, request, upstream, permit).await;
        match result {
            Ok(answer) => {
                self.pool.answered_after(permit.backend(), answer.status(), sent);
                Ok(self.answered(answer, upstream, permit))
            }
            Err(error) => {
                self.discard_if_dead(&error, &upstream, permit.backend());
                Err(self.exchange_failed(error, upstream.was_idle(), permit.backend()))
            }
        }
    }

    async fn one_or_both(
        &self,
        after: Duration,
        request: Request<RequestBody>,
        upstream: Upstream,
        permit: Permit,
    ) -> Asked {
        let backend = Arc::clone(permit.backend());
        let mut first = pin!(self.ask(request, upstream, permit));
        match tokio::time::timeout(after, &mut first).await {
            Ok(asked) => asked,
            Err(_elapsed) => match self.second_place(&backend) {
                Some(permit) => self.race(first, permit).await,
                None => first.await,
            },
        }
    }

    async fn ask(&self, request: Request<RequestBody>, mut upstream: Upstream, permit: Permit) -> Asked {
        let sent = self.pool.clock();
        let result = upstream.exchange(request, self.session, permit.backend()).await;
        Asked { upstream, permit, sent, result }
    }

    /// A place at another backend, if there is one and the budget allows it.
    fn second_place(&self, first: &Backend) -> Option<Permit> {
        let counters = &self.worker.counters;
        let permit = self.place_beside(first.serial())?;
        if !gate::may_retry(self.worker, self.route, Instant::now()) {
            counters.hedges_denied.bump();
            return None;
        }
        counters.hedges.bump();
        Some(permit)
    }

    /// Waits for the first good answer of two, or for the better one of what they come to.
    async fn race(&self, mut first: Pin<&mut impl Future<Output = Asked>>, permit: Permit) -> Asked {
        let serial = permit.backend().serial();
        let mut second = pin!(self.ask_again(permit));
        let (mut one, mut other) = (None, None);
        let winner = poll_fn(|cx| {
            if one.is_none() {
                if let Poll::Ready(asked) = first.as_mut().poll(cx) {
                    one = Some(asked);
                }
            }
            if other.is_none() {
                if let Poll::Ready(asked) = second.as_mut().poll(cx) {
                    other = Some(asked);
                }
            }
            decide(&mut one, &mut other)
        })
        .await;
        if winner.permit.backend().serial() == serial {
            self.worker.counters.hedges_won.bump();
            if let Some(Asked { result: Err(_), permit, .. }) = &one {
                self.pool.exchange_failed(permit.backend());
            }
        }
        self.session.note(|notes| notes.settled(winner.permit.backend().id()));
        winner
    }

    /// Asks the second backend; `None` if that comes to nothing.
    async fn ask_again(&self, permit: Permit) -> Option<Asked> {
        let mut request = self.session.replay.borrow().request()?;
        let backend = Arc::clone(permit.backend());
        self.session.note(|notes| notes.tries(&backend));
        match self.connection(&permit).await {
            Ok(upstream) => {
                permit.count_request();
                self.ready_for(&mut request, &backend);
                let asked = self.ask(request, upstream, permit).await;
                match &asked.result {
                    Ok(_) => {}
                    // Its connection was closed while it was idle; that says nothing.
                    Err(ExchangeError::NotSent(_)) => return None,
                    Err(_) => self.pool.exchange_failed(&backend),
                }
                asked.result.is_ok().then_some(asked)
            }
            Err(error) => {
                self.worker.counters.connect_failures.bump();
                tracing::debug!(backend = %backend.id(), %error, "a second backend cannot be asked");
                self.pool.exchange_failed(&backend);
                None
            }
        }
    }
}

/// What is to be gone on with, once that is clear. The outer option says whether it has ended, the
/// inner one of the second backend whether it had an answer.
fn decide(one: &mut Option<Asked>, other: &mut Option<Option<Asked>>) -> Poll<Asked> {
    if one.as_ref().is_some_and(Asked::is_good) {
        return one.take().map_or(Poll::Pending, Poll::Ready);
    }
    if let Some(Some(asked)) = other {
        if asked.is_good() {
            return other.take().flatten().map_or(Poll::Pending, Poll::Ready);
        }
    }
    if one.is_none() || other.is_none() {
        return Poll::Pending;
    }
    match (one.take(), other.take().flatten()) {
        (Some(first), Some(second)) => Poll::Ready(Asked::better(first, second)),
        (Some(first), None) => Poll::Ready(first),
        (None, _) => Poll::Pending,
    }
}
