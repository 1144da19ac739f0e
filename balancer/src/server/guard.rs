//! The socket of a client, with the framing scanner in front of hyper.
//!
//! When the scanner refuses a byte, hyper gets a NUL in its place, which no part of a
//! request may contain, and then the end: hyper answers 400 after whatever it still owes,
//! and closes. The refused byte and those after it are never seen by anybody.

use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::framing::Scanner;
use super::session::Session;
use crate::net::Gathered;

/// What hyper gets in place of a refused byte. The empty line makes it look: it does not
/// parse a head that came in parts before it sees one.
const POISON: &[u8] = b"\0\r\n\r\n";

/// Bytes that are read and thrown away at the end, so that the last answer is not lost
/// to a reset (a close with unread bytes sends one).
const MAX_LINGER: usize = 256 * 1024;

/// A client's socket.
pub(crate) struct Guarded {
    stream: Gathered,
    /// `None` if what comes is not HTTP/1.1.
    scanner: Option<Scanner>,
    session: Rc<Session>,
    /// After a refusal, what hyper still has to get.
    poison: Option<&'static [u8]>,
    lingered: usize,
}

impl Guarded {
    /// The socket of a client that speaks HTTP/1.1.
    pub(crate) fn http1(stream: Gathered, session: Rc<Session>) -> Self {
        let scanner = Some(Scanner::default());
        Self { stream, scanner, session, poison: None, lingered: 0 }
    }

    /// The socket of a client that speaks HTTP/2, which frames its messages itself.
    pub(crate) fn http2(stream: Gathered, session: Rc<Session>) -> Self {
        Self { stream, scanner: None, session, poison: None, lingered: 0 }
    }

    /// The stream, for something else than HTTP.
    pub(crate) fn into_stream(self) -> Gathered {
        self.stream
    }

    /// Whether nothing of a message is here, so that no state would be lost with hyper's.
    pub(crate) fn between_messages(&self) -> bool {
        self.poison.is_none() && self.scanner.as_ref().is_none_or(Scanner::between_messages)
    }

    /// Writes a last answer past hyper, as far as the socket takes it.
    pub(crate) fn last_words(&mut self, answer: &[u8]) {
        self.stream.try_write(answer);
    }

    /// Notes what became of a write, and what the client has yet to take once it lets us wait.
    #[inline]
    fn wrote(&self, written: &Poll<io::Result<usize>>) {
        match written {
            Poll::Ready(Ok(bytes)) => self.session.gave(*bytes),
            Poll::Ready(Err(_)) => {}
            Poll::Pending if self.session.is_to_be_measured() => {
                self.session.wait_for_client(self.stream.raw().untaken());
            }
            Poll::Pending => {}
        }
        self.session.write_blocked(written.is_pending());
    }

    fn screen(&mut self, buf: &mut ReadBuf<'_>, from: usize) {
        let Some(scanner) = &mut self.scanner else { return };
        let verdict = scanner.scan(&buf.filled()[from..]);
        self.session.bytes_read(scanner.in_head());
        if let Err((at, why)) = verdict {
            tracing::debug!(%why, "refused the bytes of a client");
            buf.set_filled(from + at);
            self.poison = Some(put_some(buf, POISON));
        }
    }
}

/// Puts as much as there is room for; returns the rest.
fn put_some<'a>(buf: &mut ReadBuf<'_>, bytes: &'a [u8]) -> &'a [u8] {
    let (now, later) = bytes.split_at(bytes.len().min(buf.remaining()));
    buf.put_slice(now);
    later
}

impl AsyncRead for Guarded {
    #[inline]
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if let Some(poison) = self.poison {
            self.poison = Some(put_some(buf, poison));
            return Poll::Ready(Ok(()));
        }
        let from = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > from {
            self.screen(buf, from);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Guarded {
    #[inline]
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.wrote(&written);
        written
    }

    #[inline]
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.wrote(&written);
        written
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    #[inline]
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // TLS takes bytes before the socket does: with some of them left, nothing may rest.
        let flushed = Pin::new(&mut self.stream).poll_flush(cx);
        self.session.write_blocked(flushed.is_pending());
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let shut = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.session.write_blocked(shut.is_pending());
        ready!(shut)?;
        if self.between_messages() {
            return Poll::Ready(Ok(()));
        }
        self.session.lingers();
        let mut waste = [0; 4096];
        while self.lingered < MAX_LINGER {
            let mut buf = ReadBuf::new(&mut waste);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buf));
            if read.is_err() || buf.filled().is_empty() {
                break;
            }
            self.lingered += buf.filled().len();
        }
        Poll::Ready(Ok(()))
    }
}
