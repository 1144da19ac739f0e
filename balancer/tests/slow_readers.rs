//! Clients that take an answer slowly, with real sockets.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests are named as sentences")]

mod support;

use std::time::{Duration, Instant};

use balancer::front::Front;
use bytes::Bytes;
use http::Response;
use http_body_util::Full;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

/// More than all buffers between two sockets hold.
const LARGE: usize = 24 << 20;
/// Large enough that room in it is announced at once, and not when a timer looks.
const BUFFER: u32 = 128 * 1024;

async fn large() -> Backend {
    Backend::serve(|_| async { Response::new(Full::new(Bytes::from(vec![b'x'; LARGE]))) }).await
}

async fn stalled(front: &Front) -> f64 {
    let families = front.handles().registry.gather();
    let family = families.iter().find(|it| it.name() == "flurry_connections_stalled_total").unwrap();
    family.get_metric()[0].get_counter().get_value()
}

/// Asks for the answer, with a buffer of so many bytes.
async fn ask(front: &Front, buffer: u32) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(buffer).unwrap();
    let mut stream = socket.connect(front.listen()[0]).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await.unwrap();
    stream
}

/// Reads so many bytes every 50 ms for a time; says whether the connection was still there then.
async fn read(stream: &mut TcpStream, bytes: usize, time: Duration) -> bool {
    let (start, mut room) = (Instant::now(), vec![0; bytes]);
    while start.elapsed() < time {
        if stream.read_exact(&mut room).await.is_err() {
            return false;
        }
        tokio::time::sleep(SECOND / 20).await;
    }
    true
}

const LIMITS: &str = "timeouts: {client_stall: 1s, client_rate: 64KiB}";

#[tokio::test]
async fn a_client_that_trickles_is_cut_and_counted() {
    let backend = large().await;
    let front = ready_front(&[backend.address], LIMITS).await;
    let mut stream = ask(&front, BUFFER).await;
    // 10 KB a second: it never stalls.
    tokio::spawn(async move { read(&mut stream, 512, 60 * SECOND).await });
    for _ in 0..1000 {
        if stalled(&front).await == 1.0 {
            eventually("its place is free", || front.handles().pool.in_flight() == 0).await;
            return;
        }
        tokio::time::sleep(SECOND / 100).await;
    }
    panic!("it was not cut within ten seconds");
}

#[tokio::test]
async fn a_client_that_is_slow_and_steady_is_not_cut() {
    let backend = large().await;
    let front = ready_front(&[backend.address], LIMITS).await;
    let mut stream = ask(&front, BUFFER).await;
    assert!(read(&mut stream, 32 * 1024, 5 * SECOND).await);
    assert_eq!(stalled(&front).await, 0.0);
}

#[tokio::test]
async fn with_any_rate_only_a_standstill_counts() {
    let backend = large().await;
    let front = ready_front(&[backend.address], "timeouts: {client_stall: 1s, client_rate: 0}").await;
    let mut stream = ask(&front, BUFFER).await;
    assert!(read(&mut stream, 16 * 1024, 4 * SECOND).await);
    assert_eq!(stalled(&front).await, 0.0);
    for _ in 0..1000 {
        if stalled(&front).await == 1.0 {
            return;
        }
        tokio::time::sleep(SECOND / 100).await;
    }
    panic!("it was not cut within ten seconds");
}

#[tokio::test]
async fn a_stream_of_http2_that_gets_little_room_is_cut_with_its_connection() {
    let backend = large().await;
    let front = ready_front(&[backend.address], LIMITS).await;
    let stream = TcpStream::connect(front.listen()[0]).await.unwrap();
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(64 * 1024).initial_connection_window_size(1 << 20);
    let (sender, connection) = builder.handshake::<_, Bytes>(stream).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("http://a/").body(()).unwrap();
    let (answer, _) = sender.ready().await.unwrap().send_request(request, true).unwrap();
    let mut body = answer.await.unwrap().into_body();
    let trickle = async {
        while let Some(Ok(piece)) = body.data().await {
            for _ in 0..piece.len().div_ceil(1024) {
                if body.flow_control().release_capacity(piece.len().min(1024)).is_err() {
                    break;
                }
                tokio::time::sleep(SECOND / 20).await;
            }
        }
    };
    tokio::time::timeout(15 * SECOND, trickle).await.expect("the stream ends");
    assert_eq!(stalled(&front).await, 1.0);
}
