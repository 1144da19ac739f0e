//! What gRPC needs: HTTP/2 on both sides, trailers, messages both ways at once.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use futures_util::stream;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::sync::mpsc;

use crate::support::{SECOND, Site, eventually, listener};

type Messages = StreamBody<stream::BoxStream<'static, Result<Frame<Bytes>, Infallible>>>;

fn messages(receiver: mpsc::Receiver<Frame<Bytes>>) -> Messages {
    let next = |mut receiver: mpsc::Receiver<Frame<Bytes>>| async move {
        receiver.recv().await.map(|frame| (Ok(frame), receiver))
    };
    StreamBody::new(Box::pin(stream::unfold(receiver, next)))
}

/// What a server of gRPC says to anything that is no call.
fn no_call() -> Response<Messages> {
    let (_, receiver) = mpsc::channel(1);
    Response::builder().status(405).body(messages(receiver)).unwrap()
}

/// The server's health: it serves, apart from the service `down`.
async fn health(request: Request<Incoming>) -> Response<Messages> {
    let question = request.into_body().collect().await.unwrap().to_bytes();
    let state = if question.ends_with(b"down") { 2 } else { 1 };
    let (sender, receiver) = mpsc::channel(2);
    sender.send(Frame::data(Bytes::copy_from_slice(&[0, 0, 0, 0, 2, 8, state]))).await.unwrap();
    let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), "0".parse().unwrap())]);
    sender.send(Frame::trailers(trailers)).await.unwrap();
    Response::builder().header("content-type", "application/grpc").body(messages(receiver)).unwrap()
}

/// Answers each message at once, and ends with `grpc-status`.
async fn serve(request: Request<Incoming>) -> Result<Response<Messages>, Infallible> {
    if request.method() != "POST" || request.headers()["content-type"] != "application/grpc" {
        return Ok(no_call());
    }
    if request.uri().path() == "/grpc.health.v1.Health/Check" {
        return Ok(health(request).await);
    }
    let (sender, receiver) = mpsc::channel(1);
    let known = request.headers().get("te").is_some_and(|te| te == "trailers");
    tokio::spawn(async move {
        let mut body = request.into_body();
        while let Some(Ok(frame)) = body.frame().await {
            if let Ok(data) = frame.into_data() {
                sender.send(Frame::data(data)).await.unwrap();
            }
        }
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", if known { "0" } else { "13" }.parse().unwrap());
        sender.send(Frame::trailers(trailers)).await.unwrap();
    });
    let answer = Response::builder().header("content-type", "application/grpc");
    Ok(answer.body(messages(receiver)).unwrap())
}

/// A server that speaks HTTP/2 only.
async fn server() -> SocketAddr {
    listener(|stream| async {
        let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
        // How a connection ends is for its client to see.
        let _ = builder.serve_connection(TokioIo::new(stream), hyper::service::service_fn(serve)).await;
    })
    .await
}

#[tokio::test]
async fn messages_pass_both_ways_at_once_and_end_with_their_status() {
    let address = server().await;
    let site = Site::new();
    let text = format!("listen: ['127.0.0.1:0']\nbackends: ['{address}']\nupstream: {{http2: true}}\n");
    let front = site.open(&format!("{text}health: {{kind: grpc}}")).await;
    let stream = TcpStream::connect(front.listen()[0]).await.unwrap();
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (sender, connection) = handshake.unwrap();
    tokio::spawn(connection);
    let mut calls = tokio::task::JoinSet::new();
    for call in 0..50 {
        calls.spawn(one_call(sender.clone(), call));
    }
    let ended = tokio::time::timeout(10 * SECOND, calls.join_all()).await.expect("in time");
    assert_eq!(ended, vec!["0".to_owned(); 50]);
    let backend = &front.handles().pool.snapshot().all[0];
    assert_eq!((backend.requests(), backend.in_flight()), (50, 0));
}

/// Sends ten messages, each after the answer to the one before; its status.
async fn one_call(mut sender: hyper::client::conn::http2::SendRequest<Messages>, call: usize) -> String {
    let (out, receiver) = mpsc::channel(1);
    let request = Request::post("http://service.test/package.Service/Method")
        .header("te", "trailers")
        .header("content-type", "application/grpc")
        .body(messages(receiver))
        .unwrap();
    let mut body = sender.send_request(request).await.unwrap().into_body();
    for round in 0..10 {
        let message = Bytes::from(format!("call {call}, message {round}"));
        out.send(Frame::data(message.clone())).await.unwrap();
        let back = body.frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!(back, message);
    }
    drop(out);
    let trailers = body.frame().await.unwrap().unwrap().into_trailers().unwrap();
    trailers["grpc-status"].to_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_backend_is_ready_if_its_service_says_that_it_serves_or_if_nothing_is_asked() {
    let address = server().await;
    let pools = format!(
        "pools:
  up: {{backends: ['{address}'], upstream: {{http2: true}}, health: {{kind: grpc, service: up}}}}
  bare: {{backends: ['{address}'], health: {{kind: connect}}}}
  down: {{backends: ['{address}'], upstream: {{http2: true}}, health: {{kind: grpc, service: down}}}}
  get: {{backends: ['{address}'], upstream: {{http2: true}}}}
routes: [{{path: /up, pool: up}}, {{path: /bare, pool: bare}}, {{path: /down, pool: down}}, {{pool: get}}]"
    );
    let config = Site::new().config(&format!("listen: ['127.0.0.1:0']\n{pools}"));
    let front = balancer::front::Front::open(&config).await.unwrap();
    let plan = front.handles().plan.load_full();
    let ready = |name: &str| {
        let pool = plan.pools().into_iter().find(|pool| pool.name() == name).unwrap();
        !pool.snapshot().ready.is_empty()
    };
    eventually("those that serve are ready", || ready("up") && ready("bare")).await;
    tokio::time::sleep(SECOND / 4).await;
    assert!(!ready("down") && !ready("get"));
}
