//! The PROXY protocol: who the client is, told by the balancer in front of us.
//!
//! Versions 1 (a line of text) and 2 (binary) are taken, and nothing without either: a
//! listener that expects the header cannot guess. The header is looked at first and then
//! taken off exactly, so that TLS or HTTP behind it begin with their first byte.

use std::io;
use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use ppp::{HeaderResult, PartialResult, v1, v2};
use tokio::io::AsyncReadExt;

use crate::net::Raw;

/// Longest header that is taken; version 2 may carry extras, of which none is used.
const MAX_HEADER: usize = 4096;

/// Which connections begin with a PROXY header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProxyProtocol {
    /// Networks of the balancers in front; a connection from elsewhere is closed.
    pub from: Vec<IpNet>,
}

impl ProxyProtocol {
    /// Whether a header from this peer is believed.
    pub fn believes(&self, peer: IpAddr) -> bool {
        self.from.iter().any(|net| net.contains(&peer.to_canonical()))
    }
}

/// Who a header says the client is: `None` for the balancer itself (health checks).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Told {
    length: usize,
    source: Option<SocketAddr>,
}

/// Reads a header, if it is there in whole. `Err` if it never will be one.
fn parse(bytes: &[u8]) -> Option<Result<Told, ()>> {
    /// Longest line of version 1.
    const MAX_LINE: usize = 107;
    // The parser takes a line that is cut within a number for a wrong one.
    let is_line = bytes.starts_with(b"PROXY ");
    if is_line && !bytes.contains(&b'\n') {
        return if bytes.len() < MAX_LINE { None } else { Some(Err(())) };
    }
    let parsed = HeaderResult::parse(bytes);
    if parsed.is_incomplete() {
        return None;
    }
    Some(match parsed {
        HeaderResult::V1(Ok(header)) => Ok(Told { length: header.header.len(), source: v1_source(&header) }),
        HeaderResult::V2(Ok(header)) => Ok(Told { length: header.len(), source: v2_source(&header) }),
        HeaderResult::V1(Err(_)) | HeaderResult::V2(Err(_)) => Err(()),
    })
}

fn v1_source(header: &v1::Header<'_>) -> Option<SocketAddr> {
    match header.addresses {
        v1::Addresses::Tcp4(it) => Some((it.source_address, it.source_port).into()),
        v1::Addresses::Tcp6(it) => Some((it.source_address, it.source_port).into()),
        v1::Addresses::Unknown => None,
    }
}

fn v2_source(header: &v2::Header<'_>) -> Option<SocketAddr> {
    match (header.command, header.addresses) {
        (v2::Command::Proxy, v2::Addresses::IPv4(it)) => Some((it.source_address, it.source_port).into()),
        (v2::Command::Proxy, v2::Addresses::IPv6(it)) => Some((it.source_address, it.source_port).into()),
        _ => None,
    }
}

/// Takes the header off a new connection. The address of the client, if it says one.
///
/// # Errors
/// The connection broke, or does not begin with a header.
pub(crate) async fn take_header(raw: &mut Raw) -> io::Result<Option<SocketAddr>> {
    let mut room = [0; MAX_HEADER];
    let decide = |bytes: &[u8], last: bool| match parse(bytes) {
        None if last => Some(Err(())),
        other => other,
    };
    let told = raw.peek(&mut room, decide).await?;
    let Ok(told) = told else {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "does not begin with a PROXY header"));
    };
    raw.read_exact(&mut room[..told.length]).await?;
    Ok(told.source)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::AsyncWriteExt;
    use tokio::net::UnixStream;

    fn v2(source: SocketAddr, destination: SocketAddr) -> Vec<u8> {
        let command = v2::Version::Two | v2::Command::Proxy;
        v2::Builder::with_addresses(command, v2::Protocol::Stream, (source, destination)).build().unwrap()
    }

    #[test]
    fn both_versions_name_the_client() {
        let (client, us): (SocketAddr, SocketAddr) =
            ("192.0.2.7:1234".parse().unwrap(), "192.0.2.1:80".parse().unwrap());
        let told = parse(b"PROXY TCP4 192.0.2.7 192.0.2.1 1234 80\r\nGET /").unwrap().unwrap();
        assert_eq!(told, Told { length: 40, source: Some(client) });
        let binary = v2(client, us);
        assert_eq!(parse(&binary), Some(Ok(Told { length: binary.len(), source: Some(client) })));
        let told = parse(b"PROXY UNKNOWN\r\n").unwrap().unwrap();
        assert_eq!(told.source, None);
    }

    #[test]
    fn every_part_of_a_header_is_awaited_and_anything_else_refused() {
        let binary = v2("[2001:db8::1]:5".parse().unwrap(), "[2001:db8::2]:80".parse().unwrap());
        for whole in [&b"PROXY TCP6 2001:db8::1 2001:db8::2 5 80\r\n"[..], &binary] {
            for length in 1..whole.len() {
                assert_eq!(parse(&whole[..length]), None, "{length} of {whole:?}");
            }
            assert!(matches!(parse(whole), Some(Ok(_))));
        }
        assert_eq!(parse(b"GET / HTTP/1.1\r\n"), Some(Err(())));
    }

    #[tokio::test]
    async fn what_follows_the_header_is_left() {
        let (mut far, near) = UnixStream::pair().unwrap();
        let mut raw = Raw::Unix(near);
        far.write_all(b"PROXY TCP4 192.0.2.7 192.0.2.1 1234 80\r\nGET /").await.unwrap();
        assert_eq!(take_header(&mut raw).await.unwrap(), Some("192.0.2.7:1234".parse().unwrap()));
        let mut rest = [0; 5];
        raw.read_exact(&mut rest).await.unwrap();
        assert_eq!(&rest, b"GET /");
    }

    #[tokio::test]
    async fn an_end_before_the_header_is_an_error() {
        let (far, near) = UnixStream::pair().unwrap();
        drop(far);
        assert!(take_header(&mut Raw::Unix(near)).await.is_err());
    }
}
