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

/// What a client says and waits for at first, a request with one more field, as bytes: libraries refuse to
/// send what must not be sent.
fn request_with(name: &str, value: &str) -> Vec<u8> {
    const METHOD_GET: u8 = 0x82;
    const SCHEME_HTTP: u8 = 0x86;
    const PATH_ROOT: u8 = 0x84;
    const AUTHORITY: u8 = 0x01;
    const NEW_NAME: u8 = 0x00;
    let text = |text: &str| [&[text.len() as u8], text.as_bytes()].concat();
    let head = [
        vec![METHOD_GET, SCHEME_HTTP, PATH_ROOT, AUTHORITY],
        text("a.test"),
        vec![NEW_NAME],
        text(name),
        text(value),
    ]
    .concat();
    // HEADERS of stream 1, which are all there is of it.
    let frame = [&[0, 0, head.len() as u8, 1, 0x5, 0, 0, 0, 1], &head[..]].concat();
    [PREFACE, SETTINGS, &frame].concat()
}

const GOAWAY: u8 = 7;

/// Reads frames until one is of stream 1, or ends the connection; its type, and what it says.
async fn first_of_stream(wire: &mut TcpStream) -> (u8, Vec<u8>) {
    loop {
        let mut head = [0; 9];
        wire.read_exact(&mut head).await.unwrap();
        let mut said = vec![0; u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize];
        wire.read_exact(&mut said).await.unwrap();
        if head[8] == 1 || head[3] == GOAWAY {
            return (head[3], said);
        }
    }
}

#[tokio::test]
async fn fields_that_frame_http_1_are_refused_in_http_2() {
    const HEADERS: u8 = 1;
    const RESET: u8 = 3;
    const PROTOCOL_ERROR: [u8; 4] = [0, 0, 0, 1];
    let backend = Backend::serve(echo).await;
    let front = ready_front(&[backend.address], "").await;
    for (name, value, answer) in [
        ("x-fine", "1", HEADERS),
        ("transfer-encoding", "chunked", RESET),
        ("connection", "close", RESET),
        ("keep-alive", "1", RESET),
        ("upgrade", "websocket", RESET),
        ("X-Upper", "1", GOAWAY),
    ] {
        let mut wire = TcpStream::connect(front.listen()[0]).await.unwrap();
        wire.write_all(&request_with(name, value)).await.unwrap();
        let (kind, said) = tokio::time::timeout(10 * SECOND, first_of_stream(&mut wire)).await.unwrap();
        assert_eq!(kind, answer, "{name}");
        assert!(kind == HEADERS || said.ends_with(&PROTOCOL_ERROR), "{name}: {said:?}");
    }
    assert_eq!(backend.count(), 1);
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
    // It ends although its client would go on.
    drop(tokio::time::timeout(10 * SECOND, driver).await.expect("the connection ends"));
    drop(sender);
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
