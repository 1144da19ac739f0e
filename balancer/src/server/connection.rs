//! One client connection, from accept to close.
//!
//!   set up -> parked <-> HTTP/1.1 (hyper) -> tunnel
//!                \-> HTTP/2 (see `http2.rs`)
//!
//! A connection without a request is parked after a while: hyper's part of it, with its
//! buffers, and its [`Session`] are dropped and made again when bytes come. What stays is
//! a [`ClientStream`] and a place in the worker's [`Parking`](super::parking::Parking).
//!
//! A busy one has hyper's connection and one timer, the watch, that looks at the session's
//! limits a few times per limit. When the process stops, an idle connection is given a
//! moment: a client that is about to send gets its answer, with `Connection: close`.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::time::Sleep;

use super::entrance::{Arrival, Entrance, Speaks, tell_version};
use super::guard::Guarded;
use super::http2;
use super::session::{Client, Finding, Phase, Session};
use super::tunnel::Tunnel;
use super::worker::{Open, Worker};
use crate::limit::Connected;
use crate::net::Gathered;
use crate::net::Raw;
use crate::proxy::{self, Door};
use crate::route::Plan;

/// Longest head of a request in bytes; beyond it the answer is 431.
pub(super) const MAX_HEAD: usize = 32 * 1024;
/// Largest buffer for bytes from or to one client.
const MAX_BUFFER: usize = 256 * 1024;
/// How long an idle connection is kept open for one more request while stopping.
pub(super) const STOP_GRACE: Duration = Duration::from_millis(500);
/// How long a connection is idle before it is parked.
const PARK_AFTER: Duration = Duration::from_millis(500);

const REQUEST_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

type Connection<S> = http1::Connection<TokioIo<Guarded>, TowerToHyperService<S>>;

/// How hyper serves clients that speak HTTP/1.1.
pub(crate) fn builder() -> http1::Builder {
    let mut builder = http1::Builder::new();
    builder
        .half_close(false)
        .max_header_size(MAX_HEAD)
        .max_buf_size(MAX_BUFFER)
        .header_read_timeout(None)
        .auto_date_header(false)
        .pipeline_flush(false);
    builder
}

/// A client that is let in, and nothing yet or any more of HTTP.
struct ClientStream {
    stream: Gathered,
    client: Rc<Client>,
    speaks: Speaks,
    /// Since when no byte has come.
    since: Instant,
    /// What counts it as one of its client's.
    _held: Option<Connected>,
}

/// Serves one client until either side closes.
pub(crate) fn serve(
    raw: Raw,
    peer: Option<SocketAddr>,
    entrance: Arc<Entrance>,
    open: Open,
) -> impl Future<Output = ()> {
    // Boxed before the connection's own future is made, which would keep the room for all that it is
    // given as long as the connection lives.
    let set_up = Box::pin(set_up(raw, peer, entrance, Rc::clone(open.worker())));
    live(set_up, open)
}

async fn live(set_up: Pin<Box<impl Future<Output = Option<ClientStream>>>>, open: Open) {
    let Some(mut resting) = set_up.await else { return };
    let mut waits = resting.speaks == Speaks::Unknown;
    loop {
        let worker = open.worker();
        let until = match worker.stopping.get() {
            true => Instant::now() + STOP_GRACE,
            false => resting.since + worker.plan().timeouts.idle,
        };
        if waits && !worker.parking.wait(resting.stream.raw(), until).await {
            return;
        }
        // Boxed, so that a parked connection does not keep the room for it.
        match Box::pin(busy(resting, worker)).await {
            Some(rested) => resting = rested,
            None => return,
        }
        waits = true;
    }
}

/// From an accepted socket to a client that may ask; `None` if it may not.
async fn set_up(
    raw: Raw,
    peer: Option<SocketAddr>,
    entrance: Arc<Entrance>,
    worker: Rc<Worker>,
) -> Option<ClientStream> {
    let plan = worker.plan();
    // Behind a PROXY header the client is known only when it has come.
    let mut held = match entrance.is_proxied() {
        true => None,
        false => let_in(&plan, peer, entrance.trusts(peer)).ok()?,
    };
    let arrival = match entrance.is_immediate() {
        true => entrance.welcome_plain(raw, peer),
        false => {
            let welcome = tokio::time::timeout(plan.timeouts.request_header, entrance.welcome(raw, peer));
            welcome.await.unwrap_or_else(|_| Err(std::io::ErrorKind::TimedOut.into()))
        }
    };
    match arrival {
        Ok(Arrival { stream, client, speaks }) => {
            if entrance.is_proxied() {
                held = let_in(&plan, client.address, client.trusted).ok()?;
            }
            let (stream, client) = (Gathered::new(stream), Rc::new(client));
            Some(ClientStream { stream, client, speaks, since: Instant::now(), _held: held })
        }
        Err(error) => {
            worker.counters.refused.bump();
            tracing::debug!(?peer, %error, "a connection could not be set up");
            None
        }
    }
}

/// The client has as many connections as it may.
struct TooMany;

/// Notes a connection of a client, unless it has as many as it may. Proxies that are believed have
/// as many as they want.
fn let_in(plan: &Plan, client: Option<SocketAddr>, trusted: bool) -> Result<Option<Connected>, TooMany> {
    let (Some(most), Some(client), false) = (plan.connections_per_client, client, trusted) else {
        return Ok(None);
    };
    plan.clients.enter(client.ip(), most).map(Some).ok_or(TooMany)
}

/// Serves a client until its connection ends or has been idle for a while.
async fn busy(mut client: ClientStream, worker: &Rc<Worker>) -> Option<ClientStream> {
    if client.speaks == Speaks::Unknown {
        let limit = worker.plan().timeouts.request_header;
        let told = tokio::time::timeout(limit, tell_version(client.stream.raw())).await;
        client.speaks = told.ok().and_then(Result::ok).unwrap_or(Speaks::Http1);
    }
    let session = Rc::new(Session::new(Rc::clone(&client.client), client.since));
    if client.speaks == Speaks::Http2 {
        let io = Guarded::http2(client.stream, Rc::clone(&session));
        Box::pin(http2::serve(io, session, Rc::clone(worker))).await;
        return None;
    }
    let io = Guarded::http1(client.stream, Rc::clone(&session));
    match active(io, &session, worker).await {
        End::Rests(stream) => {
            worker.memory_freed.set(true);
            Some(ClientStream { stream, since: session.since(), ..client })
        }
        End::Closed => None,
        End::Tunnel(tunnel, stream, early) => {
            let plan = worker.plan();
            worker.counters.tunnels.bump();
            let end = Box::pin(tunnel.run(stream, early, &plan, &worker.counters)).await;
            tracing::debug!(?end, "a tunnel ended");
            None
        }
    }
}

/// Why a connection is not served any more.
enum End {
    /// It has been idle for a while.
    Rests(Gathered),
    /// It is over.
    Closed,
    /// Its last answer accepted an upgrade; what the client sent behind its request.
    Tunnel(Box<Tunnel>, Gathered, Bytes),
}

/// The same, with what is known while hyper still has the connection.
enum Why {
    Rests,
    Finished(hyper::Result<()>),
    HeadTooSlow,
    Stalled,
}

/// Serves requests until the connection ends or has been idle for a while.
async fn active(io: Guarded, session: &Rc<Session>, worker: &Rc<Worker>) -> End {
    let service = TowerToHyperService::new(proxy::door(Rc::clone(worker), Rc::clone(session)));
    let mut connection = worker.http1.serve_connection(TokioIo::new(io), service);
    let tick = worker.plan().tick;
    let mut watch = Watch { worker, session, tick, stopping: None, told: false };
    let mut timer = pin!(tokio::time::sleep(tick));
    let mut stop = pin!(worker.stop.notified());
    let mut registered = false;
    let why = poll_fn(|cx| {
        if !registered {
            // Registers the wakers once; the task's waker stays the same.
            registered = true;
            let _ = stop.as_mut().poll(cx);
            let _ = timer.as_mut().poll(cx);
        }
        watch.poll(&mut connection, timer.as_mut(), cx)
    })
    .await;
    ended(why, connection, session, worker)
}

fn ended<S: Door>(why: Why, connection: Connection<S>, session: &Session, worker: &Worker) -> End {
    match why {
        Why::Rests => {
            let io = connection.into_parts().io.into_inner();
            // In the middle of a message its state would be lost.
            return if io.between_messages() { End::Rests(io.into_stream()) } else { End::Closed };
        }
        Why::Finished(Ok(())) => {
            if let Some(tunnel) = session.take_tunnel() {
                let parts = connection.into_parts();
                return End::Tunnel(tunnel, parts.io.into_inner().into_stream(), parts.read_buf);
            }
        }
        Why::Finished(Err(error)) => {
            if error.is_parse() {
                worker.counters.refused.bump();
            }
            tracing::debug!(client = ?session.client.address, %error, "client connection ended");
        }
        Why::HeadTooSlow => {
            worker.counters.refused.bump();
            connection.into_parts().io.into_inner().last_words(REQUEST_TIMEOUT);
        }
        Why::Stalled => {
            worker.counters.stalled.bump();
            tracing::debug!(client = ?session.client.address, "client stalled");
        }
    }
    End::Closed
}

struct Watch<'a> {
    worker: &'a Worker,
    session: &'a Session,
    tick: Duration,
    stopping: Option<Instant>,
    told: bool,
}

impl Watch<'_> {
    fn poll<S: Door>(
        &mut self,
        connection: &mut Connection<S>,
        mut timer: Pin<&mut Sleep>,
        cx: &mut Context<'_>,
    ) -> Poll<Why> {
        let ticked = timer.is_elapsed();
        if ticked {
            match self.session.check(Instant::now(), &self.worker.plan().timeouts) {
                Finding::Fine | Finding::ExchangeExpired => {}
                Finding::IdleTooLong => self.tell(connection),
                Finding::HeadTooSlow => return Poll::Ready(Why::HeadTooSlow),
                Finding::ClientStalled => return Poll::Ready(Why::Stalled),
            }
            self.rearm(timer.as_mut(), cx);
        }
        if let Poll::Ready(result) = Pin::new(&mut *connection).poll(cx) {
            return Poll::Ready(Why::Finished(result));
        }
        if self.worker.stopping.get() {
            return self.stopping(connection, timer, cx);
        }
        if ticked && self.may_rest() {
            return Poll::Ready(Why::Rests);
        }
        Poll::Pending
    }

    /// Whether hyper holds nothing of any message, and has not for a while.
    fn may_rest(&self) -> bool {
        !self.told && self.session.is_quiet() && self.session.since().elapsed() >= PARK_AFTER
    }

    /// Between the end of accepting and the end of this connection.
    fn stopping<S: Door>(
        &mut self,
        connection: &mut Connection<S>,
        timer: Pin<&mut Sleep>,
        cx: &mut Context<'_>,
    ) -> Poll<Why> {
        let now = Instant::now();
        let since = *self.stopping.get_or_insert(now);
        let over = now.saturating_duration_since(since) >= STOP_GRACE;
        if self.told || !(over || self.session.phase() != Phase::Idle) {
            if self.tick > STOP_GRACE / 2 {
                self.tick = STOP_GRACE / 2;
                self.rearm(timer, cx);
            }
            return Poll::Pending;
        }
        self.tell(connection);
        Pin::new(connection).poll(cx).map(Why::Finished)
    }

    fn tell<S: Door>(&mut self, connection: &mut Connection<S>) {
        self.told = true;
        Pin::new(connection).graceful_shutdown();
    }

    fn rearm(&self, mut timer: Pin<&mut Sleep>, cx: &mut Context<'_>) {
        timer.as_mut().reset(tokio::time::Instant::now() + self.tick);
        if timer.as_mut().poll(cx).is_ready() {
            cx.waker().wake_by_ref();
        }
    }
}
