//! How the backends of a pool are spoken with, beyond bytes: the PROXY header, TLS, and
//! which version of HTTP.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use ppp::v2;
use tokio::io::AsyncWriteExt;
use tokio_rustls::TlsConnector;

use crate::net::{Raw, Stream};
use crate::tls::BackendTls;

/// Which PROXY header connections begin with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProxyHeader {
    /// Version 1, a line of text.
    Text,
    /// Version 2, binary.
    Binary,
}

/// How backends are spoken with.
#[derive(Debug, Clone)]
pub struct Link {
    /// Whether HTTP/2 is spoken: over TLS by ALPN, without by prior knowledge.
    pub http2: bool,
    /// TLS; `None` for none.
    pub tls: Option<BackendTls>,
    /// The PROXY header that connections begin with. Each client has connections of its
    /// own then.
    pub proxy_header: Option<ProxyHeader>,
    /// How long a connection of HTTP/2 with requests on it may be silent before the backend is
    /// asked for a sign of life.
    pub ping_interval: Duration,
}

/// Servers of gRPC end connections that ask more than once in five minutes.
pub(crate) const PING_INTERVAL: Duration = Duration::from_secs(360);

impl Default for Link {
    fn default() -> Self {
        Self { http2: false, tls: None, proxy_header: None, ping_interval: PING_INTERVAL }
    }
}

/// Both ends of a client's connection: where it is, and where it came to.
pub(crate) type Ends = Option<(SocketAddr, SocketAddr)>;

impl Link {
    /// Whether a connection may carry requests of several clients.
    pub(crate) fn is_shared(&self) -> bool {
        self.proxy_header.is_none()
    }

    /// Sets a new connection up for HTTP.
    pub(crate) async fn set_up(&self, mut raw: Raw, ends: Ends) -> io::Result<Stream> {
        if let Some(version) = self.proxy_header {
            raw.write_all(&header(version, ends)?).await?;
        }
        let Some(tls) = &self.tls else { return Ok(Stream::Plain(raw)) };
        let connector = TlsConnector::from(Arc::clone(&tls.config));
        let stream = connector.connect(tls.name.clone(), raw).await?;
        if self.http2 && stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "the backend does not speak HTTP/2"));
        }
        Ok(Stream::Tls(Box::new(stream.into())))
    }
}

/// The header for a client; ours own probes have no client.
fn header(version: ProxyHeader, ends: Ends) -> io::Result<Vec<u8>> {
    match version {
        ProxyHeader::Text => Ok(text(ends).into_bytes()),
        ProxyHeader::Binary => binary(ends),
    }
}

/// Both addresses in the same family: IPv4 if both are, else IPv6.
fn text(ends: Ends) -> String {
    let Some((client, local)) = ends.map(canonical) else { return "PROXY UNKNOWN\r\n".to_owned() };
    let (from, to, ports) = (client.ip(), local.ip(), (client.port(), local.port()));
    let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
    format!("PROXY {family} {from} {to} {} {}\r\n", ports.0, ports.1)
}

fn binary(ends: Ends) -> io::Result<Vec<u8>> {
    let (version, stream) = (v2::Version::Two, v2::Protocol::Stream);
    match ends.map(canonical) {
        Some(ends) => v2::Builder::with_addresses(version | v2::Command::Proxy, stream, ends).build(),
        None => v2::Builder::new(version | v2::Command::Local, 0).build(),
    }
}

fn canonical((client, local): (SocketAddr, SocketAddr)) -> (SocketAddr, SocketAddr) {
    let plain = |it: SocketAddr| SocketAddr::new(it.ip().to_canonical(), it.port());
    let (client, local) = (plain(client), plain(local));
    if client.is_ipv4() == local.is_ipv4() {
        return (client, local);
    }
    let mapped = |it: SocketAddr| match it {
        SocketAddr::V4(v4) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
        v6 @ SocketAddr::V6(_) => v6,
    };
    (mapped(client), mapped(local))
}

#[cfg(test)]
mod tests {
    use super::*;
    use ppp::{HeaderResult, PartialResult};

    fn ends(client: &str, local: &str) -> Ends {
        Some((client.parse().unwrap(), local.parse().unwrap()))
    }

    #[test]
    fn the_text_names_client_and_local_address() {
        assert_eq!(text(ends("192.0.2.7:5", "192.0.2.1:80")), "PROXY TCP4 192.0.2.7 192.0.2.1 5 80\r\n");
        assert_eq!(
            text(ends("[::ffff:192.0.2.7]:5", "192.0.2.1:80")),
            "PROXY TCP4 192.0.2.7 192.0.2.1 5 80\r\n"
        );
        assert_eq!(text(ends("[2001:db8::7]:5", "[::1]:80")), "PROXY TCP6 2001:db8::7 ::1 5 80\r\n");
        assert_eq!(text(None), "PROXY UNKNOWN\r\n");
    }

    #[test]
    fn the_binary_header_is_one_that_parsers_take() {
        for ends in [ends("192.0.2.7:5", "192.0.2.1:80"), ends("[2001:db8::7]:5", "192.0.2.1:80"), None] {
            let bytes = binary(ends).unwrap();
            let parsed = HeaderResult::parse(&bytes);
            assert!(parsed.is_complete() && matches!(parsed, HeaderResult::V2(Ok(_))), "{bytes:?}");
        }
    }
}
