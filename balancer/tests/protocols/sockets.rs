//! Where connections come from and go to: unix sockets, IPv6, the PROXY protocol.

use std::net::SocketAddr;

use ppp::v2;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Backend, SECOND, Site, Wire, eventually, gated, listener, raw_backend};
use crate::{curl, echo};

#[tokio::test]
async fn unix_sockets_carry_both_sides() {
    let backend = Backend::serve(echo).await;
    let site = Site::new();
    let inner_path = site.path("inner.sock");
    let inner = site.open(&format!("listen: ['unix:{inner_path}']\nbackends: ['{}']", backend.address)).await;
    let outer_site = Site::new();
    let path = outer_site.path("outer.sock");
    let outer = outer_site.open(&format!("listen: ['unix:{path}']\nbackends: ['unix:{inner_path}']")).await;
    for flag in ["--http1.1", "--http2-prior-knowledge"] {
        let seen = curl(&[flag, "--unix-socket", &path, "http://a.test/x"]).await.unwrap();
        assert!(seen.starts_with("GET /x\n") && seen.contains("x-forwarded-for: unknown\n"), "{seen}");
    }
    outer.close().await;
    assert!(!std::path::Path::new(&path).exists(), "its file goes with it");
    drop(inner);
}

#[tokio::test]
async fn ipv6_is_listened_on_and_forwarded() {
    let backend = Backend::serve(echo).await;
    let site = Site::new();
    let front = site.open(&format!("listen: ['[::1]:0']\nbackends: ['{}']", backend.address)).await;
    let seen = curl(&[&format!("http://{}/", front.listen()[0])]).await.unwrap();
    assert!(seen.contains("x-forwarded-for: ::1\n"), "{seen}");
}

async fn behind_a_proxy(from: &str) -> (Backend, balancer::front::Front) {
    let backend = Backend::serve(echo).await;
    let listen = format!("listen:\n  - {{address: '127.0.0.1:0', proxy_protocol: {{from: ['{from}']}}}}\n");
    let front = Site::new().open(&format!("{listen}backends: ['{}']", backend.address)).await;
    (backend, front)
}

#[tokio::test]
async fn a_proxy_header_names_the_client() {
    let (_backend, front) = behind_a_proxy("127.0.0.0/8").await;
    let ends: (SocketAddr, SocketAddr) = ("192.0.2.9:1234".parse().unwrap(), "192.0.2.1:80".parse().unwrap());
    let command = v2::Version::Two | v2::Command::Proxy;
    let binary = v2::Builder::with_addresses(command, v2::Protocol::Stream, ends).build().unwrap();
    for header in [b"PROXY TCP4 192.0.2.9 192.0.2.1 1234 80\r\n".to_vec(), binary] {
        let mut wire = Wire::connect(&front).await;
        // In two pieces: the header has to be awaited.
        wire.send(&header[..10]).await;
        tokio::time::sleep(SECOND / 50).await;
        wire.send(&header[10..]).await;
        let (_, seen) = wire.get("/").await;
        assert!(seen.contains("x-forwarded-for: 192.0.2.9\n"), "{seen}");
    }
}

#[tokio::test]
async fn a_connection_without_the_header_or_from_elsewhere_is_closed() {
    let (backend, front) = behind_a_proxy("127.0.0.0/8").await;
    assert!(curl(&[&format!("http://{}/", front.listen()[0])]).await.is_err());
    let (_backend, elsewhere) = behind_a_proxy("192.0.2.0/24").await;
    let mut wire = Wire::connect(&elsewhere).await;
    let _ =
        wire.0.write_all(b"PROXY TCP4 192.0.2.9 192.0.2.1 1 80\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(wire.rest().await, "");
    assert_eq!(backend.count(), 0);
}

#[tokio::test]
async fn backends_are_told_the_client_by_a_header_of_each_connection() {
    // The probe begins with a header of its own, which `raw_backend` takes for a request.
    let address = proxied_backend().await;
    let text = format!("listen: ['127.0.0.1:0']\nbackends: ['{address}']\nupstream: {{proxy_protocol: v1}}");
    let front = Site::new().open(&text).await;
    let local = front.listen()[0];
    for _ in 0..2 {
        let mut wire = Wire::connect(&front).await;
        let port = wire.0.local_addr().unwrap().port();
        let (_, seen) = wire.get("/").await;
        assert_eq!(seen, format!("PROXY TCP4 127.0.0.1 127.0.0.1 {port} {}", local.port()));
    }
}

/// Answers with the line that its connection began with.
async fn proxied_backend() -> SocketAddr {
    listener(move |mut stream: TcpStream| async move {
        let mut line = Vec::new();
        while !line.ends_with(b"\r\n") {
            line.push(stream.read_u8().await.unwrap());
        }
        let line = String::from_utf8(line).unwrap().trim_end().to_owned();
        while crate::support::read_head(&mut stream).await.is_some() {
            let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{line}", line.len());
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await
}

#[tokio::test]
async fn an_idle_connection_that_was_parked_goes_on() {
    let backend = Backend::text("hello").await;
    let text = format!("listen: ['127.0.0.1:0']\nbackends: ['{}']\n", backend.address);
    let front = Site::new().open(&format!("{text}timeouts: {{request_header: 100ms, idle: 3s}}")).await;
    let mut wire = Wire::connect(&front).await;
    for _ in 0..3 {
        assert_eq!(wire.get("/").await.1, "hello");
        tokio::time::sleep(SECOND * 7 / 10).await;
    }
    assert_eq!(wire.rest().await, "", "it is closed after its idle time");
}

#[tokio::test]
async fn a_backend_that_closes_right_away_is_no_client_of_ours() {
    let address = raw_backend(|stream: TcpStream, _| async move { drop(stream) }).await;
    let text = format!("listen: ['127.0.0.1:0']\nbackends: ['{address}']");
    let front = Site::new().open(&text).await;
    let mut wire = Wire::connect(&front).await;
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    assert!(wire.head().await.starts_with("HTTP/1.1 502"));
}

#[tokio::test]
async fn the_file_of_a_unix_socket_goes_before_the_last_requests_do() {
    let (backend, gate) = gated("hello").await;
    let site = Site::new();
    let path = site.path("web.sock");
    let front = site.open(&format!("listen: ['unix:{path}']\nbackends: ['{}']", backend.address)).await;
    let mut stream = tokio::net::UnixStream::connect(&path).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    eventually("it is at the backend", || backend.count() == 1).await;
    let closing = tokio::spawn(front.close());
    eventually("nobody new comes in", || !std::path::Path::new(&path).exists()).await;
    // A successor may listen there already.
    let _successor = std::os::unix::net::UnixListener::bind(&path).unwrap();
    gate.add_permits(1);
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    assert!(answer.ends_with("hello"), "{answer}");
    closing.await.unwrap();
    assert!(std::path::Path::new(&path).exists(), "what is another's stays");
}
