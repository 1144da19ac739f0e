//! What a connection becomes when its upgrade (WebSocket) or its CONNECT is accepted: bytes both ways,
//! which are nobody's business.
//!
//! It is told of in the access log when it is over, with the bytes of both ways.
//!
//! A tunnel keeps its place at its backend, so that a drain waits for it. It ends with
//! either side, with its backend's removal, after `timeouts.tunnel` without a byte, and
//! with the drain's deadline when the process stops.

use std::cell::Cell;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::{Buf, Bytes};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf, copy_bidirectional_with_sizes};

use crate::account::{End, Notes};
use crate::load::WorkerCounters;
use crate::net::Gathered;
use crate::pool::Permit;
use crate::route::Plan;

/// Bytes that a tunnel holds in each direction.
const BUFFER: usize = 8 * 1024;

/// The backend's side of a tunnel.
pub(crate) struct Tunnel {
    pub(crate) backend: Gathered,
    /// What the backend sent behind its answer.
    pub(crate) early: Bytes,
    /// Its place at a backend; CONNECT needs none.
    pub(crate) permit: Option<Permit>,
    /// The account of the request that asked for it.
    pub(crate) account: Option<(Box<Notes>, End)>,
}

/// What is told of a tunnel, however it ends.
struct Told<'a> {
    account: Option<(Box<Notes>, End)>,
    counters: &'a WorkerCounters,
    /// Bytes from the client, and from the backend.
    passed: [Cell<u64>; 2],
}

impl Drop for Told<'_> {
    fn drop(&mut self) {
        let [from_client, from_backend] = self.passed.each_ref().map(Cell::get);
        self.counters.tunnel_bytes_in.add(from_client);
        self.counters.tunnel_bytes_out.add(from_backend);
        if let Some((mut notes, end)) = self.account.take() {
            notes.tunnelled(from_client, from_backend);
            notes.finish(End { at: Instant::now(), ..end });
        }
    }
}

/// How a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TunnelEnd {
    /// Both sides said all they had.
    Closed,
    /// One of them broke off.
    Broken,
    /// No byte came for too long.
    Idle,
    /// The backend was removed from the pool.
    Cut,
}

impl Tunnel {
    /// Passes bytes on until it ends. `early` is what the client sent behind its request.
    pub(crate) async fn run(
        self,
        client: Gathered,
        early: Bytes,
        plan: &Plan,
        counters: &WorkerCounters,
    ) -> TunnelEnd {
        let last = Cell::new(Instant::now());
        let told = Told { account: self.account, counters, passed: Default::default() };
        let [from_client, from_backend] = &told.passed;
        let mut client = Side { stream: client, early, last: &last, passed: from_client };
        let mut backend = Side { stream: self.backend, early: self.early, last: &last, passed: from_backend };
        let mut copying = pin!(copy_bidirectional_with_sizes(&mut client, &mut backend, BUFFER, BUFFER));
        loop {
            match tokio::time::timeout(plan.tick, &mut copying).await {
                Ok(Ok(_)) => return TunnelEnd::Closed,
                Ok(Err(_)) => return TunnelEnd::Broken,
                Err(_) if self.permit.as_ref().is_some_and(|it| it.backend().is_cut()) => {
                    return TunnelEnd::Cut;
                }
                Err(_) if last.get().elapsed() >= plan.timeouts.tunnel => return TunnelEnd::Idle,
                Err(_) => {}
            }
        }
    }
}

/// One side, which notes when bytes came from it.
struct Side<'a> {
    stream: Gathered,
    early: Bytes,
    last: &'a Cell<Instant>,
    /// Bytes that came from it.
    passed: &'a Cell<u64>,
}

impl AsyncRead for Side<'_> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        if self.early.is_empty() {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        } else {
            let length = self.early.len().min(buf.remaining());
            buf.put_slice(&self.early[..length]);
            self.early.advance(length);
        }
        self.passed.set(self.passed.get() + (buf.filled().len() - before) as u64);
        self.last.set(Instant::now());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Side<'_> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
