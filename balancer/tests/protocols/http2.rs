//! HTTP/2 from clients: with prior knowledge, many streams, and clients that mean harm.

use bytes::Bytes;
use h2::Reason;
use http::{Method, Request};
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

use crate::support::{Backend, SECOND, eventually, ok, raw_backend, ready_front};
use crate::{curl, echo};

#[tokio::test]
async fn prior_knowledge_and_http_1_share_a_port() {
    let backend = Backend::serve(echo).await;
    let front = ready_front(&[backend.address], "").await;
    let url = format!("http://{}/a?b", front.listen()[0]);
    for (flag, version) in [("--http2-prior-knowledge", "2"), ("--http1.1", "1.1")] {
        let seen = curl(&[flag, "-w", "version %{http_version}", &url]).await.unwrap();
        assert!(seen.starts_with("GET /a?b\n") && seen.ends_with(&format!("version {version}")), "{seen}");
        assert!(seen.contains(&format!("host: {}\n", front.listen()[0])), "{seen}");
    }
}

#[tokio::test]
async fn bodies_pass_both_ways_over_http2() {
    let backend = Backend::serve(|request: Request<hyper::body::Incoming>| async move {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        http::Response::new(Full::new(body))
    })
    .await;
    let front = ready_front(&[backend.address], "").await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("large");
    std::fs::write(&file, vec![b'x'; 3_000_000]).unwrap();
    let (url, data) = (format!("http://{}/", front.listen()[0]), format!("@{}", file.display()));
    let back = curl(&["--http2-prior-knowledge", "--data-binary", &data, &url]).await.unwrap();
    assert_eq!(back.len(), 3_000_000);
}

#[tokio::test]
async fn thousands_of_requests_in_a_hundred_streams_are_all_answered() {
    let backend = Backend::text("hello").await;
    let front = ready_front(&[backend.address], "").await;
    let output = Command::new("h2load")
        .args(["-n", "3000", "-c", "4", "-m", "100", &format!("http://{}/", front.listen()[0])])
        .output()
        .await
        .unwrap();
    let report = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(report.contains("3000 succeeded, 0 failed, 0 errored"), "{report}");
    assert_eq!(backend.count(), 3000);
}

async fn client(
    front: &balancer::front::Front,
) -> (h2::client::SendRequest<Bytes>, tokio::task::JoinHandle<Result<(), h2::Error>>) {
    let stream = TcpStream::connect(front.listen()[0]).await.unwrap();
    let (sender, connection) = h2::client::handshake(stream).await.unwrap();
    (sender, tokio::spawn(connection))
}

fn request(uri: String) -> http::request::Builder {
    Request::builder().method(Method::GET).uri(uri)
}

#[tokio::test]
async fn a_host_that_contradicts_the_authority_is_refused() {
    let backend = Backend::serve(echo).await;
    let front = ready_front(&[backend.address], "").await;
    let (mut sender, _driver) = client(&front).await;
    for (host, status) in [("a.test", 200), ("evil.test", 400)] {
        let request = request("http://a.test/".to_owned()).header("host", host).body(()).unwrap();
        let (answer, _) = sender.send_request(request, true).unwrap();
        assert_eq!(answer.await.unwrap().status(), status, "{host}");
    }
    assert_eq!(backend.count(), 1);
}

#[tokio::test]
async fn fields_that_frame_http_1_are_refused_in_http_2() {
    let backend = Backend::serve(echo).await;
    let front = ready_front(&[backend.address], "").await;
    for (name, value) in [("transfer-encoding", "chunked"), ("connection", "close"), ("keep-alive", "1")] {
        let (mut sender, _driver) = client(&front).await;
        let request = request("http://a.test/".to_owned()).header(name, value).body(()).unwrap();
        // The client's library refuses to send some of them itself.
        let Ok((answer, _)) = sender.send_request(request, true) else { continue };
        assert_eq!(answer.await.unwrap_err().reason(), Some(Reason::PROTOCOL_ERROR), "{name}");
    }
    assert_eq!(backend.count(), 0);
}

#[tokio::test]
async fn cookies_in_pieces_reach_a_backend_of_http_1_as_one() {
    let backend = Backend::serve(echo).await;
    let front = ready_front(&[backend.address], "").await;
    let stream = TcpStream::connect(front.listen()[0]).await.unwrap();
    let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await;
    let (mut sender, connection) = handshake.unwrap();
    tokio::spawn(connection);
    let request = request("http://a.test/".to_owned()).header("cookie", "a=1").header("cookie", "b=2");
    let answer = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
    let seen = answer.into_body().collect().await.unwrap().to_bytes();
    assert!(String::from_utf8_lossy(&seen).contains("cookie: a=1; b=2\n"), "{seen:?}");
}

#[tokio::test]
async fn a_client_that_resets_streams_rapidly_loses_its_connection() {
    let backend = Backend::serve(|_| async {
        tokio::time::sleep(SECOND).await;
        ok("late")
    })
    .await;
    let front = ready_front(&[backend.address], "").await;
    let (mut sender, driver) = client(&front).await;
    for _ in 0..2_000 {
        let Ok(ready) = sender.clone().ready().await else { break };
        sender = ready;
        tokio::task::yield_now().await;
        let Ok((answer, mut stream)) =
            sender.send_request(request("http://a.test/".to_owned()).body(()).unwrap(), false)
        else {
            break;
        };
        stream.send_reset(Reason::CANCEL);
        drop(answer);
    }
    drop(sender);
    drop(tokio::time::timeout(5 * SECOND, driver).await.expect("the connection ends"));
    assert!(backend.count() < 400, "{}", backend.count());
    let pool = front.handles().pool;
    eventually("none in flight", || pool.in_flight() == 0).await;
    assert!(curl(&[&format!("http://{}/", front.listen()[0])]).await.is_ok());
}

#[tokio::test]
async fn a_client_that_holds_an_answer_back_loses_its_connection() {
    let backend =
        Backend::serve(|_| async { http::Response::new(Full::new(vec![b'x'; 2_000_000].into())) }).await;
    let front = ready_front(&[backend.address], "timeouts: {client_stall: 300ms}").await;
    let (mut sender, driver) = client(&front).await;
    let (answer, _) =
        sender.send_request(request("http://a.test/".to_owned()).body(()).unwrap(), true).unwrap();
    // It takes the head, and no more than the first window.
    let held = answer.await.unwrap();
    let ended = tokio::time::timeout(5 * SECOND, driver).await.expect("the connection ends");
    drop((ended, held));
    let pool = front.handles().pool;
    eventually("none in flight", || pool.in_flight() == 0).await;
}

/// What everybody who speaks HTTP/2 sends first.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// No settings but the default ones.
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// Sends bytes and nothing more, and waits for the end.
async fn is_closed(front: &balancer::front::Front, bytes: &[u8]) -> bool {
    let mut wire = TcpStream::connect(front.listen()[0]).await.unwrap();
    wire.write_all(bytes).await.unwrap();
    let mut answer = Vec::new();
    tokio::time::timeout(10 * SECOND, wire.read_to_end(&mut answer)).await.is_ok()
}

#[tokio::test]
async fn an_idle_client_that_does_not_agree_to_the_end_is_cut_off() {
    let backend = Backend::text("hello").await;
    let limits = "timeouts: {idle: 200ms, client_stall: 200ms}";
    let front = ready_front(&[backend.address], limits).await;
    assert!(is_closed(&front, b"PRI ").await, "a preface that is not finished");
    assert!(is_closed(&front, &[PREFACE, SETTINGS].concat()).await, "no PING is answered");
}

/// Looks at its connections every 50 ms.
const LOOKS_OFTEN: &str = "timeouts: {request_header: 200ms}";

#[tokio::test]
async fn a_stream_that_waits_for_a_backend_ends_with_it() {
    let silent = raw_backend(|stream, _head| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let front = ready_front(&[silent], LOOKS_OFTEN).await;
    let (mut sender, _driver) = client(&front).await;
    let post = request("http://a.test/".to_owned()).method(Method::POST).body(()).unwrap();
    let (answer, _) = sender.send_request(post, true).unwrap();
    let pool = front.handles().pool;
    eventually("it waits", || pool.in_flight() == 1).await;
    pool.remove(&silent.to_string().into()).unwrap();
    let answer = tokio::time::timeout(10 * SECOND, answer).await.expect("in time").unwrap();
    assert_eq!(answer.status(), 502);
}

#[tokio::test]
async fn a_stream_whose_answer_has_begun_ends_with_its_backend() {
    let halting = raw_backend(|mut stream, _head| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nsome").await.unwrap();
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let front = ready_front(&[halting], LOOKS_OFTEN).await;
    let (mut sender, _driver) = client(&front).await;
    let get = request("http://a.test/".to_owned()).body(()).unwrap();
    let (answer, _) = sender.send_request(get, true).unwrap();
    let mut body = answer.await.unwrap().into_body();
    assert_eq!(body.data().await.unwrap().unwrap(), "some");
    // Nothing else is going on when it goes.
    tokio::time::sleep(SECOND / 4).await;
    front.handles().pool.remove(&halting.to_string().into()).unwrap();
    let rest = tokio::time::timeout(10 * SECOND, body.data()).await.expect("in time");
    assert!(rest.is_some_and(|rest| rest.is_err()), "it is cut off and not ended");
}
