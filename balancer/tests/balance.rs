//! Which backend gets a request, and what happens when there is none, or it fails.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests are named as sentences")]

mod support;

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;

use balancer::pool::{BackendId, Drained, State};
use balancer::pool::{BackendSpec, Initial};
use support::*;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn load_spreads_evenly_over_equal_backends() {
    let slow = |_| async {
        tokio::time::sleep(SECOND / 500).await;
        ok("hello")
    };
    let backends = [Backend::serve(slow).await, Backend::serve(slow).await, Backend::serve(slow).await];
    let addresses: Vec<_> = backends.iter().map(|it| it.address).collect();
    let front = ready_front(&addresses, "").await;
    let load = Load::start(front.listen()[0], 24);
    tokio::time::sleep(SECOND).await;
    let outcome = load.stop().await;
    assert!(outcome.failures.is_empty(), "{outcome:?}");
    let counts: Vec<u64> = backends.iter().map(Backend::count).collect();
    let mean = counts.iter().sum::<u64>() / 3;
    assert!(counts.iter().all(|count| count.abs_diff(mean) < mean / 10), "{counts:?}");
}

#[tokio::test]
async fn requests_wait_for_a_backend_to_be_born_and_are_released_by_it() {
    let front = front(&[], "").await;
    let mut wires = Vec::new();
    for _ in 0..5 {
        let mut wire = Wire::connect(&front).await;
        wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        wires.push(wire);
    }
    let pool = front.handles().pool;
    eventually("all wait", || pool.queued() == 5).await;
    let backend = Backend::text("hello").await;
    pool.insert(spec(backend.address)).unwrap();
    for wire in &mut wires {
        assert_eq!(wire.answer().await.1, "hello");
    }
}

#[tokio::test]
async fn who_waits_too_long_or_finds_the_queue_full_gets_503_with_retry_after() {
    let front = front(&[], "queue: {max_requests: 1, timeout: 300ms}").await;
    let mut first = Wire::connect(&front).await;
    first.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let pool = front.handles().pool;
    eventually("one waits", || pool.queued() == 1).await;
    let mut second = Wire::connect(&front).await;
    let (head, body) = second.get("/").await;
    assert!(head.starts_with("HTTP/1.1 503") && head.contains("retry-after: 1\r\n"), "{head}");
    assert_eq!(body, "too many requests are waiting for a backend\n");
    let (head, body) = first.answer().await;
    assert!(head.starts_with("HTTP/1.1 503") && head.contains("retry-after: 1\r\n"), "{head}");
    assert_eq!(body, "no backend became free in time\n");
    let (head, _) = first.get("/").await;
    assert!(head.starts_with("HTTP/1.1 503"), "the connection goes on: {head}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_never_has_more_requests_than_it_may() {
    let (now, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let seen = Arc::clone(&most);
    let backend = Backend::serve(move |_| {
        let (now, most) = (Arc::clone(&now), Arc::clone(&most));
        async move {
            most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
            tokio::time::sleep(SECOND / 200).await;
            now.fetch_sub(1, SeqCst);
            ok("hello")
        }
    })
    .await;
    let front = ready_front(&[backend.address], "max_in_flight: 3").await;
    let load = Load::start(front.listen()[0], 20);
    tokio::time::sleep(SECOND).await;
    let outcome = load.stop().await;
    assert!(outcome.failures.is_empty() && outcome.answered > 100, "{outcome:?}");
    assert_eq!(seen.load(SeqCst), 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backend_that_dies_costs_no_request() {
    let (stays, dies) = (Backend::text("hello").await, Backend::text("hello").await);
    let front = ready_front(&[stays.address, dies.address], "health: {interval: 10s}").await;
    let load = Load::start(front.listen()[0], 8);
    tokio::time::sleep(SECOND / 2).await;
    assert!(dies.count() > 0);
    drop(dies);
    tokio::time::sleep(SECOND / 2).await;
    let outcome = load.stop().await;
    assert!(outcome.failures.is_empty(), "{outcome:?}");
    let snapshot = front.handles().pool.snapshot();
    assert_eq!(snapshot.ready.len(), 1);
    assert_eq!(snapshot.ready[0].address().tcp(), Some(stays.address));
}

#[tokio::test]
async fn a_backend_that_comes_back_is_readmitted() {
    let backend = Backend::text("old").await;
    let address = backend.address;
    let front = ready_front(&[address], "").await;
    drop(backend);
    let pool = front.handles().pool;
    let state = || pool.snapshot().all[0].state();
    let mut wire = Wire::connect(&front).await;
    wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually("ejected", || state() == State::Ejected).await;
    let _backend = Backend::serve_at(address, |_| async { ok("new") }).await;
    assert_eq!(wire.answer().await.1, "new", "the request waited for it");
    assert_eq!(state(), State::Ready);
}

/// Answers one request per connection, then closes it without saying so.
async fn forgetful() -> std::net::SocketAddr {
    raw_backend(|mut stream: TcpStream, _| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
        let _ = read_head(&mut stream).await;
    })
    .await
}

#[tokio::test]
async fn a_kept_connection_that_turns_out_closed_costs_an_idempotent_request_nothing() {
    let address = forgetful().await;
    let front = ready_front(&[address], "").await;
    let mut wire = Wire::connect(&front).await;
    for _ in 0..20 {
        let (head, body) = wire.get("/").await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        assert_eq!(body, "ok");
    }
    assert_eq!(front.handles().pool.snapshot().all[0].state(), State::Ready, "no fault of the backend");
}

#[tokio::test]
async fn a_post_that_may_have_been_read_is_not_sent_twice() {
    let address = forgetful().await;
    let front = ready_front(&[address], "").await;
    let mut wire = Wire::connect(&front).await;
    wire.get("/").await;
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx").await;
    let (head, _) = wire.answer().await;
    assert!(head.starts_with("HTTP/1.1 502"), "{head}");
}

#[tokio::test]
async fn a_post_goes_over_another_connection_when_the_kept_one_is_known_to_be_closed() {
    let address = raw_backend(|mut stream: TcpStream, _| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
    })
    .await;
    let front = ready_front(&[address], "").await;
    let mut wire = Wire::connect(&front).await;
    for _ in 0..5 {
        wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx").await;
        let (head, _) = wire.answer().await;
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        tokio::time::sleep(SECOND / 20).await;
    }
}

#[tokio::test]
async fn retries_are_bounded_when_every_backend_breaks_off() {
    let tries = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&tries);
    let address = raw_backend(move |_stream, _| {
        counted.fetch_add(1, SeqCst);
        async {}
    })
    .await;
    let front = ready_front(&[address], "health: {eject_after: 1000000}").await;
    let mut answers = Vec::new();
    for _ in 0..200 {
        let mut wire = Wire::connect(&front).await;
        answers.push(wire.get("/").await.0);
    }
    assert!(answers.iter().all(|head| head.starts_with("HTTP/1.1 502")));
    let tries = tries.load(SeqCst);
    // 20 % of 200, and 10 a second for the few seconds that this takes.
    assert!((201..=200 + 40 + 100).contains(&tries), "{tries}");
}

#[tokio::test]
async fn a_backend_that_does_not_answer_in_time_is_504() {
    let address = raw_backend(|stream, _| async move {
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let front = ready_front(&[address], "timeouts: {response: 200ms}").await;
    let mut wire = Wire::connect(&front).await;
    let (head, _) = wire.get("/").await;
    assert!(head.starts_with("HTTP/1.1 504") && head.contains("connection: close"), "{head}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_request_is_lost_while_backends_come_and_go() {
    let slow = |_| async {
        tokio::time::sleep(SECOND / 300).await;
        ok("hello")
    };
    let first = Backend::serve(slow).await;
    let front = ready_front(&[first.address], "").await;
    let pool = front.handles().pool;
    let load = Load::start(front.listen()[0], 16);
    let mut current = first;
    for round in 0..20 {
        let next = Backend::serve(slow).await;
        pool.insert(spec(next.address)).unwrap();
        pool.wait_ready(&BackendId::from(next.address.to_string())).await.unwrap();
        let id = BackendId::from(current.address.to_string());
        let drained = pool.drain(&id, 5 * SECOND).await.unwrap();
        assert_eq!(drained, Drained::Empty, "round {round}");
        // Gone with all its connections, as a killed VM is.
        drop(std::mem::replace(&mut current, next));
        pool.remove(&id).unwrap();
        tokio::time::sleep(SECOND / 20).await;
    }
    let outcome = load.stop().await;
    assert!(outcome.failures.is_empty(), "{:?}", &outcome.failures[..outcome.failures.len().min(5)]);
    assert!(outcome.answered > 1000, "{}", outcome.answered);
}

#[tokio::test]
async fn removing_a_backend_cuts_the_request_it_never_answers() {
    let address = raw_backend(|stream, _| async move {
        tokio::time::sleep(60 * SECOND).await;
        drop(stream);
    })
    .await;
    let front = ready_front(&[address], "timeouts: {idle: 400ms}").await;
    let pool = front.handles().pool;
    let mut wire = Wire::connect(&front).await;
    wire.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n").await;
    eventually("in flight", || pool.in_flight() == 1).await;
    let id = BackendId::from(address.to_string());
    assert_eq!(pool.drain(&id, SECOND / 20).await, Ok(Drained::DeadlinePassed { in_flight: 1 }));
    pool.remove(&id).unwrap();
    let (head, _) = wire.answer().await;
    assert!(head.starts_with("HTTP/1.1 502"), "{head}");
}

#[tokio::test]
async fn idle_connections_to_a_removed_backend_are_closed() {
    let (ended, mut end) = tokio::sync::mpsc::unbounded_channel();
    let address = raw_backend(move |mut stream: TcpStream, _| {
        let ended = ended.clone();
        async move {
            stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
            ended.send(read_head(&mut stream).await.is_none()).unwrap();
        }
    })
    .await;
    let front = ready_front(&[address], "").await;
    let mut wire = Wire::connect(&front).await;
    assert_eq!(wire.get("/").await.1, "ok");
    let pool = front.handles().pool;
    let id = BackendId::from(address.to_string());
    assert_eq!(pool.drain(&id, SECOND).await, Ok(Drained::Empty));
    pool.remove(&id).unwrap();
    let closed = tokio::time::timeout(SECOND / 2, end.recv()).await.expect("closed at once");
    assert_eq!(closed, Some(true));
}

#[tokio::test]
async fn who_stands_in_line_for_too_long_is_answered_without_blaming_a_backend() {
    let (backend, gate) = gated("hello").await;
    let extra = "max_in_flight: 1
routes: [{path: /quick, response_timeout: 200ms}]
queue: {timeout: 60s}
health: {eject_after: 1, interval: 60s}";
    let front = ready_front(&[backend.address], extra).await;
    let pool = front.handles().pool;
    let mut busy = Wire::connect(&front).await;
    busy.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    eventually("the backend is busy", || pool.in_flight() == 1).await;
    let mut wires = Vec::new();
    for _ in 0..10 {
        let mut wire = Wire::connect(&front).await;
        wire.send("GET /quick HTTP/1.1\r\nHost: a\r\n\r\n").await;
        wires.push(wire);
    }
    for wire in &mut wires {
        let (head, body) = wire.answer().await;
        assert!(head.starts_with("HTTP/1.1 503"), "{head}");
        assert_eq!(body, "no backend became free in time\n");
    }
    assert_eq!((pool.snapshot().all[0].state(), backend.count()), (State::Ready, 1));
    gate.add_permits(1);
    assert_eq!(busy.answer().await.1, "hello");
}

/// Answers nobody well, not even a probe: with nothing, or with 500.
async fn unwell(answer: &'static [u8]) -> std::net::SocketAddr {
    listener(move |mut stream: TcpStream| async move {
        while read_head(&mut stream).await.is_some() {
            stream.write_all(answer).await.unwrap();
        }
    })
    .await
}

#[tokio::test]
async fn a_first_request_that_a_new_backend_does_not_serve_well_goes_back_into_the_line() {
    let well = Backend::text("hello").await;
    for answer in [&b""[..], b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n"] {
        let front = front(&[], "health: {timeout: 100ms}").await;
        let pool = front.handles().pool;
        let mut wire = Wire::connect(&front).await;
        wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        eventually("it waits", || pool.queued() == 1).await;
        let trial = BackendSpec { initial: Initial::Trial, ..spec(unwell(answer).await) };
        let backend = pool.insert(trial).unwrap();
        eventually("it was tried", || backend.requests() == 1).await;
        eventually("it waits again", || pool.queued() == 1).await;
        assert_eq!((backend.state(), backend.failed()), (State::Probing, 0));
        pool.insert(spec(well.address)).unwrap();
        assert_eq!(wire.answer().await.1, "hello");
    }
}
