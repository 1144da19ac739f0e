//! WebSocket through the balancer.

use std::net::SocketAddr;

use futures_util::{SinkExt, StreamExt};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{accept_async, connect_async};

use crate::support::{SECOND, Site, eventually, listener};

/// Sends every message back; other requests are answered with 200.
async fn server() -> SocketAddr {
    listener(move |mut stream: TcpStream| async move {
        let mut start = [0; 8];
        stream.peek(&mut start).await.unwrap();
        if !start.starts_with(b"GET /ws") {
            let _ = crate::support::read_head(&mut stream).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
            return tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await.unwrap();
        }
        let (mut out, mut come) = accept_async(stream).await.unwrap().split();
        while let Some(Ok(message)) = come.next().await {
            if (message.is_text() || message.is_binary()) && out.send(message).await.is_err() {
                break;
            }
        }
    })
    .await
}

async fn front(extra: &str) -> balancer::front::Front {
    let address = server().await;
    Site::new().open(&format!("listen: ['127.0.0.1:0']\nbackends: ['{address}']\n{extra}")).await
}

#[tokio::test]
async fn messages_of_any_size_pass_both_ways() {
    let front = front("").await;
    let url = format!("ws://{}/ws", front.listen()[0]);
    let (mut socket, answer) = connect_async(&url).await.unwrap();
    assert_eq!(answer.status(), 101);
    for size in [0, 1, 125, 126, 65_536, 1_000_000] {
        let message = Message::binary(vec![7; size]);
        socket.send(message.clone()).await.unwrap();
        assert_eq!(socket.next().await.unwrap().unwrap(), message);
    }
    let pool = front.handles().pool;
    assert_eq!(pool.in_flight(), 1);
    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}
    drop(socket);
    eventually("the tunnel gives its place back", || pool.in_flight() == 0).await;
}

#[tokio::test]
async fn a_silent_websocket_is_closed_after_its_time() {
    let front = front("timeouts: {tunnel: 300ms, request_header: 100ms}").await;
    let (mut socket, _) = connect_async(&format!("ws://{}/ws", front.listen()[0])).await.unwrap();
    for _ in 0..4 {
        tokio::time::sleep(SECOND / 10).await;
        socket.send(Message::text("still here")).await.unwrap();
        assert!(socket.next().await.unwrap().is_ok());
    }
    let ended = tokio::time::timeout(5 * SECOND, socket.next()).await.expect("it ends");
    assert!(ended.is_none_or(|it| it.is_err()));
}

#[tokio::test]
async fn a_websocket_may_go_on_while_stopping_until_the_deadline() {
    let front = front("timeouts: {drain: 700ms}").await;
    let (mut socket, _) = connect_async(&format!("ws://{}/ws", front.listen()[0])).await.unwrap();
    let closing = tokio::spawn(front.close());
    tokio::time::sleep(SECOND / 5).await;
    socket.send(Message::text("still here")).await.unwrap();
    assert_eq!(socket.next().await.unwrap().unwrap(), Message::text("still here"));
    let stopped = tokio::time::timeout(5 * SECOND, closing).await.expect("the deadline holds").unwrap();
    assert_eq!(stopped.cut, 1);
}

#[tokio::test]
async fn a_websocket_is_cut_when_its_backend_is_removed() {
    let front = front("timeouts: {request_header: 100ms}").await;
    let (mut socket, _) = connect_async(&format!("ws://{}/ws", front.listen()[0])).await.unwrap();
    let pool = front.handles().pool;
    let id = pool.snapshot().all[0].id().clone();
    pool.remove(&id).unwrap();
    let ended = tokio::time::timeout(5 * SECOND, socket.next()).await.expect("it ends");
    assert!(ended.is_none_or(|it| it.is_err()));
}
