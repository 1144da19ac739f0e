//! The control protocol over TLS: connections that send and receive whole messages.
//!
//! A connection that fails is dropped and made anew; nothing here knows what messages mean.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::pki_types::ServerName;
use rustls::{AlertDescription, ClientConfig, ServerConfig};
use serde::Serialize;
use serde::de::DeserializeOwned;
use socket2::{SockRef, TcpKeepalive};
use tokio::io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::{LazyConfigAcceptor, TlsConnector, TlsStream};

use super::certificates::{CertificateError, Role, role_of};
use super::frame::Decoder;
use super::message::{MessageError, decode, encode, encode_refusal};

/// TCP and TLS must be through by then.
pub const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// One message must have gone out by then.
pub const SEND_LIMIT: Duration = Duration::from_secs(5);
/// After so long without a word the system asks whether the other end is still there; unanswered, the
/// connection ends after twice as long.
const QUIET: Duration = Duration::from_secs(15);
/// Who was refused gets this long to read why.
const LINGER: Duration = Duration::from_millis(500);

/// Why a connection has ended or was not made.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// It cannot be made, or broke. Another try may do.
    #[error("the connection with {peer} failed")]
    Lost {
        /// The other end.
        peer: String,
        /// The reason.
        source: io::Error,
    },
    /// It took too long.
    #[error("{what} with {peer} took longer than {limit:?}")]
    Slow {
        /// What took long.
        what: &'static str,
        /// The other end.
        peer: String,
        /// How long it may take.
        limit: Duration,
    },
    /// One end does not trust the other's certificate.
    #[error("{peer}: {why}")]
    Untrusted {
        /// The other end.
        peer: String,
        /// Whose certificate, and what is wrong with it.
        why: String,
    },
    /// Its certificate is good, but not for this.
    #[error(transparent)]
    Role(#[from] CertificateError),
    /// What came, or should go, is no message.
    #[error("{peer}")]
    Message {
        /// The other end.
        peer: String,
        /// The reason.
        source: MessageError,
    },
}

impl LinkError {
    /// Whether the same may go well later without anybody changing a file.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Lost { .. } | Self::Slow { .. })
    }

    fn lost(peer: &str, source: io::Error) -> Self {
        match source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(error) if let Some(why) = distrust(error) => Self::Untrusted { peer: peer.into(), why },
            _ => Self::Lost { peer: peer.into(), source },
        }
    }
}

/// Whose certificate is wrong, if it is that.
fn distrust(error: &rustls::Error) -> Option<String> {
    use rustls::Error::{AlertReceived, InvalidCertificate, NoCertificatesPresented};
    const REMEDY: &str = "`sfmd certificates` makes new ones";
    match error {
        InvalidCertificate(why) => Some(format!("its certificate is refused: {why}; {REMEDY}")),
        NoCertificatesPresented => Some(format!("it shows no certificate; {REMEDY}")),
        AlertReceived(alert) => {
            let why = match alert {
                AlertDescription::CertificateExpired => "it has expired, or is not valid yet",
                AlertDescription::UnknownCA => "it is of another authority",
                AlertDescription::BadCertificate | AlertDescription::CertificateUnknown => "it is not valid",
                AlertDescription::DecryptError => "its signature is wrong",
                AlertDescription::CertificateRequired => "there is none",
                _ => return None,
            };
            Some(format!("refuses our certificate: {why}; {REMEDY}"))
        }
        _ => None,
    }
}

/// A connection. Its two halves may be used at the same time.
#[derive(Debug)]
pub struct Link {
    /// What comes.
    pub receiver: Receiver,
    /// What goes.
    pub sender: Sender,
}

impl Link {
    fn new(stream: TlsStream<TcpStream>, peer: String) -> Self {
        let (read, write) = tokio::io::split(stream);
        let receiver =
            Receiver { stream: read, decoder: Decoder::default(), piece: Vec::new(), peer: peer.clone() };
        Self { receiver, sender: Sender { stream: write, peer } }
    }
}

/// The half of a connection that messages come from.
#[derive(Debug)]
pub struct Receiver {
    stream: ReadHalf<TlsStream<TcpStream>>,
    decoder: Decoder,
    piece: Vec<u8>,
    peer: String,
}

impl Receiver {
    /// The next message; `None` when the other end has closed the connection between two messages. May be
    /// given up and called again without losing anything.
    ///
    /// # Errors
    /// See [`LinkError`]. The connection is of no use then.
    pub async fn receive<T: DeserializeOwned>(&mut self) -> Result<Option<T>, LinkError> {
        const PIECE: usize = 16 << 10;
        let wrong = |peer: &str, source| LinkError::Message { peer: peer.into(), source };
        loop {
            let frame = self.decoder.next_frame().map_err(|error| wrong(&self.peer, error.into()))?;
            if let Some(frame) = frame {
                return decode(&frame).map(Some).map_err(|error| wrong(&self.peer, error));
            }
            self.piece.clear();
            self.piece.reserve(PIECE);
            let read = self.stream.read_buf(&mut self.piece).await;
            match read.map_err(|error| LinkError::lost(&self.peer, error))? {
                0 if self.decoder.is_amid_frame() => {
                    return Err(LinkError::lost(&self.peer, io::ErrorKind::UnexpectedEof.into()));
                }
                0 => return Ok(None),
                _ => self.decoder.push(&self.piece),
            }
        }
    }
}

/// The half of a connection that messages go into.
#[derive(Debug)]
pub struct Sender {
    stream: WriteHalf<TlsStream<TcpStream>>,
    peer: String,
}

impl Sender {
    /// Sends a message. If this is given up or fails, the connection is of no use.
    ///
    /// # Errors
    /// See [`LinkError`].
    pub async fn send<T: Serialize>(&mut self, message: &T) -> Result<(), LinkError> {
        let bytes =
            encode(message).map_err(|source| LinkError::Message { peer: self.peer.clone(), source })?;
        self.write(&bytes).await
    }

    /// Says why, and closes the connection.
    pub async fn refuse(mut self, why: &str) {
        if self.write(&encode_refusal(why)).await.is_ok() {
            let _ = timeout(LINGER, self.stream.shutdown()).await;
        }
    }

    /// Closes the connection.
    pub async fn close(mut self) {
        let _ = timeout(LINGER, self.stream.shutdown()).await;
    }

    async fn write(&mut self, bytes: &[u8]) -> Result<(), LinkError> {
        let write = async {
            self.stream.write_all(bytes).await?;
            self.stream.flush().await
        };
        let written = timeout(SEND_LIMIT, write).await.map_err(|_| LinkError::Slow {
            what: "sending a message",
            peer: self.peer.clone(),
            limit: SEND_LIMIT,
        })?;
        written.map_err(|error| LinkError::lost(&self.peer, error))
    }
}

/// A host that has lost its power says nothing, ever: a user that waits for an answer to come must notice.
fn prepare(stream: &TcpStream) -> io::Result<()> {
    let asks = TcpKeepalive::new().with_time(QUIET).with_interval(QUIET / 3).with_retries(3);
    SockRef::from(stream).set_tcp_keepalive(&asks)?;
    stream.set_nodelay(true)
}

/// Connects to SFMD.
///
/// # Errors
/// See [`LinkError`]. That SFMD refuses our certificate shows only when something is received.
pub async fn connect(to: SocketAddr, config: Arc<ClientConfig>) -> Result<Link, LinkError> {
    let peer = format!("sfmd at {to}");
    let name = ServerName::try_from(Role::Master.dns_name()).map_err(io::Error::other);
    let name = name.map_err(|error| LinkError::lost(&peer, error))?;
    let shake = async {
        let stream = TcpStream::connect(to).await?;
        prepare(&stream)?;
        TlsConnector::from(config).connect(name, stream).await
    };
    let slow = || LinkError::Slow { what: "the handshake", peer: peer.clone(), limit: HANDSHAKE_LIMIT };
    let stream = timeout(HANDSHAKE_LIMIT, shake).await.map_err(|_| slow())?;
    let stream = stream.map_err(|error| LinkError::lost(&peer, error))?;
    Ok(Link::new(TlsStream::Client(stream), peer))
}

/// Takes a connection at SFMD, and says who it is.
///
/// # Errors
/// See [`LinkError`].
pub async fn accept(stream: TcpStream, config: Arc<ServerConfig>) -> Result<(Link, Role), LinkError> {
    let peer = stream.peer_addr().map_or_else(|error| error.to_string(), |address| address.to_string());
    let slow = || LinkError::Slow { what: "the handshake", peer: peer.clone(), limit: HANDSHAKE_LIMIT };
    let shaken = timeout(HANDSHAKE_LIMIT, shake(stream, config)).await.map_err(|_| slow())?;
    let stream = shaken.map_err(|error| LinkError::lost(&peer, error))?;
    let role = role_of(stream.get_ref().1.peer_certificates().unwrap_or_default());
    let stream = TlsStream::Server(stream);
    match role {
        Ok(role) => Ok((Link::new(stream, role.to_string()), role)),
        Err(error) => {
            Link::new(stream, peer).sender.refuse(&error.to_string()).await;
            Err(error.into())
        }
    }
}

type Accepted = tokio_rustls::server::TlsStream<TcpStream>;

/// Without the wait after a failure, the other end might see a reset instead of our reason.
async fn shake(stream: TcpStream, config: Arc<ServerConfig>) -> io::Result<Accepted> {
    prepare(&stream)?;
    let start = LazyConfigAcceptor::new(rustls::server::Acceptor::default(), stream).await?;
    match start.into_stream(config).into_fallible().await {
        Ok(stream) => Ok(stream),
        Err((error, mut stream)) => {
            let _ = timeout(LINGER, tokio::io::copy(&mut stream, &mut tokio::io::sink())).await;
            Err(error)
        }
    }
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
