//! TLS on listeners and towards backends.

use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::support::{Backend, Site, eventually};
use crate::{curl, echo};

/// A site with certificates for `a.test` and `b.test`, and the YAML of its listener.
fn two_names() -> (Site, String) {
    let site = Site::new();
    site.certificate("a.test");
    site.certificate("b.test");
    let listen = "listen:
  - address: 127.0.0.1:0
    tls:
      certificates:
        - {chain: a.test.pem, key: a.test.key}
        - {chain: b.test.pem, key: b.test.key}
"
    .to_owned();
    (site, listen)
}

async fn get(site: &Site, name: &str, port: u16, more: &[&str]) -> Result<String, i32> {
    let (roots, resolve) = (site.path(&format!("{name}.pem")), format!("{name}:{port}:127.0.0.1"));
    let url = format!("https://{name}:{port}/path");
    let mut arguments = vec!["--cacert", &roots, "--resolve", &resolve, &url];
    arguments.extend(more);
    curl(&arguments).await
}

#[tokio::test]
async fn each_name_gets_its_certificate_over_http_1_and_2() {
    let backend = Backend::serve(echo).await;
    let (site, listen) = two_names();
    let front = site.open(&format!("{listen}backends: ['{}']", backend.address)).await;
    let port = front.listen()[0].port();
    for name in ["a.test", "b.test"] {
        for (version, flag) in [("2", "--http2"), ("1.1", "--http1.1")] {
            let seen = get(&site, name, port, &[flag, "-w", "version %{http_version}"]).await.unwrap();
            assert!(seen.contains("x-forwarded-proto: https\n"), "{seen}");
            assert!(seen.contains(&format!("host: {name}:{port}\n")), "{seen}");
            assert!(seen.ends_with(&format!("version {version}")), "{seen}");
        }
    }
}

#[tokio::test]
async fn a_listener_may_leave_http2_out() {
    let backend = Backend::serve(echo).await;
    let (site, listen) = two_names();
    let front = site.open(&format!("{listen}    http2: false\nbackends: ['{}']", backend.address)).await;
    let port = front.listen()[0].port();
    let seen = get(&site, "a.test", port, &["--http2", "-w", "version %{http_version}"]).await.unwrap();
    assert!(seen.ends_with("version 1.1"), "{seen}");
}

#[tokio::test]
async fn versions_older_than_1_2_are_refused() {
    let backend = Backend::text("hello").await;
    let (site, listen) = two_names();
    let front = site.open(&format!("{listen}backends: ['{}']", backend.address)).await;
    let port = front.listen()[0].port();
    assert!(get(&site, "a.test", port, &["--tlsv1.2", "--tls-max", "1.2"]).await.is_ok());
    assert!(get(&site, "a.test", port, &["--tlsv1.1", "--tls-max", "1.1"]).await.is_err());
    // Neither plain HTTP nor silence gets anywhere.
    assert!(curl(&[&format!("http://127.0.0.1:{port}/")]).await.is_err());
}

#[tokio::test]
async fn a_client_without_the_required_certificate_is_refused() {
    let backend = Backend::text("hello").await;
    let (site, listen) = two_names();
    // curl shows the certificate of b.test; it is its own root.
    let clients = "      client_certificates: {roots: b.test.pem}\n";
    let front = site.open(&format!("{listen}{clients}backends: ['{}']", backend.address)).await;
    let port = front.listen()[0].port();
    assert!(get(&site, "a.test", port, &[]).await.is_err());
    let (wrong, key) = (site.path("a.test.pem"), site.path("a.test.key"));
    assert!(get(&site, "a.test", port, &["--cert", &wrong, "--key", &key]).await.is_err());
    let (right, key) = (site.path("b.test.pem"), site.path("b.test.key"));
    assert_eq!(get(&site, "a.test", port, &["--cert", &right, "--key", &key]).await.unwrap(), "hello");
}

#[tokio::test]
async fn an_optional_certificate_may_be_left_out() {
    let backend = Backend::text("hello").await;
    let (site, listen) = two_names();
    let clients = "      client_certificates: {roots: b.test.pem, optional: true}\n";
    let front = site.open(&format!("{listen}{clients}backends: ['{}']", backend.address)).await;
    assert_eq!(get(&site, "a.test", front.listen()[0].port(), &[]).await.unwrap(), "hello");
}

/// Connects to `a.test`, over HTTP/1.1.
fn connector(site: &Site) -> TlsConnector {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(site.path("a.test.pem")).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    TlsConnector::from(Arc::new(config))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_reads_late_gets_what_tls_holds_back() {
    let backend = Backend::serve(|request: http::Request<hyper::body::Incoming>| async move {
        let length = request.uri().path()[1..].parse().unwrap();
        http::Response::new(http_body_util::Full::new(vec![b'x'; length].into()))
    })
    .await;
    let (site, listen) = two_names();
    // Looks at its connections every 50 ms.
    let extra = "timeouts: {request_header: 200ms}\n";
    let front = site.open(&format!("{listen}{extra}backends: ['{}']", backend.address)).await;
    let (connector, address) = (connector(&site), front.listen()[0]);
    // How much the kernel takes is its own business: one of these lengths is a little more.
    let mut clients = tokio::task::JoinSet::new();
    for step in 1..=80_usize {
        clients.spawn(read_late(connector.clone(), address, step * 48 * 1024));
    }
    for (wanted, got) in clients.join_all().await {
        assert_eq!(got, wanted);
    }
}

/// Asks for a number of bytes, and takes none for a while; how many there were.
async fn read_late(connector: TlsConnector, address: std::net::SocketAddr, length: usize) -> (usize, usize) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(8 * 1024).unwrap();
    let stream = socket.connect(address).await.unwrap();
    let mut stream = connector.connect(ServerName::try_from("a.test").unwrap(), stream).await.unwrap();
    let request = format!("GET /{length} HTTP/1.1\r\nHost: a.test\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    tokio::time::sleep(crate::support::SECOND * 3 / 2).await;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    let (mut got, mut room) = (0, vec![0; 64 * 1024]);
    while got < length {
        let read = tokio::time::timeout(crate::support::SECOND * 10, stream.read(&mut room)).await;
        match read {
            Ok(Ok(count)) if count > 0 => got += count,
            _ => break,
        }
    }
    (length, got)
}

#[tokio::test]
async fn a_second_connection_resumes_the_session() {
    let backend = Backend::text("hello").await;
    let (site, listen) = two_names();
    let front = site.open(&format!("{listen}backends: ['{}']", backend.address)).await;
    let connector = connector(&site);
    let mut kinds = Vec::new();
    for _ in 0..2 {
        let stream = TcpStream::connect(front.listen()[0]).await.unwrap();
        let name = ServerName::try_from("a.test").unwrap();
        let mut stream = connector.connect(name, stream).await.unwrap();
        stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.ends_with("hello"), "{answer}");
        kinds.push(stream.get_ref().1.handshake_kind());
    }
    assert_eq!(kinds, [Some(rustls::HandshakeKind::Full), Some(rustls::HandshakeKind::Resumed)]);
}

#[tokio::test]
async fn a_client_that_never_finishes_its_handshake_is_closed() {
    let backend = Backend::text("hello").await;
    let (site, listen) = two_names();
    let extra = "timeouts: {request_header: 200ms}\n";
    let front = site.open(&format!("{listen}{extra}backends: ['{}']", backend.address)).await;
    let mut stream = TcpStream::connect(front.listen()[0]).await.unwrap();
    stream.write_all(&[22, 3, 1]).await.unwrap();
    let mut rest = Vec::new();
    let read = tokio::time::timeout(std::time::Duration::from_secs(5), stream.read_to_end(&mut rest)).await;
    assert!(read.is_ok() && rest.is_empty());
}

#[tokio::test]
async fn backends_are_spoken_with_over_tls_and_verified() {
    let backend = Backend::serve(echo).await;
    let (site, listen) = two_names();
    let inner = site.open(&format!("{listen}backends: ['{}']", backend.address)).await;
    let inner_port = inner.listen()[0].port();
    for http2 in [false, true] {
        let outer = Site::new();
        outer.write("a.test.pem", std::fs::read(site.path("a.test.pem")).unwrap());
        let upstream = format!("upstream: {{http2: {http2}, tls: {{name: a.test, roots: a.test.pem}}}}");
        let text = format!("listen: ['127.0.0.1:0']\nbackends: ['127.0.0.1:{inner_port}']\n{upstream}");
        let front = outer.open(&text).await;
        let seen = curl(&[&format!("http://127.0.0.1:{}/x", front.listen()[0].port())]).await.unwrap();
        assert!(seen.starts_with("GET /x\n"), "{seen}");
    }
    let wrong = Site::new();
    wrong.write("b.test.pem", std::fs::read(site.path("b.test.pem")).unwrap());
    let upstream = "upstream: {tls: {name: a.test, roots: b.test.pem}}\nqueue: {timeout: 300ms}";
    let text = format!("listen: ['127.0.0.1:0']\nbackends: ['127.0.0.1:{inner_port}']\n{upstream}");
    let front = balancer::front::Front::open(&wrong.config(&text)).await.unwrap();
    let url = format!("http://127.0.0.1:{}/", front.listen()[0].port());
    assert!(curl(&[&url]).await.unwrap().contains("no backend"));
    eventually("no backend is ready", || front.handles().pool.snapshot().ready.is_empty()).await;
}
