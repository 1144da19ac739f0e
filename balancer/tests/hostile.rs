//! Clients that mean ill, or are just broken.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests are named as sentences")]

mod support;

use std::time::Instant;

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::{Request, Response};
use support::*;

/// What must be refused: what it is, the bytes, the status.
fn malformed() -> Vec<(&'static str, Vec<u8>, u16)> {
    let mut table: Vec<(&str, Vec<u8>, u16)> = [
        ("both length and encoding", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("both encoding and length", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n", 400),
        ("differing lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd", 400),
        ("repeated length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc", 400),
        ("list of lengths", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3, 3\r\n\r\nabc", 400),
        ("signed length", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +3\r\n\r\nabc", 400),
        ("folded field", "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\n 2\r\n\r\n", 400),
        ("folded encoding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", 400),
        ("space before colon", "GET / HTTP/1.1\r\nHost: a\r\nX : 1\r\n\r\n", 400),
        ("length with space before colon", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length : 3\r\n\r\nabc", 400),
        ("space before name", "GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
        ("bare LF after request line", "GET / HTTP/1.1\nHost: a\r\n\r\n", 400),
        ("bare LF after field", "GET / HTTP/1.1\r\nHost: a\nX: 1\r\n\r\n", 400),
        ("bare LF at the end", "GET / HTTP/1.1\r\nHost: a\r\n\n", 400),
        ("bare CR in value", "GET / HTTP/1.1\r\nHost: a\r\nX: 1\r2\r\n\r\n", 400),
        ("bare CR in name", "GET / HTTP/1.1\r\nHost: a\r\nX\rY: 1\r\n\r\n", 400),
        ("NUL in value", "GET / HTTP/1.1\r\nHost: a\r\nX: 1\0\r\n\r\n", 400),
        ("NUL in name", "GET / HTTP/1.1\r\nHost: a\r\nX\0: 1\r\n\r\n", 400),
        ("NUL in target", "GET /\0 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("encoding not ending in chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, gzip\r\n\r\n", 400),
        ("encoding before chunked", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
        ("unknown encoding", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n", 400),
        ("encoding given twice", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("encoding with vertical tab", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
        ("encoding in HTTP/1.0", "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
        ("chunk size not hexadecimal", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nz\r\n", 400),
        ("chunk size with 0x", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n0\r\n\r\n", 400),
        ("chunk size with space", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3 \r\nabc\r\n0\r\n\r\n", 400),
        ("chunk size too large", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n", 400),
        ("chunk longer than its size", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", 400),
        ("bare LF in chunk", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n", 400),
        ("framing field as trailer", "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nContent-Length: 3\r\n\r\n", 400),
        ("no host", "GET / HTTP/1.1\r\n\r\n", 400),
        ("two hosts", "GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        ("malformed host", "GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        ("no version", "GET /\r\nHost: a\r\n\r\n", 400),
        ("unknown version", "GET / HTTP/1.2\r\nHost: a\r\n\r\n", 400),
        ("two spaces", "GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("not HTTP at all", "\x16\x03\x01\x02\x00\x01\x00\x01\r\n\r\n", 400),
        ("CONNECT", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", 405),
        ("unknown expectation", "POST / HTTP/1.1\r\nHost: a\r\nExpect: wonders\r\nContent-Length: 0\r\n\r\n", 417),
        ("target of another scheme", "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    ]
    .into_iter()
    .map(|(name, text, status)| (name, text.as_bytes().to_vec(), status))
    .collect();
    let long = |length| "x".repeat(length);
    table.push(("long target", format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", long(9000)).into_bytes(), 414));
    table.push((
        "long head",
        format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", long(33_000)).into_bytes(),
        431,
    ));
    let many: String = (0..101).map(|n| format!("X-{n}: 1\r\n")).collect();
    table.push(("many fields", format!("GET / HTTP/1.1\r\nHost: a\r\n{many}\r\n").into_bytes(), 431));
    table
}

/// A backend that answers when it has the whole body: what begins to arrive must break off before its end.
async fn whole_or_broken(request: Request<Incoming>) -> Response<Full<Bytes>> {
    match request.into_body().collect().await {
        Ok(_) => ok("whole"),
        Err(_) => ok("broken"),
    }
}

#[tokio::test]
async fn malformed_requests_are_refused_and_never_reach_a_backend() {
    let backend = Backend::serve(whole_or_broken).await;
    let front = ready_front(&[backend.address], "").await;
    for (name, bytes, status) in malformed() {
        let mut wire = Wire::connect(&front).await;
        wire.send(&bytes).await;
        let answer = wire.rest().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {answer:?}");
        assert!(!answer.contains("whole"), "{name}: {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{name}: {answer:?}");
    }
    let mut wire = Wire::connect(&front).await;
    assert_eq!(wire.get("/").await.1, "whole", "and others are served as ever");
}

#[tokio::test]
async fn malformed_requests_are_refused_byte_by_byte_too() {
    let backend = Backend::serve(whole_or_broken).await;
    let front = ready_front(&[backend.address], "").await;
    for (name, bytes, status) in malformed() {
        if bytes.len() > 500 {
            continue;
        }
        let mut wire = Wire::connect(&front).await;
        for byte in &bytes {
            use tokio::io::AsyncWriteExt;
            if wire.0.write_all(&[*byte]).await.is_err() {
                break;
            }
            tokio::task::yield_now().await;
        }
        let answer = wire.rest().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{name}: {answer:?}");
        assert_eq!(answer.matches("HTTP/1.1 ").count(), 1, "{name}: {answer:?}");
    }
}

#[tokio::test]
async fn what_follows_a_refused_request_is_never_read() {
    let backend = Backend::text("hello").await;
    let front = ready_front(&[backend.address], "").await;
    let mut wire = Wire::connect(&front).await;
    wire.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\nHost: a\r\n\r\nGET /3 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answers = wire.rest().await;
    assert_eq!(answers.matches("HTTP/1.1 200").count(), 1, "{answers}");
    assert_eq!(answers.matches("HTTP/1.1 400").count(), 1, "{answers}");
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let backend = Backend::serve(|request| async move {
        if request.uri() == "/1" {
            tokio::time::sleep(SECOND / 20).await;
        }
        ok(if request.uri() == "/1" { "one" } else { "two" })
    })
    .await;
    let front = ready_front(&[backend.address], "").await;
    let mut wire = Wire::connect(&front).await;
    wire.send("GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert_eq!(wire.answer().await.1, "one");
    assert_eq!(wire.answer().await.1, "two");
}

#[tokio::test]
async fn a_head_that_dribbles_in_is_answered_with_408() {
    let backend = Backend::text("hello").await;
    let front = ready_front(&[backend.address], "timeouts: {request_header: 300ms}").await;
    let mut wire = Wire::connect(&front).await;
    let start = Instant::now();
    let dribble = async {
        use tokio::io::AsyncWriteExt;
        let (mut read, mut write) = wire.0.split();
        let writing = async {
            write.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
            while write.write_all(b"X: 1\r\n").await.is_ok() {
                tokio::time::sleep(SECOND / 50).await;
            }
        };
        let mut answer = Vec::new();
        let reading = async {
            use tokio::io::AsyncReadExt;
            let _ = read.read_to_end(&mut answer).await;
        };
        tokio::select! { () = writing => {}, () = reading => {} }
        answer
    };
    let answer = tokio::time::timeout(5 * SECOND, dribble).await.expect("cut off in time");
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert!(start.elapsed() >= SECOND * 3 / 10, "{:?}", start.elapsed());
}

#[tokio::test]
async fn a_body_that_stalls_is_answered_with_408_and_frees_the_backend() {
    let backend = Backend::serve(|request| async move {
        use http_body_util::BodyExt;
        let _ = request.into_body().collect().await;
        ok("hello")
    })
    .await;
    let front = ready_front(&[backend.address], "timeouts: {client_stall: 300ms}").await;
    let mut wire = Wire::connect(&front).await;
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhel").await;
    let answer = wire.rest().await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    let pool = front.handles().pool;
    eventually("none in flight", || pool.in_flight() == 0).await;
}

#[tokio::test]
async fn a_client_that_stops_reading_is_cut_and_frees_the_backend() {
    let backend = raw_backend(|mut stream, _| async move {
        use tokio::io::AsyncWriteExt;
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000000\r\n\r\n").await;
        let block = vec![b'x'; 1 << 20];
        while stream.write_all(&block).await.is_ok() {}
    })
    .await;
    let front = ready_front(&[backend], "timeouts: {client_stall: 300ms}").await;
    let mut wire = Wire::connect(&front).await;
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let pool = front.handles().pool;
    eventually("in flight", || pool.in_flight() == 1).await;
    eventually("none in flight", || pool.in_flight() == 0).await;
    drop(wire);
}

#[tokio::test]
async fn slow_clients_do_not_slow_others_down() {
    let backend = Backend::text("hello").await;
    let front = ready_front(&[backend.address], "").await;
    let mut slow = Vec::new();
    for _ in 0..200 {
        let mut wire = Wire::connect(&front).await;
        wire.send("GET / HTTP/1.1\r\nHo").await;
        slow.push(wire);
    }
    let mut wire = Wire::connect(&front).await;
    for _ in 0..100 {
        assert_eq!(wire.get("/").await.1, "hello");
    }
    for mut wire in slow {
        wire.send("st: a\r\n\r\n").await;
        assert_eq!(wire.answer().await.1, "hello");
    }
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_its_time() {
    let backend = Backend::text("hello").await;
    let front = ready_front(&[backend.address], "timeouts: {idle: 300ms}").await;
    let mut wire = Wire::connect(&front).await;
    assert_eq!(wire.get("/").await.1, "hello");
    let start = Instant::now();
    assert_eq!(wire.rest().await, "");
    assert!(start.elapsed() >= SECOND / 4, "{:?}", start.elapsed());
}
