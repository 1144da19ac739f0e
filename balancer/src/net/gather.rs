//! A stream that sends a small message in one piece.
//!
//! hyper hands over head and body as separate slices. Copying a kilobyte costs less than
//! what `writev` costs over `send`, and over TLS each slice would be a record of its own;
//! large bodies are still written from where they are.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::stream::{Raw, Stream};

/// Messages up to this many bytes are copied together.
const MAX_COPIED: usize = 4096;

/// A stream that gathers small writes.
pub(crate) struct Gathered(Stream);

impl Gathered {
    pub(crate) fn new(stream: Stream) -> Self {
        Self(stream)
    }

    /// The socket underneath.
    pub(crate) fn raw(&self) -> &Raw {
        self.0.raw()
    }

    /// Writes at once what the stream takes.
    pub(crate) fn try_write(&mut self, bytes: &[u8]) {
        let mut cx = Context::from_waker(Waker::noop());
        // Whoever is told may be gone; there is nobody else to tell.
        let _ = Pin::new(&mut self.0).poll_write(&mut cx, bytes);
        let _ = Pin::new(&mut self.0).poll_flush(&mut cx);
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
    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
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
