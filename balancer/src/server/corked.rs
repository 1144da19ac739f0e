//! A connection of HTTP/2 whose frames go out together.
//!
//! h2 flushes after every piece of a body: each small answer would be a system call and,
//! over TLS, a record of its own. What is written while the connection is polled once is
//! held here instead, and whoever polls it lets it out afterwards, in as few writes as
//! can be. Answers that come together leave together; none waits for another one.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are held at most; with more, they go out at once. Four records of TLS.
const MAX_HELD: usize = 64 * 1024;

/// The end that h2 reads from and writes to.
pub(super) struct Corked<I>(Rc<RefCell<Held<I>>>);

/// The end that lets out what is held.
pub(super) struct Outlet<I>(Rc<RefCell<Held<I>>>);

struct Held<I> {
    io: I,
    bytes: Vec<u8>,
    /// How many of them are out.
    sent: usize,
    /// Whether the stream underneath may hold bytes in turn.
    unflushed: bool,
}

/// Puts a cork into a stream.
pub(super) fn cork<I>(io: I) -> (Corked<I>, Outlet<I>) {
    let held = Rc::new(RefCell::new(Held { io, bytes: Vec::new(), sent: 0, unflushed: false }));
    (Corked(Rc::clone(&held)), Outlet(held))
}

impl<I: AsyncWrite + Unpin> Held<I> {
    fn let_out(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.sent < self.bytes.len() {
            match ready!(Pin::new(&mut self.io).poll_write(cx, &self.bytes[self.sent..]))? {
                0 => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                written => self.sent += written,
            }
        }
        if self.unflushed {
            ready!(Pin::new(&mut self.io).poll_flush(cx))?;
        }
        // A connection that is idle holds no room.
        (self.bytes, self.sent, self.unflushed) = (Vec::new(), 0, false);
        Poll::Ready(Ok(()))
    }

    fn hold(&mut self, cx: &mut Context<'_>, slices: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        if self.bytes.len() + total > MAX_HELD {
            ready!(self.let_out(cx))?;
        }
        self.unflushed = true;
        if total > MAX_HELD {
            return Pin::new(&mut self.io).poll_write_vectored(cx, slices);
        }
        if self.bytes.capacity() == 0 {
            self.bytes.reserve_exact(MAX_HELD);
        }
        slices.iter().for_each(|slice| self.bytes.extend_from_slice(slice));
        Poll::Ready(Ok(total))
    }
}

impl<I: AsyncWrite + Unpin> Outlet<I> {
    /// Lets out what is held. While this is pending more may be written, up to a limit.
    ///
    /// # Errors
    /// Those of the stream.
    pub(super) fn poll(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.borrow_mut().let_out(cx)
    }
}

impl<I: AsyncRead + Unpin> AsyncRead for Corked<I> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0.borrow_mut().io).poll_read(cx, buf)
    }
}

impl<I: AsyncWrite + Unpin> AsyncWrite for Corked<I> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().hold(cx, &[IoSlice::new(buf)])
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.0.borrow_mut().hold(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut held = self.0.borrow_mut();
        ready!(held.let_out(cx))?;
        Pin::new(&mut held.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::*;

    /// Takes so many bytes, and notes each write.
    struct Sink {
        room: usize,
        writes: Vec<usize>,
        flushes: u32,
    }

    impl AsyncWrite for Sink {
        fn poll_write(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            let taken = buf.len().min(self.room);
            if taken == 0 {
                return Poll::Pending;
            }
            self.room -= taken;
            self.writes.push(taken);
            Poll::Ready(Ok(taken))
        }

        fn poll_flush(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.flushes += 1;
            Poll::Ready(Ok(()))
        }

        fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
    }

    fn corked(room: usize) -> (Corked<Sink>, Outlet<Sink>) {
        cork(Sink { room, writes: Vec::new(), flushes: 0 })
    }

    fn write(corked: &mut Corked<Sink>, bytes: usize) -> Poll<io::Result<usize>> {
        let mut cx = Context::from_waker(Waker::noop());
        Pin::new(corked).poll_write(&mut cx, &vec![b'x'; bytes])
    }

    fn writes(outlet: &Outlet<Sink>) -> Vec<usize> {
        outlet.0.borrow().io.writes.clone()
    }

    #[test]
    fn what_is_written_in_one_turn_goes_out_in_one_write() {
        let (mut corked, outlet) = corked(usize::MAX);
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..10 {
            assert!(matches!(write(&mut corked, 1000), Poll::Ready(Ok(1000))));
            assert!(Pin::new(&mut corked).poll_flush(&mut cx).is_ready());
        }
        assert!(writes(&outlet).is_empty());
        assert!(matches!(outlet.poll(&mut cx), Poll::Ready(Ok(()))));
        assert!(matches!(outlet.poll(&mut cx), Poll::Ready(Ok(()))));
        assert_eq!((writes(&outlet), outlet.0.borrow().io.flushes), (vec![10_000], 1));
        assert_eq!(outlet.0.borrow().bytes.capacity(), 0, "nothing is kept for an idle connection");
    }

    #[test]
    fn no_more_is_held_than_allowed_and_a_slow_client_is_waited_for() {
        let (mut corked, outlet) = corked(MAX_HELD);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(write(&mut corked, MAX_HELD).is_ready());
        assert!(write(&mut corked, MAX_HELD).is_ready(), "the first ones are out");
        assert!(write(&mut corked, 1).is_pending());
        assert!(outlet.poll(&mut cx).is_pending());
        outlet.0.borrow_mut().io.room = usize::MAX;
        assert!(outlet.poll(&mut cx).is_ready());
        assert!(write(&mut corked, 1).is_ready());
        assert!(Pin::new(&mut corked).poll_shutdown(&mut cx).is_ready());
        assert_eq!(writes(&outlet), [MAX_HELD, MAX_HELD, 1]);
    }

    #[test]
    fn a_large_piece_is_not_copied() {
        let (mut corked, outlet) = corked(usize::MAX);
        assert!(write(&mut corked, 5).is_ready());
        assert!(write(&mut corked, MAX_HELD + 1).is_ready());
        assert_eq!(writes(&outlet), [5, MAX_HELD + 1]);
    }
}
