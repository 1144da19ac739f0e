//! How a connection to a backend comes to be.
//!
//! A clone lives in a network namespace of its own; whoever made it knows how
//! to get a socket there. Everybody else uses [`Tcp`].

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;

use tokio::net::TcpStream;

/// A connection on its way.
pub type Dialing<'a> = Pin<Box<dyn Future<Output = io::Result<TcpStream>> + Send + 'a>>;

/// Makes connections to a backend.
pub trait Dial: Send + Sync + 'static {
    /// Connects to `address`.
    ///
    /// The future is polled on the runtime of the worker that wants the connection,
    /// and the stream must be registered there: make the `TcpStream` inside the
    /// future (`TcpSocket::connect`, `TcpStream::from_std`), not ahead of it.
    /// The caller sets TCP_NODELAY and the deadline.
    ///
    /// # Errors
    /// The error of the kernel, as it is: [`is_local`] tells ours from the backend's.
    fn dial(&self, address: SocketAddr) -> Dialing<'_>;
}

/// Plain TCP from the namespace this process is in.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tcp;

impl Dial for Tcp {
    fn dial(&self, address: SocketAddr) -> Dialing<'_> {
        Box::pin(TcpStream::connect(address))
    }
}

/// Whether a failed connection is this host's fault, e.g. no file descriptors or
/// no ports left. Such a failure says nothing about the backend.
pub fn is_local(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM | libc::EADDRNOTAVAIL | libc::EAGAIN)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_out_of_descriptors_is_not_the_backends_fault() {
        assert!(is_local(&io::Error::from_raw_os_error(libc::EMFILE)));
        assert!(is_local(&io::Error::from_raw_os_error(libc::EADDRNOTAVAIL)));
        assert!(!is_local(&io::Error::from_raw_os_error(libc::ECONNREFUSED)));
        assert!(!is_local(&io::Error::from(io::ErrorKind::TimedOut)));
    }
}
