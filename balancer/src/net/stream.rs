//! A connection of bytes, whatever carries it: TCP, a unix socket, TLS over either.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use nix::sys::socket::{MsgFlags, recv};
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::TlsStream;

/// A socket.
#[derive(Debug)]
pub(crate) enum Raw {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Raw {
    /// The address at this end; a unix socket has none.
    pub(crate) fn local_address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(stream) => stream.local_addr().ok(),
            Self::Unix(_) => None,
        }
    }

    /// Sends small messages at once.
    pub(crate) fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_nodelay(true),
            Self::Unix(_) => Ok(()),
        }
    }

    /// Bytes that were written and not taken by the other side yet.
    pub(crate) fn untaken(&self) -> u64 {
        match self {
            Self::Tcp(stream) => crate::sys::untaken(stream),
            Self::Unix(stream) => crate::sys::untaken(stream),
        }
    }

    /// Ready once there is something to read, or the end.
    pub(crate) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) => stream.poll_read_ready(cx),
            Self::Unix(stream) => stream.poll_read_ready(cx),
        }
    }

    /// Looks at the first bytes without taking them, again whenever more have come, until
    /// `decide` has an answer. It gets the bytes and whether these are all there will be,
    /// for want of room or because the other side has ended; then it must decide.
    pub(crate) async fn peek<T>(
        &self,
        room: &mut [u8],
        mut decide: impl FnMut(&[u8], bool) -> Option<T>,
    ) -> io::Result<T> {
        loop {
            let ready = match self {
                Self::Tcp(stream) => stream.ready(Interest::READABLE).await?,
                Self::Unix(stream) => stream.ready(Interest::READABLE).await?,
            };
            let looked = self.try_look(|| {
                let length = look(self, room)?;
                let last = ready.is_read_closed() || length == room.len();
                // «Would block» makes tokio wait for more bytes than these.
                decide(&room[..length], last).ok_or(io::ErrorKind::WouldBlock.into())
            });
            match looked {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                other => return other,
            }
        }
    }

    fn try_look<T>(&self, look: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match self {
            Self::Tcp(stream) => stream.try_io(Interest::READABLE, look),
            Self::Unix(stream) => stream.try_io(Interest::READABLE, look),
        }
    }
}

/// Copies what is there to read, and leaves it.
fn look(raw: &Raw, room: &mut [u8]) -> io::Result<usize> {
    let socket = match raw {
        Raw::Tcp(stream) => stream.as_raw_fd(),
        Raw::Unix(stream) => stream.as_raw_fd(),
    };
    Ok(recv(socket, room, MsgFlags::MSG_PEEK)?)
}

/// A socket, with TLS over it or without.
pub(crate) enum Stream {
    Plain(Raw),
    Tls(Box<TlsStream<Raw>>),
}

impl Stream {
    /// The socket underneath.
    pub(crate) fn raw(&self) -> &Raw {
        match self {
            Self::Plain(raw) => raw,
            Self::Tls(stream) => stream.get_ref().0,
        }
    }
}

/// Reads and writes by whichever of two streams there is.
macro_rules! delegate {
    ($of:ident, $one:ident, $other:ident) => {
        impl AsyncRead for $of {
            #[inline]
            fn poll_read(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                buf: &mut ReadBuf<'_>,
            ) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::$one(stream) => Pin::new(stream).poll_read(cx, buf),
                    Self::$other(stream) => Pin::new(stream).poll_read(cx, buf),
                }
            }
        }

        impl AsyncWrite for $of {
            #[inline]
            fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    Self::$one(stream) => Pin::new(stream).poll_write(cx, buf),
                    Self::$other(stream) => Pin::new(stream).poll_write(cx, buf),
                }
            }

            #[inline]
            fn poll_write_vectored(
                self: Pin<&mut Self>,
                cx: &mut Context<'_>,
                slices: &[IoSlice<'_>],
            ) -> Poll<io::Result<usize>> {
                match self.get_mut() {
                    Self::$one(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
                    Self::$other(stream) => Pin::new(stream).poll_write_vectored(cx, slices),
                }
            }

            fn is_write_vectored(&self) -> bool {
                true
            }

            #[inline]
            fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::$one(stream) => Pin::new(stream).poll_flush(cx),
                    Self::$other(stream) => Pin::new(stream).poll_flush(cx),
                }
            }

            fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
                match self.get_mut() {
                    Self::$one(stream) => Pin::new(stream).poll_shutdown(cx),
                    Self::$other(stream) => Pin::new(stream).poll_shutdown(cx),
                }
            }
        }
    };
}

delegate!(Raw, Tcp, Unix);
delegate!(Stream, Plain, Tls);

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    #[tokio::test]
    async fn bytes_that_are_looked_at_are_still_there_and_more_of_them_are_awaited() {
        let (mut far, near) = UnixStream::pair().unwrap();
        let mut raw = Raw::Unix(near);
        far.write_all(b"PR").await.unwrap();
        let sender = tokio::spawn(async move {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            far.write_all(b"I * ").await.unwrap();
            far
        });
        let mut room = [0; 4];
        let seen = raw.peek(&mut room, |bytes, last| last.then(|| bytes.to_vec())).await.unwrap();
        assert_eq!(seen, b"PRI ");
        let mut all = [0; 6];
        raw.read_exact(&mut all).await.unwrap();
        assert_eq!(&all, b"PRI * ");
        drop(sender.await.unwrap());
    }
}
