//! New configurations while requests are under way.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests are named as sentences")]

mod support;

use std::sync::Arc;

use balancer::front::{Front, ReloadError};
use balancer::pool::{BackendId, State};
use support::*;
use tokio::net::TcpStream;
use tokio::sync::Semaphore;

/// The same listener in every configuration: port 0 stays what it became.
const LISTEN: &str = "listen: ['127.0.0.1:0']\n";

async fn get(front: &Front) -> String {
    Wire::connect(front).await.get("/").await.1
}

#[tokio::test]
async fn twenty_reloads_under_load_drop_no_request() {
    let (one, two) = (Backend::text("hello").await, Backend::text("hello").await);
    let site = Site::new();
    let both = format!("{LISTEN}backends: ['{}', '{}']", one.address, two.address);
    let single = format!("{LISTEN}backends: ['{}']\ntimeouts: {{response: 30s}}", one.address);
    let mut front = site.open(&both).await;
    let load = Load::start(front.listen()[0], 8);
    for round in 0..20 {
        let text = if round % 2 == 0 { &single } else { &both };
        assert_eq!(front.reload(site.config(text)).unwrap(), round + 2);
        tokio::time::sleep(SECOND / 20).await;
    }
    let outcome = load.stop().await;
    assert_eq!(outcome.failures, Vec::<String>::new());
    assert!(outcome.answered > 100, "{}", outcome.answered);
    assert_eq!(front.handles().reloads.taken(), 20);
    assert!(one.count() > 0 && two.count() > 0);
}

#[tokio::test]
async fn routes_and_pools_change_and_requests_under_way_end_by_the_old_ones() {
    let slow = Backend::serve(|_| async {
        tokio::time::sleep(SECOND / 2).await;
        ok("old")
    })
    .await;
    let fresh = Backend::text("new").await;
    let site = Site::new();
    let mut front = site.open(&format!("{LISTEN}backends: ['{}']", slow.address)).await;
    let mut wire = Wire::connect(&front).await;
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    tokio::time::sleep(SECOND / 10).await;
    let pools = format!("pools: {{fresh: {{backends: ['{}']}}}}\nroutes: [{{pool: fresh}}]", fresh.address);
    front.reload(site.config(&format!("{LISTEN}{pools}"))).unwrap();
    assert_eq!(get(&front).await, "new");
    assert_eq!(wire.answer().await.1, "old");
    assert_eq!(wire.get("/").await.1, "new", "over the same connection");
}

#[tokio::test]
async fn listeners_come_and_go_and_their_connections_go_on() {
    let backend = Backend::text("hello").await;
    let site = Site::new();
    let socket = site.path("web.sock");
    let backends = format!("backends: ['{}']", backend.address);
    let mut front = site.open(&format!("listen: ['127.0.0.1:0', 'unix:{socket}']\n{backends}")).await;
    let mut old = Wire::connect(&front).await;
    assert_eq!(old.get("/").await.1, "hello");
    let first = front.listen()[0];
    front.reload(site.config(&format!("listen: ['[::1]:0']\n{backends}"))).unwrap();
    assert_eq!(get(&front).await, "hello");
    assert!(front.listen()[0].is_ipv6() && front.listen().len() == 1);
    assert_eq!(old.get("/").await.1, "hello", "a connection that was open goes on");
    for _ in 0..100 {
        if TcpStream::connect(first).await.is_err() {
            break;
        }
        tokio::time::sleep(SECOND / 100).await;
    }
    assert!(TcpStream::connect(first).await.is_err(), "nothing listens there any more");
    assert!(!std::path::Path::new(&socket).exists());
}

#[tokio::test]
async fn certificates_are_replaced_without_a_new_listener() {
    let backend = Backend::text("hello").await;
    let site = Site::new();
    site.certificate("a.test");
    let tls =
        "listen: [{address: '127.0.0.1:0', tls: {certificates: [{chain: a.test.pem, key: a.test.key}]}}]\n";
    let text = format!("{tls}backends: ['{}']", backend.address);
    let mut front = site.open(&text).await;
    let port = front.listen()[0].port();
    let get = |roots: String| {
        let (resolve, url) = (format!("a.test:{port}:127.0.0.1"), format!("https://a.test:{port}/"));
        let mut curl = std::process::Command::new("curl");
        curl.args(["-sS", "--max-time", "10", "--cacert", &roots, "--resolve", &resolve, &url]);
        tokio::task::spawn_blocking(move || curl.output().unwrap().status.success())
    };
    std::fs::copy(site.path("a.test.pem"), site.path("old.pem")).unwrap();
    assert!(get(site.path("old.pem")).await.unwrap());
    site.certificate("a.test");
    front.reload(site.config(&text)).unwrap();
    assert_eq!(front.listen()[0].port(), port);
    assert!(get(site.path("a.test.pem")).await.unwrap());
    assert!(!get(site.path("old.pem")).await.unwrap());
}

#[tokio::test]
async fn what_cannot_change_is_refused_and_the_old_configuration_stays() {
    let backend = Backend::text("hello").await;
    let site = Site::new();
    let text = format!("{LISTEN}backends: ['{}']\n", backend.address);
    let mut front = site.open(&text).await;
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let elsewhere = format!("listen: ['{}']\nbackends: ['127.0.0.1:1']", taken.local_addr().unwrap());
    let error = front.reload(site.config(&elsewhere)).unwrap_err();
    assert!(matches!(error, ReloadError::Listen(_)), "{error}");
    let renamed =
        front.reload(site.config(&format!("{text}name: other\nupstream: {{http2: true}}"))).unwrap_err();
    assert_eq!(
        renamed.to_string(),
        "name: cannot be changed while running (restart flurry)\n\
         upstream: cannot be changed while running (restart flurry)"
    );
    assert_eq!(get(&front).await, "hello");
    let handles = front.handles();
    assert_eq!((handles.plan.load().generation, handles.reloads.refused()), (1, 2));
    assert!(handles.reloads.error().unwrap().contains("name"));
    front.reload(site.config(&text)).unwrap();
    assert_eq!((handles.reloads.taken(), handles.reloads.error()), (1, None));
}

/// A backend that answers once it is let.
async fn gated() -> (Backend, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let backend = Backend::serve(move |_| {
        let gate = Arc::clone(&opened);
        async move {
            gate.acquire().await.unwrap().forget();
            ok("hello")
        }
    })
    .await;
    (backend, gate)
}

#[tokio::test]
async fn a_configuration_that_is_rolled_back_during_a_drain_has_its_backend_again() {
    let ((slow, gate), other) = (gated().await, Backend::text("other").await);
    let site = Site::new();
    let old = format!("{LISTEN}backends: ['{}']", slow.address);
    let new = format!("{LISTEN}backends: ['{}']", other.address);
    let mut front = site.open(&old).await;
    let pool = front.handles().pool;
    let mut wire = Wire::connect(&front).await;
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually("it has a request", || slow.count() == 1).await;
    front.reload(site.config(&new)).unwrap();
    let id = BackendId::from(slow.address.to_string());
    let state = || pool.snapshot().get(&id).map(|backend| backend.state());
    eventually("it is draining", || state() == Some(State::Draining)).await;
    front.reload(site.config(&old)).unwrap();
    eventually("it is ready again", || state() == Some(State::Ready)).await;
    gate.add_permits(2);
    assert_eq!(wire.answer().await.1, "hello");
    eventually("the other one is gone", || pool.snapshot().all.len() == 1).await;
    assert_eq!((get(&front).await, state()), ("hello".to_owned(), Some(State::Ready)));
}

#[tokio::test]
async fn who_stands_in_line_for_a_pool_that_goes_is_still_served() {
    let ((slow, gate), other) = (gated().await, Backend::text("other").await);
    let site = Site::new();
    let backends = format!("{LISTEN}backends: ['{}']\n", other.address);
    let pools = format!("pools: {{a: {{backends: ['{}'], max_in_flight: 1}}}}\n", slow.address);
    let mut front = site.open(&format!("{backends}{pools}routes: [{{path: /a, pool: a}}]")).await;
    let plan = front.handles().plan.load_full();
    let pool = plan.pools().into_iter().find(|pool| pool.name() == "a").unwrap().clone();
    eventually("ready", || !pool.snapshot().ready.is_empty()).await;
    let mut wires = Vec::new();
    for _ in 0..4 {
        let mut wire = Wire::connect(&front).await;
        wire.send("GET /a HTTP/1.1\r\nHost: a\r\n\r\n").await;
        wires.push(wire);
    }
    eventually("three wait", || (pool.in_flight(), pool.queued()) == (1, 3)).await;
    front.reload(site.config(&backends)).unwrap();
    assert_eq!(Wire::connect(&front).await.get("/a").await.1, "other");
    gate.add_permits(4);
    for wire in &mut wires {
        assert_eq!(wire.answer().await.1, "hello");
    }
    eventually("the pool is empty", || pool.snapshot().all.is_empty()).await;
}
