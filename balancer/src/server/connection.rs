//! One client connection, from accept to close.
//!
//! Holds hyper's connection and one timer, the watch, that looks at the session's
//! limits a few times per limit. When the process stops, an idle connection is given a
//! moment: a client that is about to send gets its answer, with `Connection: close`.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::time::Sleep;

use super::guard::Guarded;
use super::session::{Finding, Phase, Session};
use super::worker::Worker;
use crate::proxy::{self, Door};

/// Longest head of a request in bytes; beyond it the answer is 431.
const MAX_HEAD: usize = 32 * 1024;
/// Largest buffer for bytes from or to one client.
const MAX_BUFFER: usize = 256 * 1024;
/// How long an idle connection is kept open for one more request while stopping.
const STOP_GRACE: Duration = Duration::from_millis(500);

const REQUEST_TIMEOUT: &[u8] =
    b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";

type Connection<S> = http1::Connection<TokioIo<Guarded>, TowerToHyperService<S>>;

/// How hyper serves clients.
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

/// Why a connection ended, if not by itself.
enum End {
    Finished(hyper::Result<()>),
    HeadTooSlow,
    Stalled,
}

/// Serves one client until either side closes.
pub(crate) async fn serve(stream: TcpStream, worker: Rc<Worker>) {
    let Ok(peer) = stream.peer_addr() else { return };
    if stream.set_nodelay(true).is_err() {
        return;
    }
    let session = Rc::new(Session::new(peer, Instant::now()));
    let io = TokioIo::new(Guarded::new(stream, Rc::clone(&session)));
    let service = TowerToHyperService::new(proxy::door(Rc::clone(&worker), Rc::clone(&session)));
    let mut connection = worker.http.serve_connection(io, service);
    let tick = worker.settings.timeouts.tick();
    let mut watch = Watch { worker: &worker, session: &session, tick, stopping: None, told: false };
    let mut timer = pin!(tokio::time::sleep(tick));
    let mut stop = pin!(worker.stop.notified());
    let mut registered = false;
    let end = poll_fn(|cx| {
        if !registered {
            // Registers the wakers once; the task's waker stays the same.
            registered = true;
            let _ = stop.as_mut().poll(cx);
            let _ = timer.as_mut().poll(cx);
        }
        watch.poll(&mut connection, timer.as_mut(), cx)
    })
    .await;
    match end {
        End::Finished(Ok(())) => {}
        End::Finished(Err(error)) => {
            if error.is_parse() {
                worker.counters.refused.bump();
            }
            tracing::debug!(%peer, %error, "client connection ended");
        }
        End::HeadTooSlow => {
            worker.counters.refused.bump();
            connection.into_parts().io.into_inner().last_words(REQUEST_TIMEOUT);
        }
        End::Stalled => tracing::debug!(%peer, "client stalled"),
    }
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
    ) -> Poll<End> {
        if timer.is_elapsed() {
            let now = Instant::now();
            match self.session.check(now, &self.worker.settings.timeouts) {
                Finding::Fine | Finding::ExchangeExpired => {}
                Finding::IdleTooLong => self.tell(connection),
                Finding::HeadTooSlow => return Poll::Ready(End::HeadTooSlow),
                Finding::ClientStalled => return Poll::Ready(End::Stalled),
            }
            self.rearm(timer.as_mut(), cx);
        }
        if let Poll::Ready(result) = Pin::new(&mut *connection).poll(cx) {
            return Poll::Ready(End::Finished(result));
        }
        if self.worker.stopping.get() {
            return self.stopping(connection, timer, cx);
        }
        Poll::Pending
    }

    /// Between the end of accepting and the end of this connection.
    fn stopping<S: Door>(
        &mut self,
        connection: &mut Connection<S>,
        timer: Pin<&mut Sleep>,
        cx: &mut Context<'_>,
    ) -> Poll<End> {
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
        Pin::new(connection).poll(cx).map(End::Finished)
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
