//! One client connection that speaks HTTP/2.
//!
//! h2 frames, checks and limits; each stream is a task on this thread with a [`Session`]
//! of its own, and one timer per connection looks at all their limits. A client that
//! holds an answer back for `timeouts.client_stall` loses its connection, and so does one
//! that does not agree to the end of an idle connection for as long.

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::Request;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::time::Sleep;
use tower::ServiceExt;

use super::connection::MAX_HEAD;
use super::corked::cork;
use super::guard::Guarded;
use super::session::{Finding, Session};
use super::worker::Worker;
use crate::proxy;

/// Streams that a client may have open at once.
const MAX_STREAMS: u32 = 100;
/// Streams that a client may reset before we got to them (rapid reset).
const MAX_PENDING_RESETS: usize = 50;
/// Streams that a client may give up within [`WINDOW`], whatever we had done for them.
const MAX_GIVEN_UP: u32 = 200;
/// The time in which streams that were given up are counted together.
const WINDOW: Duration = Duration::from_secs(10);
/// Resets that a client may provoke in the life of a connection.
const MAX_PROVOKED_RESETS: usize = 200;
/// Bytes of a request's body that may be under way without our asking, per stream and
/// per connection.
const STREAM_WINDOW: u32 = 128 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// Bytes of answers that one stream may hold here.
const MAX_SEND_BUFFER: usize = 128 * 1024;

/// Runs what hyper spawns on this thread.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ThisThread;

impl<F> Executor<F> for ThisThread
where
    F: Future + 'static,
    F::Output: 'static,
{
    fn execute(&self, work: F) {
        tokio::task::spawn_local(work);
    }
}

/// How hyper serves clients that speak HTTP/2.
pub(crate) fn builder() -> http2::Builder<ThisThread> {
    let mut builder = http2::Builder::new(ThisThread);
    builder
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_PENDING_RESETS)
        .max_local_error_reset_streams(MAX_PROVOKED_RESETS)
        .max_header_list_size(MAX_HEAD as u32)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(MAX_SEND_BUFFER)
        .auto_date_header(false);
    builder
}

/// The sessions of the streams that are open.
#[derive(Default)]
struct Streams {
    open: RefCell<Vec<Weak<Session>>>,
    given_up: Rc<Cell<u32>>,
}

impl Streams {
    fn open(&self, connection: &Session) -> Rc<Session> {
        let session = Rc::new(Session::of_stream(connection, Rc::clone(&self.given_up), Instant::now()));
        let mut open = self.open.borrow_mut();
        if open.len() >= 2 * MAX_STREAMS as usize {
            open.retain(|it| it.strong_count() > 0);
        }
        open.push(Rc::downgrade(&session));
        session
    }

    /// Looks at the limits of all streams, and lets each see whether its backend is still
    /// there; says whether there are any, and whether a client holds one back for too long.
    fn check(&self, now: Instant, worker: &Worker) -> (bool, bool) {
        let mut open = self.open.borrow_mut();
        open.retain(|it| it.strong_count() > 0);
        let plan = worker.plan();
        let finding = |it: &Weak<Session>| {
            let session = it.upgrade()?;
            session.wake();
            Some(session.check(now, &plan.timeouts))
        };
        let stalled = open.iter().filter_map(finding).any(|it| it == Finding::ClientStalled);
        (!open.is_empty(), stalled)
    }
}

/// Serves one client until either side closes.
pub(crate) async fn serve(io: Guarded, session: Rc<Session>, worker: Rc<Worker>) {
    let streams = Rc::new(Streams::default());
    let service = {
        let (streams, session, worker) = (Rc::clone(&streams), Rc::clone(&session), Rc::clone(&worker));
        service_fn(move |request: Request<Incoming>| {
            let door = proxy::door(Rc::clone(&worker), streams.open(&session));
            async move { Ok::<_, Infallible>(door.oneshot(request).await.unwrap_or_else(|never| match never {})) }
        })
    };
    let (corked, outlet) = cork(io);
    let mut connection = pin!(worker.http2.serve_connection(TokioIo::new(corked), service));
    let mut watch = Watch {
        worker: &worker,
        session: &session,
        streams: &streams,
        told: None,
        counted_from: Instant::now(),
    };
    let mut timer = pin!(tokio::time::sleep(worker.plan().tick));
    let mut stop = pin!(worker.stop.notified());
    let ended = poll_fn(|cx| {
        let stops = worker.stopping.get() || stop.as_mut().poll(cx).is_ready();
        match watch.poll(stops, timer.as_mut(), cx) {
            Verdict::Goes => {}
            Verdict::Ends => connection.as_mut().graceful_shutdown(),
            Verdict::Cut(why) => return Poll::Ready(Err(why)),
        }
        let polled = connection.as_mut().poll(cx).map(Ok);
        match outlet.poll(cx) {
            Poll::Ready(Err(_)) if polled.is_pending() => Poll::Ready(Err("client is gone")),
            _ => polled,
        }
    })
    .await;
    match ended {
        Ok(Ok(())) => {}
        Ok(Err(error)) => {
            worker.counters.refused.add(u64::from(error.is_parse()));
            tracing::debug!(client = ?session.client.address, %error, "client connection ended");
        }
        Err(why) => tracing::debug!(client = ?session.client.address, why, "client connection cut"),
    }
}

/// What becomes of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Verdict {
    Goes,
    Ends,
    Cut(&'static str),
}

struct Watch<'a> {
    worker: &'a Worker,
    session: &'a Session,
    streams: &'a Streams,
    /// When it was asked to end, or was last busy since.
    told: Option<Instant>,
    counted_from: Instant,
}

impl Watch<'_> {
    fn poll(&mut self, stops: bool, mut timer: Pin<&mut Sleep>, cx: &mut Context<'_>) -> Verdict {
        if self.streams.given_up.get() > MAX_GIVEN_UP {
            self.worker.counters.refused.bump();
            return Verdict::Cut("too many streams were given up");
        }
        let mut idle = false;
        while timer.as_mut().poll(cx).is_ready() {
            let now = Instant::now();
            if now.saturating_duration_since(self.counted_from) >= WINDOW {
                self.counted_from = now;
                self.streams.given_up.set(0);
            }
            let (busy, held_back) = self.streams.check(now, self.worker);
            if busy {
                self.session.request_ended(now);
                self.told = self.told.map(|_| now);
            }
            let limits = &self.worker.plan().timeouts;
            if self.told.is_some_and(|told| now.saturating_duration_since(told) >= limits.client_stall) {
                return Verdict::Cut("client does not agree to the end");
            }
            match self.session.check(now, limits) {
                Finding::ClientStalled => return self.stalled(),
                Finding::IdleTooLong => idle = true,
                Finding::Fine | Finding::HeadTooSlow | Finding::ExchangeExpired => {}
            }
            if held_back {
                return self.stalled();
            }
            timer.as_mut().reset(tokio::time::Instant::now() + self.worker.plan().tick);
        }
        if (stops || idle) && self.told.is_none() {
            self.told = Some(Instant::now());
            return Verdict::Ends;
        }
        Verdict::Goes
    }

    /// Its client does not take what it asked for.
    fn stalled(&self) -> Verdict {
        self.worker.counters.stalled.bump();
        Verdict::Cut("client stalled")
    }
}
