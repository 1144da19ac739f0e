//! What a client and a backend see of each other.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests are named as sentences")]

mod support;

use std::sync::atomic::Ordering::SeqCst;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

async fn echo(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let mut seen = format!("{} {}\n", request.method(), request.uri());
    for (name, value) in request.headers() {
        seen += &format!("{name}: {}\n", value.to_str().unwrap());
    }
    let body = request.into_body().collect().await.unwrap();
    if let Some(trailers) = body.trailers() {
        seen += &format!("trailers: {trailers:?}\n");
    }
    seen += &format!("body: {}\n", String::from_utf8_lossy(&body.to_bytes()));
    Response::new(Full::new(seen.into()))
}

#[tokio::test]
async fn connections_are_kept_on_both_sides() {
    let backend = Backend::text("hello").await;
    let front = ready_front(&[backend.address], "").await;
    let mut wire = Wire::connect(&front).await;
    for _ in 0..50 {
        let (head, body) = wire.get("/").await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        assert_eq!(body, "hello");
    }
    assert_eq!((backend.count(), backend.connections.load(SeqCst)), (50, 1));
}

#[tokio::test]
async fn the_backend_is_told_who_asks_and_nothing_of_the_clients_connection() {
    let backend = Backend::serve(echo).await;
    let front = ready_front(&[backend.address], "").await;
    let mut wire = Wire::connect(&front).await;
    wire.send("GET /a?b=c HTTP/1.1\r\nHost: shop.example:80\r\nConnection: X-Mine\r\nX-Mine: 1\r\nX-Forwarded-For: 6.6.6.6\r\nAccept: */*\r\n\r\n").await;
    let (_, seen) = wire.answer().await;
    assert!(seen.starts_with("GET /a?b=c\n"), "{seen}");
    for line in [
        "host: shop.example:80\n",
        "accept: */*\n",
        "x-forwarded-for: 127.0.0.1\n",
        "x-forwarded-proto: http\n",
    ] {
        assert!(seen.contains(line), "{line} in {seen}");
    }
    assert!(!seen.contains("x-mine") && !seen.contains("6.6.6.6"), "{seen}");
}

#[tokio::test]
async fn an_absolute_target_becomes_path_and_host() {
    let backend = Backend::serve(echo).await;
    let front = ready_front(&[backend.address], "").await;
    let mut wire = Wire::connect(&front).await;
    wire.send("GET http://b.example:81/x?y HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let (_, seen) = wire.answer().await;
    assert!(seen.starts_with("GET /x?y\n") && seen.contains("host: b.example:81\n"), "{seen}");
}

#[tokio::test]
async fn bodies_pass_with_length_and_in_chunks() {
    let backend = Backend::serve(echo).await;
    let front = ready_front(&[backend.address], "").await;
    let mut wire = Wire::connect(&front).await;
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello").await;
    assert!(wire.answer().await.1.ends_with("body: hello\n"));
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nhel\r\n").await;
    wire.send("2;ext=1\r\nlo\r\n0\r\n\r\n").await;
    let (_, seen) = wire.answer().await;
    assert!(seen.contains("transfer-encoding: chunked\n") && seen.ends_with("body: hello\n"), "{seen}");
}

#[tokio::test]
async fn large_bodies_pass_unchanged_both_ways() {
    let backend = Backend::serve(|request| async move {
        Response::new(Full::new(request.into_body().collect().await.unwrap().to_bytes()))
    })
    .await;
    let front = ready_front(&[backend.address], "").await;
    let stream = tokio::net::TcpStream::connect(front.listen()[0]).await.unwrap();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
    tokio::spawn(connection);
    let sent: Bytes = (0..8_000_000_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for _ in 0..3 {
        let request = Request::post("/").header("host", "a").body(Full::new(sent.clone())).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        let got = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(got == sent, "{} of {} bytes", got.len(), sent.len());
        sender.ready().await.unwrap();
    }
}

#[tokio::test]
async fn trailers_pass_both_ways() {
    let address = raw_backend(|mut stream, head| async move {
        let mut body = Vec::new();
        while !body.ends_with(b"\r\n\r\n") {
            body.push(stream.read_u8().await.unwrap());
        }
        let saw = head.contains("trailer: X-Sum\r\n") && body.ends_with(b"x-sum: 7\r\n\r\n");
        let sum = if saw { "8" } else { "none" };
        let answer = format!(
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x-sum\r\n\r\n2\r\nok\r\n0\r\nx-sum: {sum}\r\n\r\n"
        );
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await;
    let front = ready_front(&[address], "").await;
    let mut wire = Wire::connect(&front).await;
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: te, close\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 7\r\n\r\n").await;
    let answer = wire.rest().await;
    assert!(answer.ends_with("2\r\nok\r\n0\r\nx-sum: 8\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn the_answer_to_head_has_a_length_and_no_body() {
    let backend = Backend::text("hello").await;
    let front = ready_front(&[backend.address], "").await;
    let mut wire = Wire::connect(&front).await;
    for _ in 0..3 {
        wire.send("HEAD / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let head = wire.head().await;
        assert!(head.contains("content-length: 5\r\n"), "{head}");
    }
    assert_eq!(wire.get("/").await.1, "hello");
}

#[tokio::test]
async fn an_answer_without_length_ends_with_its_connection_and_reaches_the_client_whole() {
    let address = raw_backend(|mut stream, _| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\n\r\nall of it").await.unwrap();
    })
    .await;
    let front = ready_front(&[address], "").await;
    let mut wire = Wire::connect(&front).await;
    wire.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await;
    let answer = wire.rest().await;
    assert!(answer.contains("all of it") && answer.ends_with("0\r\n\r\n"), "{answer}");
}

#[tokio::test]
async fn a_client_of_http_1_0_is_served() {
    let backend = Backend::text("hello").await;
    let front = ready_front(&[backend.address], "").await;
    let mut wire = Wire::connect(&front).await;
    wire.send("GET / HTTP/1.0\r\n\r\n").await;
    let answer = wire.rest().await;
    assert!(answer.starts_with("HTTP/1.0 200 OK\r\n") && answer.ends_with("hello"), "{answer}");
}

#[tokio::test]
async fn a_client_that_expects_100_gets_it_when_the_backend_takes_the_body() {
    let backend = Backend::serve(echo).await;
    let front = ready_front(&[backend.address], "").await;
    let mut wire = Wire::connect(&front).await;
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n").await;
    assert!(wire.head().await.starts_with("HTTP/1.1 100 Continue\r\n"));
    wire.send("hello").await;
    assert!(wire.answer().await.1.ends_with("body: hello\n"));
}

#[tokio::test]
async fn an_answer_streams_before_it_is_complete() {
    let address = raw_backend(|mut stream, _| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nfirst").await.unwrap();
        let mut go = [0];
        let _ = tokio::time::timeout(SECOND / 2, stream.read(&mut go)).await;
        stream.write_all(b"later").await.unwrap();
    })
    .await;
    let front = ready_front(&[address], "").await;
    let mut wire = Wire::connect(&front).await;
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let head = wire.head().await;
    let mut first = [0; 5];
    let read = tokio::time::timeout(SECOND / 4, wire.0.read_exact(&mut first)).await;
    assert!(read.is_ok(), "{head}");
    assert_eq!(&first, b"first");
    wire.0.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"later");
}

#[tokio::test]
async fn a_large_answer_waits_for_a_client_that_reads_slowly() {
    const LENGTH: usize = 64 << 20;
    let address = raw_backend(|mut stream, _| async move {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {LENGTH}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let block = vec![b'x'; 1 << 20];
        let mut sent = 0;
        while sent < LENGTH {
            match tokio::time::timeout(SECOND / 2, stream.write_all(&block)).await {
                Ok(written) => written.unwrap(),
                Err(_stalled) => break,
            }
            sent += block.len();
        }
        assert!(sent < LENGTH, "a proxy without back-pressure takes it all");
        // The client goes on reading only now; the rest of the block it stopped in is lost.
    })
    .await;
    let front = ready_front(&[address], "").await;
    let mut wire = Wire::connect(&front).await;
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    wire.head().await;
    tokio::time::sleep(SECOND).await;
    let got = wire.rest().await.len();
    assert!(got > 0 && got < LENGTH, "{got}");
    let failed = || front.handles().samples.borrow().failed_total;
    eventually("the cut answer is counted", || failed() == 1).await;
}

#[tokio::test]
async fn a_client_that_leaves_ends_its_request_at_the_backend() {
    let (told, mut end) = tokio::sync::mpsc::unbounded_channel();
    let address = raw_backend(move |mut stream, _| {
        let told = told.clone();
        async move {
            told.send(None).unwrap();
            let mut byte = [0];
            let read = stream.read(&mut byte).await;
            told.send(Some(read.map_or(0, |n| n))).unwrap();
        }
    })
    .await;
    let front = ready_front(&[address], "").await;
    let mut wire = Wire::connect(&front).await;
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let pool = front.handles().pool;
    let mut told = async || tokio::time::timeout(5 * SECOND, end.recv()).await.expect("in time").unwrap();
    assert_eq!(told().await, None, "the request has come");
    assert_eq!(pool.in_flight(), 1);
    drop(wire);
    assert_eq!(told().await, Some(0), "the backend sees the end");
    eventually("none in flight", || pool.in_flight() == 0).await;
}

#[tokio::test]
async fn an_upgrade_that_the_backend_declines_is_an_ordinary_answer_and_an_offer_of_h2c_is_ignored() {
    let backend = Backend::text("hello").await;
    let front = ready_front(&[backend.address], "").await;
    let mut wire = Wire::connect(&front).await;
    wire.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n").await;
    assert!(wire.answer().await.0.starts_with("HTTP/1.1 200"));
    wire.send("GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n").await;
    assert!(wire.answer().await.0.starts_with("HTTP/1.1 200"));
}
