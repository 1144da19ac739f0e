//! The admin listener, over the wire.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests are named as sentences")]

mod support;

use balancer::admin::status::{DecisionStatus, EngineStatus};
use balancer::admin::{fetch_status, send_order};
use balancer::front::{Desk, Front, Order};
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

async fn ask(front: &Front, request: &str) -> String {
    let mut stream = TcpStream::connect(front.admin()).await.unwrap();
    let request = format!("{request} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn readiness_follows_the_backends_and_liveness_does_not() {
    let front = front(&[], "").await;
    assert!(ask(&front, "GET /healthz").await.starts_with("HTTP/1.1 200"));
    let answer = ask(&front, "GET /readyz").await;
    assert!(answer.starts_with("HTTP/1.1 503") && answer.ends_with("starting\n"), "{answer}");
    let backend = Backend::text("hello").await;
    let pool = front.handles().pool;
    let id = pool.insert(spec(backend.address)).unwrap().id().clone();
    pool.wait_ready(&id).await.unwrap();
    let board = front.handles().board;
    eventually("serving", || board.state().word() == "serving").await;
    assert!(ask(&front, "GET /readyz").await.ends_with("ready\n"));
    pool.remove(&id).unwrap();
    assert!(ask(&front, "GET /readyz").await.ends_with("no backend is ready\n"));
}

#[tokio::test]
async fn metrics_count_what_happened() {
    let backend = Backend::text("hello").await;
    let front = ready_front(&[backend.address], "").await;
    let mut wire = Wire::connect(&front).await;
    for _ in 0..7 {
        wire.get("/").await;
    }
    wire.send("GET / HTTP/1.1\r\n\r\n").await;
    wire.rest().await;
    let mut wire = Wire::connect(&front).await;
    wire.send("GET / HTTP/1.1\nHost: a\r\n\r\n").await;
    wire.rest().await;
    drop(wire);
    tokio::time::sleep(SECOND / 20).await;
    let page = ask(&front, "GET /metrics").await;
    assert!(page.contains("content-type: text/plain; version=0.0.4"), "{page}");
    for line in [
        "flurry_requests_total{class=\"2xx\"} 7\n".to_owned(),
        "flurry_requests_total{class=\"4xx\"} 1\n".to_owned(),
        "flurry_connections_refused_total 1\n".to_owned(),
        "flurry_request_duration_seconds_count 8\n".to_owned(),
        "flurry_upstream_connects_total 1\n".to_owned(),
        "flurry_connections_accepted_total 2\n".to_owned(),
        "flurry_backends{pool=\"default\",state=\"ready\"} 1\n".to_owned(),
        format!("flurry_backend_requests_total{{pool=\"default\",backend=\"{}\"}} 7\n", backend.address),
        "flurry_in_flight_requests 0\n".to_owned(),
    ] {
        assert!(page.contains(&line), "{line} in\n{page}");
    }
}

#[tokio::test]
async fn a_tier_writes_its_part_of_the_status() {
    let front = front(&[], "").await;
    let handles = front.handles();
    handles.board.set_scaling(4, 2, 1);
    handles.board.note_decision(DecisionStatus { to: 4, reason: "load".into(), ..Default::default() });
    handles.board.set_engine(|| EngineStatus { accelerator: "tcg".into(), ..Default::default() });
    let own = prometheus::IntCounter::new("flurry_forks_total", "Forks.").unwrap();
    handles.registry.register(Box::new(own.clone())).unwrap();
    own.inc();
    let status = fetch_status(front.admin()).await.unwrap();
    let scaling = status.scaling;
    assert_eq!((scaling.desired, scaling.ready, scaling.starting, scaling.retiring), (4, 0, 2, 1));
    assert_eq!(status.engine.unwrap().accelerator, "tcg");
    assert_eq!(status.decisions[0].reason, "load");
    assert!(ask(&front, "GET /v1/decisions").await.contains("\"reason\": \"load\""));
    assert!(ask(&front, "GET /metrics").await.contains("flurry_forks_total 1\n"));
}

#[tokio::test]
async fn an_order_goes_to_the_tier_that_is_scaled_and_a_wrong_one_does_not() {
    let front = front(&[], "").await;
    let refused = send_order(front.admin(), Order::Resume).await.unwrap_err().to_string();
    assert_eq!(refused, "this tier is not scaled, or not up yet");
    let (sender, orders) = std::sync::mpsc::channel();
    let mut desk = Desk::new(&scaler::Policy::default());
    front.handles().board.set_orders(move |order| {
        let said = desk.answer(order)?;
        sender.send(order).unwrap();
        Ok(said)
    });
    let order = Order::HoldAt { backends: 3, time: Some(600 * SECOND) };
    assert_eq!(send_order(front.admin(), order).await.unwrap(), "taken: backends=3&for=10m\n");
    assert_eq!(orders.try_recv(), Ok(order));
    let answer = ask(&front, "POST /v1/scaling?backends=0&for=x").await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("backends: must be"), "{answer}");
    assert!(answer.contains("for: must"), "{answer}");
    assert!(orders.try_recv().is_err());
}

/// Runs `flurry` with these arguments: its exit code, and all that it says.
async fn flurry(front: &Front, arguments: &[&str]) -> (Option<i32>, String) {
    let mut program = tokio::process::Command::new(env!("CARGO_BIN_EXE_flurry"));
    program.args(arguments).args(["--admin", &front.admin().to_string()]);
    let ended = program.output().await.unwrap();
    let said = String::from_utf8_lossy(&ended.stdout) + String::from_utf8_lossy(&ended.stderr);
    (ended.status.code(), said.into_owned())
}

#[tokio::test]
async fn flurry_scale_says_what_comes_of_an_order_and_when_nothing_does() {
    let front = front(&[], "").await;
    let (code, said) = flurry(&front, &["scale", "3"]).await;
    assert_eq!((code, said.as_str()), (Some(1), "flurry scale: this tier is not scaled, or not up yet\n"));
    let mut desk = Desk::new(&scaler::Policy { max: 3, ..scaler::Policy::default() });
    front.handles().board.set_orders(move |order| desk.answer(order));
    let said = flurry(&front, &["scale", "9", "--for", "20s"]).await;
    assert_eq!(said, (Some(0), "taken: backends=9&for=20s; max is 3, and 3 are held\n".to_owned()));
    assert_eq!(flurry(&front, &["scale", "--mode", "paused"]).await.0, Some(0));
    for order in [&["scale", "3"], &["scale", "--auto"]] {
        let (code, said) = flurry(&front, order).await;
        assert!(code == Some(1) && said.contains("in mode paused"), "{order:?}: {code:?} {said}");
    }
    assert!(ask_order(&front, "backends=3").await.starts_with("HTTP/1.1 409"));
    let (code, said) = flurry(&front, &["scale", "0"]).await;
    assert!(code == Some(2) && said.contains("invalid value '0'"), "{code:?} {said}");
}

async fn ask_order(front: &Front, query: &str) -> String {
    ask(front, &format!("POST /v1/scaling?{query}")).await
}

#[tokio::test]
async fn flurry_top_shows_as_many_frames_as_asked_for() {
    let front = front(&[], "").await;
    let (code, said) = flurry(&front, &["top", "--count", "2", "--every", "100ms"]).await;
    assert_eq!((code, said.matches("requests/s  ").count()), (Some(0), 2), "{said}");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("flurry.yaml");
    let text = format!("listen: [127.0.0.1:1]\nadmin: {}\nbackends: [127.0.0.1:2]\n", front.admin());
    std::fs::write(&file, text).unwrap();
    let mut program = tokio::process::Command::new(env!("CARGO_BIN_EXE_flurry"));
    let ended = program.args(["top", "--count", "1", "-c"]).arg(&file).output().await.unwrap();
    assert!(ended.status.success(), "{ended:?}");
}

#[tokio::test]
async fn orders_come_by_post_and_from_no_web_page() {
    let front = front(&[], "").await;
    let (sender, orders) = std::sync::mpsc::channel();
    front.handles().board.set_orders(move |order| {
        sender.send(order).unwrap();
        Ok(String::new())
    });
    for path in ["/v1/scaling?auto", "/v1/reload"] {
        for origin in ["http://evil.test", "null"] {
            let from_page = format!("POST {path} HTTP/1.1\r\nOrigin: {origin}\r\nX: ");
            assert!(ask(&front, &from_page).await.starts_with("HTTP/1.1 403"), "{path} {origin}");
        }
        for method in ["GET", "HEAD", "PUT"] {
            let answer = ask(&front, &format!("{method} {path}")).await;
            assert!(answer.starts_with("HTTP/1.1 405") && answer.contains("allow: POST\r\n"), "{answer}");
        }
    }
    assert!(orders.try_recv().is_err());
    assert!(ask(&front, "POST /v1/scaling?auto").await.starts_with("HTTP/1.1 202"));
    assert_eq!(orders.try_recv(), Ok(Order::Resume));
}

#[tokio::test]
async fn other_paths_and_methods_are_refused() {
    let front = front(&[], "").await;
    assert!(ask(&front, "GET /nothing").await.starts_with("HTTP/1.1 404"));
    let answer = ask(&front, "POST /v1/status").await;
    assert!(answer.starts_with("HTTP/1.1 405") && answer.contains("allow: GET, HEAD"), "{answer}");
    assert!(ask(&front, "HEAD /metrics").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn what_is_no_admin_listener_is_said_to_be_none() {
    let backend = Backend::text("hello").await;
    let error = fetch_status(backend.address).await.unwrap_err().to_string();
    assert!(error.contains("no document of that kind"), "{error}");
}
