//! CONNECT, with curl and with a client made of bytes.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::Command;

use crate::support::*;

/// A server that sends every byte back.
async fn echo() -> std::net::SocketAddr {
    listener(|mut stream| async move {
        let (mut from, mut to) = stream.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
    })
    .await
}

fn text(backend: &Backend, routes: &str) -> String {
    format!("listen: ['127.0.0.1:0']\nbackends: ['{}']\nroutes: [{routes}]", backend.address)
}

async fn connect(wire: &mut Wire, target: &str, behind: &str) -> String {
    wire.send(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n{behind}")).await;
    wire.head().await
}

#[tokio::test]
async fn connect_leads_to_where_its_route_allows_and_nowhere_else() {
    let (backend, target) = (Backend::text("hello").await, echo().await);
    let route = format!("{{name: out, connect: {{to: ['127.0.0.1:{}']}}}}", target.port());
    let front = Site::new().open(&text(&backend, &route)).await;
    let mut wire = Wire::connect(&front).await;
    // What comes right behind belongs to the tunnel, whatever it looks like.
    let head = connect(&mut wire, &target.to_string(), "early\n\0").await;
    assert!(head.starts_with("HTTP/1.1 200") && !head.contains("content-length"), "{head}");
    wire.send("GET / HTTP/1.1\n\n").await;
    let mut came = vec![0; 7 + 16];
    wire.0.read_exact(&mut came).await.unwrap();
    assert_eq!(came, b"early\n\0GET / HTTP/1.1\n\n");
    wire.0.shutdown().await.unwrap();
    assert_eq!(wire.rest().await, "");
    for (asked, status) in [("127.0.0.1:1", 403), ("localhost:80", 403), ("127.0.0.1", 400)] {
        let mut wire = Wire::connect(&front).await;
        let head = connect(&mut wire, asked, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        assert!(
            head.starts_with(&format!("HTTP/1.1 {status}")) && head.contains("connection: close"),
            "{head}"
        );
        assert!(!wire.rest().await.contains("hello"), "what is behind a refused CONNECT is no request");
    }
    assert_eq!(Wire::connect(&front).await.get("/").await.1, "hello");
    assert_eq!(backend.count(), 1);
    let gathered = front.handles().registry.gather();
    let tunnels = gathered.iter().find(|family| family.name() == "flurry_tunnels_total").unwrap();
    assert_eq!(tunnels.get_metric()[0].get_counter().get_value(), 1.0);
}

#[tokio::test]
async fn without_a_route_for_it_connect_is_refused() {
    let (backend, target) = (Backend::text("hello").await, echo().await);
    for routes in ["", "{path: /}", "{connect: {to: ['*:*']}, hosts: [other.test]}"] {
        let front = Site::new().open(&text(&backend, routes)).await;
        let head = connect(&mut Wire::connect(&front).await, &target.to_string(), "").await;
        assert!(head.starts_with("HTTP/1.1 405") && head.contains("connection: close"), "{head}");
    }
}

#[tokio::test]
async fn a_target_that_nobody_listens_on_is_a_bad_gateway() {
    let backend = Backend::text("hello").await;
    let bound = tokio::net::TcpSocket::new_v4().unwrap();
    bound.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let nobody = bound.local_addr().unwrap();
    let front = Site::new().open(&text(&backend, "{connect: {to: ['*:*'], networks: [127.0.0.0/8]}}")).await;
    let head = connect(&mut Wire::connect(&front).await, &nobody.to_string(), "").await;
    assert!(head.starts_with("HTTP/1.1 502"), "{head}");
}

#[tokio::test]
async fn curl_gets_through_a_tunnel() {
    let (backend, site) = (Backend::text("hello").await, Backend::text("from the site").await);
    let front = Site::new().open(&text(&backend, "{connect: {to: ['127.0.0.1:*']}}")).await;
    let (proxy, url) = (format!("http://{}", front.listen()[0]), format!("http://{}/", site.address));
    let curl = Command::new("curl").args(["-sS", "--max-time", "10", "-p", "-x", &proxy, &url]).output();
    let curl = curl.await.unwrap();
    assert_eq!(String::from_utf8_lossy(&curl.stdout), "from the site", "{curl:?}");
}

#[tokio::test]
async fn neither_this_host_nor_a_private_network_is_reached_unless_that_is_said() {
    let (backend, target) = (Backend::text("hello").await, echo().await);
    let front = Site::new().open(&text(&backend, "{connect: {to: ['*:*']}}")).await;
    let (port, admin) = (target.port(), front.admin().port());
    for asked in [
        format!("127.0.0.1:{port}"),
        format!("localhost:{port}"),
        format!("[::ffff:127.0.0.1]:{port}"),
        format!("127.0.0.1:{admin}"),
        "10.0.0.1:80".to_owned(),
        "169.254.169.254:80".to_owned(),
        "[fe80::1]:80".to_owned(),
    ] {
        let head = connect(&mut Wire::connect(&front).await, &asked, "").await;
        assert!(head.starts_with("HTTP/1.1 403"), "{asked}: {head}");
    }
    let route = "{connect: {to: ['localhost:*'], networks: [127.0.0.0/8, '::1/128']}}";
    let front = Site::new().open(&text(&backend, route)).await;
    let head = connect(&mut Wire::connect(&front).await, &format!("localhost:{port}"), "").await;
    assert!(head.starts_with("HTTP/1.1 200"), "{head}");
}
