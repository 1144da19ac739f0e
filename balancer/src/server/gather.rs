//! A TCP stream that sends a small message in one piece.
//!
//! hyper hands over head and body as separate slices. Copying a kilobyte costs less than
//! what `writev` costs over `send`; large bodies are still written from where they are.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// Messages up to this many bytes are copied together.
const MAX_COPIED: usize = 4096;

/// A TCP stream that gathers small writes.
pub(crate) struct Gathered(TcpStream);

impl Gathered {
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self(stream)
    }

    /// Writes at once what the socket takes.
    pub(crate) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }
}

/// Copies the slices one after the other into `room`; `None` if they do not fit.
fn gather<'a>(slices: &[IoSlice<'_>], room: &'a mut [u8; MAX_COPIED]) -> Option<&'a [u8]> {
    let mut length = 0;
    for slice in slices {
        room.get_mut(length..length + slice.len())?.copy_from_slice(slice);
        length += slice.len();
    }
    Some(&room[..length])
}

impl AsyncRead for Gathered {
    #[inline]
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl AsyncWrite for Gathered {
    #[inline]
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    #[inline]
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if let [only] = slices {
            return Pin::new(&mut self.0).poll_write(cx, only);
        }
        let total: usize = slices.iter().map(|slice| slice.len()).sum();
        if total <= MAX_COPIED {
            let mut room = [0; MAX_COPIED];
            if let Some(message) = gather(slices, &mut room) {
                return Pin::new(&mut self.0).poll_write(cx, message);
            }
        }
        Pin::new(&mut self.0).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    #[inline]
    fn poll_flush(self: Pin<&mut Self>, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A TCP socket has nothing to flush.
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_are_put_together_up_to_the_limit() {
        let mut room = [0; MAX_COPIED];
        let slices = [IoSlice::new(b"head "), IoSlice::new(b""), IoSlice::new(b"body")];
        assert_eq!(gather(&slices, &mut room), Some(&b"head body"[..]));
        let full = [b'x'; MAX_COPIED];
        assert!(gather(&[IoSlice::new(&full)], &mut room).is_some());
        assert_eq!(gather(&[IoSlice::new(&full), IoSlice::new(b"y")], &mut room), None);
    }
}
