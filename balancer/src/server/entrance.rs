//! From an accepted socket to a client that can speak HTTP: the PROXY header, TLS, and
//! which version of HTTP it is.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use ipnet::IpNet;
use rustls::ServerConfig;
use tokio_rustls::TlsAcceptor;

use super::listen::ListenerSettings;
use super::proxied::{self, ProxyProtocol};
use super::session::Client;
use crate::net::{Raw, Stream};
use crate::tls::{self, TlsError};

/// How HTTP/2 begins when nothing has announced it; no request of HTTP/1.1 does.
const PREFACE: &[u8] = b"PRI ";

/// A listener as its workers know it.
#[derive(Clone)]
pub(crate) struct Entrance {
    name: Option<Arc<str>>,
    tls: Option<Arc<ServerConfig>>,
    http2: bool,
    proxy_protocol: Option<ProxyProtocol>,
    trusted: Arc<[IpNet]>,
}

/// Which HTTP a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Speaks {
    Http1,
    Http2,
    /// Its first bytes will tell.
    Unknown,
}

/// A client whose connection is set up.
pub(crate) struct Arrival {
    pub(crate) stream: Stream,
    pub(crate) client: Client,
    pub(crate) speaks: Speaks,
}

impl Entrance {
    pub(crate) fn new(settings: &ListenerSettings, trusted: Arc<[IpNet]>) -> Result<Self, TlsError> {
        let tls = settings.tls.as_ref().map(|it| tls::acceptor(it, settings.http2)).transpose()?;
        let proxy_protocol = settings.proxy_protocol.clone();
        let name = settings.name.as_deref().map(Arc::from);
        Ok(Self { name, tls, http2: settings.http2, proxy_protocol, trusted })
    }

    /// Sets a connection up. The caller limits its time.
    pub(crate) async fn welcome(&self, mut raw: Raw, peer: Option<SocketAddr>) -> io::Result<Arrival> {
        raw.set_nodelay()?;
        let source = match &self.proxy_protocol {
            Some(proxies) => self.proxied(proxies, &mut raw, peer).await?,
            None => peer,
        };
        let Some(tls) = &self.tls else { return self.welcome_plain(raw, source) };
        let client = self.client(&raw, source);
        let stream = TlsAcceptor::from(Arc::clone(tls)).accept(raw).await?;
        let speaks = match stream.get_ref().1.alpn_protocol() {
            Some(b"h2") => Speaks::Http2,
            _ => Speaks::Http1,
        };
        Ok(Arrival { stream: Stream::Tls(Box::new(stream.into())), client, speaks })
    }

    /// The same for a connection without PROXY header and TLS.
    pub(crate) fn welcome_plain(&self, raw: Raw, peer: Option<SocketAddr>) -> io::Result<Arrival> {
        raw.set_nodelay()?;
        let client = self.client(&raw, peer);
        let speaks = if self.http2 { Speaks::Unknown } else { Speaks::Http1 };
        Ok(Arrival { stream: Stream::Plain(raw), client, speaks })
    }

    fn client(&self, raw: &Raw, source: Option<SocketAddr>) -> Client {
        let mut client = Client::new(source, raw.local_address(), self.tls.is_some(), self.trusts(source));
        client.listener.clone_from(&self.name);
        client
    }

    /// Whether connections say who their client is.
    pub(crate) fn is_proxied(&self) -> bool {
        self.proxy_protocol.is_some()
    }

    /// Whether a connection is set up without waiting for its client.
    pub(crate) fn is_immediate(&self) -> bool {
        self.tls.is_none() && self.proxy_protocol.is_none()
    }

    async fn proxied(
        &self,
        proxies: &ProxyProtocol,
        raw: &mut Raw,
        peer: Option<SocketAddr>,
    ) -> io::Result<Option<SocketAddr>> {
        // Who may open a unix socket is a matter of its folder's permissions.
        if peer.is_some_and(|peer| !proxies.believes(peer.ip())) {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "not a known proxy"));
        }
        Ok(proxied::take_header(raw).await?.or(peer))
    }

    pub(crate) fn trusts(&self, source: Option<SocketAddr>) -> bool {
        let Some(ip) = source.map(|it| it.ip().to_canonical()) else { return false };
        self.trusted.iter().any(|net| net.contains(&ip))
    }
}

/// Tells HTTP/2 with prior knowledge from HTTP/1.1 by the first bytes.
pub(crate) async fn tell_version(raw: &Raw) -> io::Result<Speaks> {
    let mut room = [0; PREFACE.len()];
    raw.peek(&mut room, |bytes, last| match PREFACE.starts_with(bytes) {
        _ if bytes == PREFACE => Some(Speaks::Http2),
        true if !last => None,
        _ => Some(Speaks::Http1),
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    async fn version_of(first_bytes: &[u8]) -> Speaks {
        let (mut far, near) = UnixStream::pair().unwrap();
        far.write_all(first_bytes).await.unwrap();
        drop(far);
        tell_version(&Raw::Unix(near)).await.unwrap()
    }

    #[tokio::test]
    async fn the_preface_tells_http2_from_methods_that_begin_alike() {
        assert_eq!(version_of(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await, Speaks::Http2);
        assert_eq!(version_of(b"PUT / HTTP/1.1\r\n").await, Speaks::Http1);
        assert_eq!(version_of(b"GET / HTTP/1.1\r\n").await, Speaks::Http1);
        assert_eq!(version_of(b"").await, Speaks::Http1);
    }
}
