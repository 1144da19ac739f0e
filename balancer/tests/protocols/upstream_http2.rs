//! Connections to backends that carry many requests: how they grow old, and how they die.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use balancer::front::Front;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Notify;

use crate::support::{SECOND, Site, eventually, listener};

/// Connections that carried requests; those of probes do not.
#[derive(Default)]
struct Seen {
    open: AtomicUsize,
    closed: AtomicUsize,
}

/// Never answers `/silent`, breaks a connection off that asks for `/die`, and answers the rest.
async fn server() -> (SocketAddr, Arc<Seen>) {
    let seen = Arc::new(Seen::default());
    let shared = Arc::clone(&seen);
    (listener(move |stream| serve(stream, Arc::clone(&shared))).await, seen)
}

async fn serve(stream: TcpStream, seen: Arc<Seen>) {
    let (die, carried) = (Arc::new(Notify::new()), Arc::new(AtomicBool::new(false)));
    let service = hyper::service::service_fn(|request: Request<Incoming>| {
        if !carried.swap(true, SeqCst) {
            seen.open.fetch_add(1, SeqCst);
        }
        let die = Arc::clone(&die);
        async move {
            match request.uri().path() {
                "/silent" => std::future::pending().await,
                "/die" => die.notify_one(),
                _ => return Ok::<_, Infallible>(Response::new(Full::new(Bytes::from("hello")))),
            }
            std::future::pending().await
        }
    });
    let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    tokio::select! {
        _ = builder.serve_connection(TokioIo::new(stream), service) => {}
        () = die.notified() => {}
    }
    seen.closed.fetch_add(usize::from(carried.load(SeqCst)), SeqCst);
}

async fn open(address: SocketAddr, upstream: &str, extra: &str) -> Front {
    let upstream = format!("upstream: {{http2: true{upstream}}}\nhealth: {{kind: connect}}\n");
    Site::new().open(&format!("listen: ['127.0.0.1:0']\nbackends: ['{address}']\n{upstream}{extra}")).await
}

/// A client whose requests all meet the same worker.
async fn client(front: &Front) -> h2::client::SendRequest<Bytes> {
    let stream = TcpStream::connect(front.listen()[0]).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn post(sender: &mut h2::client::SendRequest<Bytes>, path: &str) -> h2::client::ResponseFuture {
    let request = Request::builder().method(Method::POST).uri(format!("http://a.test{path}"));
    sender.send_request(request.body(()).unwrap(), true).unwrap().0
}

#[tokio::test]
async fn a_connection_that_carries_nothing_for_a_while_is_closed() {
    let (address, seen) = server().await;
    let front = open(address, "", "timeouts: {idle: 200ms}").await;
    assert_eq!(post(&mut client(&front).await, "/").await.unwrap().status(), 200);
    eventually("it is closed", || seen.closed.load(SeqCst) == 1).await;
}

#[tokio::test]
async fn after_a_request_without_an_answer_the_next_one_goes_over_another_connection() {
    let (address, seen) = server().await;
    let front = open(address, "", "timeouts: {response: 200ms}").await;
    let mut sender = client(&front).await;
    for _ in 0..2 {
        assert_eq!(post(&mut sender, "/silent").await.unwrap().status(), 504);
    }
    assert_eq!(seen.open.load(SeqCst), 2);
}

#[tokio::test]
async fn a_connection_that_breaks_with_requests_on_it_is_its_backends_fault() {
    let (address, _seen) = server().await;
    let front = open(address, "", "").await;
    let mut sender = client(&front).await;
    assert_eq!(post(&mut sender, "/").await.unwrap().status(), 200);
    let backend = front.handles().pool.snapshot().all[0].clone();
    // This one found it idle, as one would that the backend has closed meanwhile.
    let waits = post(&mut sender, "/silent");
    eventually("it is there", || backend.in_flight() == 1).await;
    let breaks = post(&mut sender, "/die");
    assert_eq!(
        (waits.await.unwrap().status(), breaks.await.unwrap().status()),
        (502.try_into().unwrap(), 502.try_into().unwrap())
    );
    assert_eq!(backend.failed(), 1);
}

/// Takes everything and answers nothing, not even a PING.
async fn deaf() -> SocketAddr {
    listener(move |mut stream: TcpStream| async move {
        // No settings but the default ones.
        stream.write_all(&[0, 0, 0, 4, 0, 0, 0, 0, 0]).await.unwrap();
        let mut waste = [0; 4096];
        while stream.read(&mut waste).await.is_ok_and(|read| read > 0) {}
    })
    .await
}

#[tokio::test]
async fn a_backend_without_a_sign_of_life_is_given_up() {
    let front = open(deaf().await, ", ping_interval: 1s", "").await;
    let answer = post(&mut client(&front).await, "/");
    let answer =
        tokio::time::timeout(30 * SECOND, answer).await.expect("before the time for an answer is over");
    assert_eq!(answer.unwrap().status(), 502);
}
