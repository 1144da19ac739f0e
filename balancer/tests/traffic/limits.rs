//! Rates, connections of one client, priorities in the line, retry budgets of routes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

use crate::support::*;
use crate::{curl, metric, open};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

fn one(address: SocketAddr) -> String {
    format!("backends: ['{address}']\n")
}

#[tokio::test]
async fn one_request_too_many_is_told_when_to_come_again() {
    let backend = Backend::text("hello").await;
    let site = Site::new();
    let text = format!(
        "{}rate_limits: [{{requests: 1000, per: 1s}}]\nroutes: [{{name: login, path: /login, rate_limits: \
         [{{name: tries, by: client, requests: 3, per: 10m}}]}}]\n",
        one(backend.address)
    );
    let mut front = open(&site, &text, &[backend.address]).await;
    let url = format!("http://{}", front.listen()[0]);
    let codes = |path: &'static str, count: usize| {
        let url = format!("{url}{path}");
        async move {
            let mut codes = Vec::new();
            for _ in 0..count {
                codes.push(curl(&["-o", "/dev/null", "-w", "%{http_code}", &url]).await);
            }
            codes
        }
    };
    assert_eq!(codes("/login", 4).await, ["200", "200", "200", "429"]);
    assert_eq!(codes("/", 6).await, ["200"; 6], "other routes are free");
    let refused = curl(&["-i", &format!("{url}/login")]).await;
    assert!(refused.contains("ratelimit-policy: \"tries\";q=3;w=600\r\n"), "{refused}");
    assert!(refused.contains("ratelimit: \"tries\";r=0;t="), "{refused}");
    let wait = refused.lines().find_map(|line| line.strip_prefix("retry-after: ")).unwrap();
    assert!((190..=200).contains(&wait.parse::<u64>().unwrap()), "{refused}");
    let series = "flurry_rate_limited_requests_total{limit=\"tries\",route=\"login\"}";
    assert_eq!(metric(&front, series).await, 2.0);
    assert_eq!(backend.count(), 9, "what is refused reaches nobody");

    // A new configuration with the same limit does not fill its buckets.
    front.reload(site.config(&format!("listen: ['127.0.0.1:0']\n{text}"))).unwrap();
    let moved = format!("http://{}/login", front.listen()[0]);
    assert_eq!(curl(&["-o", "/dev/null", "-w", "%{http_code}", &moved]).await, "429");
}

#[tokio::test]
async fn clients_behind_a_trusted_proxy_have_limits_of_their_own_and_others_cannot_pretend() {
    let backend = Backend::text("hello").await;
    let limit = "rate_limits: [{by: client, requests: 1, per: 1h}]";
    let ask = |from: &str| format!("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: {from}\r\n\r\n");
    for (trusted, expected) in
        [("", ["200", "429", "429"]), ("trusted_proxies: [127.0.0.1]", ["200", "200", "429"])]
    {
        let front = ready_front(&[backend.address], &format!("{limit}\n{trusted}")).await;
        let mut wire = Wire::connect(&front).await;
        for (from, status) in ["10.0.0.1", "10.0.0.2", "10.9.9.9, 10.0.0.2"].into_iter().zip(expected) {
            wire.send(ask(from)).await;
            let (head, _) = wire.answer().await;
            assert!(head.starts_with(&format!("HTTP/1.1 {status}")), "{trusted} {from}: {head}");
        }
    }
}

#[tokio::test]
async fn a_client_has_only_so_many_connections() {
    let backend = Backend::text("hello").await;
    let front = ready_front(&[backend.address], "connections_per_client: 2").await;
    let (mut first, mut second) = (Wire::connect(&front).await, Wire::connect(&front).await);
    first.get("/").await;
    second.get("/").await;
    let mut third = TcpStream::connect(front.listen()[0]).await.unwrap();
    let mut bytes = Vec::new();
    let closed = tokio::time::timeout(5 * SECOND, third.read_to_end(&mut bytes)).await.expect("in time");
    assert!(closed.is_err() || bytes.is_empty());
    assert_eq!(metric(&front, "flurry_connections_over_client_limit_total").await, 1.0);
    drop(first);
    let answered = || async {
        let mut stream = TcpStream::connect(front.listen()[0]).await.unwrap();
        let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        let mut answer = Vec::new();
        let sent = tokio::io::AsyncWriteExt::write_all(&mut stream, request).await.is_ok();
        sent && stream.read_to_end(&mut answer).await.is_ok() && answer.starts_with(b"HTTP/1.1 200")
    };
    for _ in 0..100 {
        if answered().await {
            return;
        }
        tokio::time::sleep(SECOND / 50).await;
    }
    panic!("a closed connection makes room for another");
}

/// A backend that answers one request at a time when it is told to, and notes their paths.
async fn gated(gate: &Arc<tokio::sync::Semaphore>, order: &Arc<std::sync::Mutex<Vec<String>>>) -> Backend {
    let (gate, order) = (Arc::clone(gate), Arc::clone(order));
    Backend::serve(move |request| {
        let (gate, order) = (Arc::clone(&gate), Arc::clone(&order));
        async move {
            order.lock().unwrap().push(request.uri().path().to_owned());
            gate.acquire().await.unwrap().forget();
            ok("done")
        }
    })
    .await
}

#[tokio::test]
async fn the_more_important_go_first_by_route_and_by_header() {
    let (gate, order) = (Arc::new(tokio::sync::Semaphore::new(0)), Arc::default());
    let backend = gated(&gate, &order).await;
    let site = Site::new();
    let text = format!(
        "{}max_in_flight: 1\nqueue: {{max_requests: 3, priority_header: x-priority}}\nroutes:\n\
         \x20 - {{path: /pay, priority: high}}\n\x20 - {{path: /hurry, queue_timeout: 50ms}}\n",
        one(backend.address)
    );
    let front = open(&site, &text, &[backend.address]).await;
    let pool = front.handles().pool;
    let mut wires = Vec::new();
    for (index, (path, priority)) in
        [("/first", "normal"), ("/report", "low"), ("/page", "what"), ("/tick", "HIGH")].iter().enumerate()
    {
        let mut wire = Wire::connect(&front).await;
        wire.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\nX-Priority: {priority}\r\n\r\n")).await;
        wires.push(wire);
        match index {
            0 => eventually("the first is served", || order.lock().unwrap().len() == 1).await,
            _ => eventually("it waits", || pool.queued() == index).await,
        }
    }
    // The line is full. Nobody is less important than a low one; a payment takes the place of it.
    let mut late = Wire::connect(&front).await;
    late.send("GET /late HTTP/1.1\r\nHost: a\r\nX-Priority: low\r\n\r\n").await;
    assert!(late.answer().await.0.starts_with("HTTP/1.1 503"));
    let mut pay = Wire::connect(&front).await;
    pay.send("GET /pay HTTP/1.1\r\nHost: a\r\nX-Priority: low\r\n\r\n").await;
    let (head, text) = wires[1].answer().await;
    assert!(head.starts_with("HTTP/1.1 503") && text.contains("more important"), "{head}{text}");
    gate.add_permits(10);
    assert_eq!(pay.answer().await.1, "done");
    wires[2].answer().await;
    assert_eq!(*order.lock().unwrap(), ["/first", "/tick", "/pay", "/page"]);
}

#[tokio::test]
async fn a_route_has_a_wait_of_its_own() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let backend = gated(&gate, &Arc::default()).await;
    let site = Site::new();
    let text = format!(
        "{}max_in_flight: 1\nroutes: [{{path: /hurry, queue_timeout: 50ms}}]\n",
        one(backend.address)
    );
    let front = open(&site, &text, &[backend.address]).await;
    let mut first = Wire::connect(&front).await;
    first.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually("it is served", || backend.count() == 1).await;
    let (head, text) = Wire::connect(&front).await.get("/hurry").await;
    assert!(head.starts_with("HTTP/1.1 503") && text.contains("in time"), "{head}{text}");
}

#[tokio::test]
async fn a_route_without_retries_sends_nothing_twice() {
    let seen = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&seen);
    let breaks = raw_backend(move |stream, _head| {
        let count = Arc::clone(&count);
        async move {
            count.fetch_add(1, SeqCst);
            drop(stream);
        }
    })
    .await;
    let site = Site::new();
    let text = format!(
        "{}health: {{eject_after: 1000}}\nroutes: [{{path: /once, retries: {{share: 0%, per_second: 0}}}}]\n",
        one(breaks)
    );
    let front = open(&site, &text, &[breaks]).await;
    let mut tries = Vec::new();
    for path in ["/once", "/more"] {
        let before = seen.load(SeqCst);
        let (head, _) = Wire::connect(&front).await.get(path).await;
        assert!(head.starts_with("HTTP/1.1 502"), "{head}");
        tries.push(seen.load(SeqCst) - before);
    }
    assert!(tries[0] == 1 && tries[1] > 1, "{tries:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_limit_that_is_found_out_keeps_the_wait_out_of_the_backend() {
    let places = Arc::new(tokio::sync::Semaphore::new(4));
    let backend = Backend::serve(move |_| {
        let places = Arc::clone(&places);
        async move {
            let _place = places.acquire().await.unwrap();
            tokio::time::sleep(SECOND / 25).await;
            ok("hello")
        }
    })
    .await;
    let front = ready_front(&[backend.address], "adaptive_concurrency: {min: 2, max: 200}").await;
    let pool = front.handles().pool;
    let limit = || pool.snapshot().all[0].limit().unwrap();
    assert_eq!(limit(), 2);
    let load = Load::start(front.listen()[0], 100);
    eventually("it is known what is quick", || limit() > 16).await;
    // It settles at 11 where answers take as long as the backend does; on a busy machine they take longer.
    eventually("what waits does not wait in the backend", || (4..=16).contains(&limit())).await;
    assert!(pool.queued() > 50, "{} wait", pool.queued());
    let series = format!("flurry_backend_max_in_flight{{pool=\"default\",backend=\"{}\"}}", backend.address);
    let shown = metric(&front, &series).await;
    assert!((2.0..=20.0).contains(&shown), "{shown}");
    let outcome = load.stop().await;
    assert!(outcome.failures.is_empty() && outcome.answered > 100, "{outcome:?}");
}
