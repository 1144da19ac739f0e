//! The access log.

use std::path::PathBuf;

use balancer::front::{Front, ReloadError};
use http::{Response, StatusCode};
use http_body_util::{BodyExt, Full};
use serde_json::Value;

use super::admin;
use super::support::*;

const LISTEN: &str = "listen: ['127.0.0.1:0']\n";

/// A folder with a log in it.
struct Logged {
    site: Site,
    path: PathBuf,
}

impl Logged {
    fn new() -> Self {
        let site = Site::new();
        let path = site.path("access.log").into();
        Self { site, path }
    }

    /// A front door that writes the log; `keys` are more of its section.
    async fn open(&self, backend: &Backend, keys: &str, more: &str) -> Front {
        self.site.open(&self.text(backend, keys, more)).await
    }

    fn text(&self, backend: &Backend, keys: &str, more: &str) -> String {
        let log = format!("access_log: {{path: access.log{keys}}}");
        format!("{LISTEN}backends: ['{}']\n{log}\n{more}", backend.address)
    }

    /// So many lines, which come in time.
    async fn lines(&self, count: usize) -> Vec<String> {
        lines(&self.path, count).await
    }

    async fn json(&self, count: usize) -> Vec<Value> {
        self.lines(count).await.iter().map(|line| serde_json::from_str(line).unwrap()).collect()
    }
}

async fn lines(path: &std::path::Path, count: usize) -> Vec<String> {
    let read = || std::fs::read_to_string(path).unwrap_or_default();
    eventually("all lines are there", || read().matches('\n').count() >= count).await;
    read().lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn each_request_is_a_line_with_what_became_of_it_and_no_secret() {
    let backend = Backend::serve(|request| async {
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Response::new(Full::new(body))
    })
    .await;
    let logged = Logged::new();
    let front = logged.open(&backend, "", "").await;
    let mut wire = Wire::connect(&front).await;
    let head = "POST /buy?card=1 HTTP/1.1\r\nHost: shop.test\r\nUser-Agent: test/1\r\nReferer: http://x/\r\n";
    wire.send(format!("{head}Cookie: secret=1\r\nAuthorization: secret\r\nContent-Length: 6\r\n\r\nsecret"))
        .await;
    assert_eq!(wire.answer().await.1, "secret");
    wire.send("GET / HTTP/1.1\r\n\r\n").await;
    wire.rest().await;
    let lines = logged.json(2).await;
    let line = &lines[0];
    for (key, value) in [
        ("client", "127.0.0.1"),
        ("method", "POST"),
        ("host", "shop.test"),
        ("target", "/buy?card=1"),
        ("protocol", "HTTP/1.1"),
        ("backend", &backend.address.to_string()),
        ("route", "default"),
        ("ending", "answered"),
        ("user_agent", "test/1"),
        ("referer", "http://x/"),
    ] {
        assert_eq!(line[key], value, "{key} of {line}");
    }
    for (key, value) in [("status", 200), ("bytes_in", 6), ("bytes_out", 6), ("tries", 1), ("queue_us", 0)] {
        assert_eq!(line[key], value, "{key} of {line}");
    }
    assert!(line["upstream_us"].as_u64() <= line["duration_us"].as_u64(), "{line}");
    assert!(line.get("why").is_none() && !line.to_string().contains("secret"), "{line}");
    assert_eq!((&lines[1]["status"], &lines[1]["why"]), (&400.into(), &"Host is missing".into()));
    let page = admin(&front, "/metrics", "").await;
    assert!(page.contains("flurry_access_log_lines_total{result=\"written\"} 2\n"), "{page}");
}

#[tokio::test]
async fn tries_and_waits_are_told() {
    let (slow, gate) = gated("hello").await;
    let logged = Logged::new();
    let front = logged.open(&slow, ", query: false", "max_in_flight: 1\nqueue: {timeout: 100ms}").await;
    let mut first = Wire::connect(&front).await;
    first.send("GET /?a HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually("it arrived", || slow.count() == 1).await;
    assert!(Wire::connect(&front).await.get("/second?b").await.0.starts_with("HTTP/1.1 503"));
    gate.add_permits(1);
    first.answer().await;
    let lines = logged.json(2).await;
    assert_eq!((&lines[0]["status"], &lines[0]["tries"]), (&503.into(), &0.into()));
    assert_eq!((&lines[0]["target"], &lines[1]["target"]), (&"/second".into(), &"/".into()));
    assert_eq!(lines[0]["why"], "no backend became free in time");
    assert!(lines[0]["queue_us"].as_u64() >= Some(50_000), "{}", lines[0]);
    assert!(lines[0].get("backend").is_none());
}

#[tokio::test]
async fn a_request_that_needed_two_backends_and_one_that_was_given_up_say_so() {
    let breaks = raw_backend(|_stream, _head| async {}).await;
    let backend = Backend::text("hello").await;
    let logged = Logged::new();
    let text = logged.text(&backend, "", "balance: {policy: round_robin}");
    let text = text.replace("backends: [", &format!("backends: ['{breaks}', "));
    let front = logged.site.open(&text).await;
    let pool = front.handles().pool;
    eventually("both are ready", || pool.snapshot().ready.len() == 2).await;
    for _ in 0..2 {
        assert_eq!(Wire::connect(&front).await.get("/").await.1, "hello");
    }
    let lines = logged.json(2).await;
    assert!(lines.iter().any(|line| line["tries"] == 2), "{lines:?}");
    assert!(lines.iter().all(|line| line["backend"] == backend.address.to_string()), "{lines:?}");
    let (slow, _gate) = gated("never").await;
    let logged = Logged::new();
    let front = logged.open(&slow, ", format: combined", "").await;
    let mut wire = Wire::connect(&front).await;
    wire.send("GET /left HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually("it arrived", || slow.count() == 1).await;
    drop(wire);
    let line = &logged.lines(1).await[0];
    assert!(
        line.starts_with("127.0.0.1 - - [") && line.ends_with("\"GET /left HTTP/1.1\" 499 0 \"-\" \"-\""),
        "{line}"
    );
}

#[tokio::test]
async fn a_log_that_is_moved_away_is_begun_anew() {
    let backend = Backend::text("hello").await;
    let logged = Logged::new();
    let mut front = logged.open(&backend, "", "").await;
    let mut wire = Wire::connect(&front).await;
    wire.get("/1").await;
    logged.lines(1).await;
    let moved = logged.path.with_extension("1");
    std::fs::rename(&logged.path, &moved).unwrap();
    front.reload(logged.site.config(&logged.text(&backend, "", ""))).unwrap();
    eventually("there is a new file", || logged.path.exists()).await;
    wire.get("/2").await;
    assert_eq!(logged.json(1).await[0]["target"], "/2");
    std::fs::rename(&logged.path, logged.path.with_extension("2")).unwrap();
    wire.get("/3").await;
    assert_eq!(logged.json(1).await[0]["target"], "/3");
    assert_eq!(std::fs::read_to_string(moved).unwrap().lines().count(), 1);
}

#[tokio::test]
async fn the_log_is_complete_at_the_end_and_changes_with_the_configuration() {
    let backend = Backend::text("hello").await;
    let logged = Logged::new();
    let mut front = logged.open(&backend, "", "").await;
    let mut wire = Wire::connect(&front).await;
    for _ in 0..50 {
        wire.get("/").await;
    }
    let nowhere = logged.text(&backend, "", "").replace("access.log", "none/access.log");
    let refused = front.reload(logged.site.config(&nowhere)).unwrap_err();
    assert!(matches!(refused, ReloadError::Account(_)), "{refused}");
    assert!(refused.to_string().starts_with("access_log.path: cannot open "), "{refused}");
    front.reload(logged.site.config(&logged.text(&backend, ", format: combined", ""))).unwrap();
    for _ in 0..50 {
        wire.get("/").await;
    }
    drop(wire);
    front.close().await;
    let lines = logged.lines(100).await;
    assert_eq!(lines.iter().filter(|line| line.starts_with('{')).count(), 50);
}

#[tokio::test]
async fn lines_that_nobody_takes_are_dropped_and_counted_and_requests_go_on() {
    let backend = Backend::text("hello").await;
    let logged = Logged::new();
    // Whoever opens a pipe to write waits for a reader; this one reads nothing.
    nix::unistd::mkfifo(&logged.path, nix::sys::stat::Mode::S_IRWXU).unwrap();
    let reader = std::fs::OpenOptions::new().read(true).write(true).open(&logged.path).unwrap();
    let front = logged.open(&backend, ", max_waiting: 4", "").await;
    let mut wire = Wire::connect(&front).await;
    for _ in 0..1000 {
        assert!(wire.get("/").await.0.starts_with(&format!("HTTP/1.1 {}", StatusCode::OK.as_u16())));
    }
    let page = admin(&front, "/metrics", "").await;
    let series = "flurry_access_log_lines_total{result=\"dropped\"} ";
    let dropped = page.lines().find_map(|line| line.strip_prefix(series)).unwrap();
    assert!(dropped.parse::<f64>().unwrap() > 0.0, "{page}");
    drop(reader);
}

#[tokio::test]
async fn a_tunnel_is_a_line_at_its_end_with_the_bytes_of_both_ways() {
    let (logged, backend) = (Logged::new(), Backend::text("hello").await);
    let echo = listener(|mut stream| async move {
        let (mut from, mut to) = stream.split();
        let _ = tokio::io::copy(&mut from, &mut to).await;
    })
    .await;
    let route = "routes: [{name: out, connect: {to: ['*:*'], networks: [127.0.0.0/8]}}]";
    let front = logged.open(&backend, "", route).await;
    let mut wire = Wire::connect(&front).await;
    wire.send(format!("CONNECT {echo} HTTP/1.1\r\nHost: {echo}\r\n\r\n1234")).await;
    assert!(wire.head().await.starts_with("HTTP/1.1 200"));
    wire.send("56789").await;
    let mut back = [0; 9];
    tokio::io::AsyncReadExt::read_exact(&mut wire.0, &mut back).await.unwrap();
    assert_eq!(Wire::connect(&front).await.get("/").await.1, "hello");
    let lines = logged.json(1).await;
    assert_eq!((lines.len(), &lines[0]["method"]), (1, &Value::from("GET")), "the tunnel goes on");
    drop(wire);
    let line = logged.json(2).await.pop().unwrap();
    for (key, value) in [
        ("method", Value::from("CONNECT")),
        ("status", Value::from(200)),
        ("route", Value::from("out")),
        ("bytes_in", Value::from(9)),
        ("bytes_out", Value::from(9)),
        ("ending", Value::from("answered")),
    ] {
        assert_eq!(line[key], value, "{key} of {line}");
    }
    let page = admin(&front, "/metrics", "").await;
    assert!(page.contains("flurry_tunnel_bytes_total{direction=\"sent\"} 9\n"), "{page}");
    assert!(page.contains("flurry_tunnel_bytes_total{direction=\"received\"} 9\n"), "{page}");
}
