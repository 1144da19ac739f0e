//! Backends that answer badly sit out for a while.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;

use balancer::admin::fetch_status;
use balancer::pool::State;
use http::{Response, StatusCode};

use crate::metric;
use crate::support::*;

/// A backend that answers 500 while `bad`.
async fn moody(bad: &Arc<AtomicBool>) -> Backend {
    let bad = Arc::clone(bad);
    Backend::serve(move |_| {
        let bad = bad.load(SeqCst);
        async move {
            match bad {
                true => {
                    Response::builder().status(StatusCode::INTERNAL_SERVER_ERROR).body("oh".into()).unwrap()
                }
                false => ok("fine"),
            }
        }
    })
    .await
}

#[tokio::test]
async fn a_backend_that_answers_errors_sits_out_is_shown_and_returns() {
    let bad = Arc::new(AtomicBool::new(true));
    let backends = [moody(&bad).await, Backend::text("fine").await, Backend::text("fine").await];
    let addresses: Vec<_> = backends.iter().map(|it| it.address).collect();
    let extra = "outliers: {consecutive_errors: 3, ejection_time: 1s}\nbalance: {policy: round_robin}\nhealth: {interval: 50ms}";
    let front = ready_front(&addresses, extra).await;
    let mut wire = Wire::connect(&front).await;
    let mut errors = 0;
    for _ in 0..30 {
        errors += u32::from(wire.get("/").await.0.starts_with("HTTP/1.1 500"));
    }
    assert_eq!(errors, 3, "then it sits out");
    let status = fetch_status(front.admin()).await.unwrap();
    let shown = status.backends.iter().find(|it| it.address == addresses[0].to_string()).unwrap();
    assert_eq!((shown.state.as_str(), shown.circuit.state.as_str()), ("ejected", "open"), "{shown:?}");
    assert_eq!(shown.circuit.reason.as_deref(), Some("errors"));
    assert!(shown.circuit.seconds_left.is_some_and(|left| left > 0.0 && left <= 1.0), "{shown:?}");
    let labels = format!("{{pool=\"default\",backend=\"{}\"", addresses[0]);
    assert_eq!(metric(&front, &format!("flurry_backend_circuit_open{labels}}}")).await, 1.0);
    let ejections = format!("flurry_outlier_ejections_total{labels},reason=\"errors\"}}");
    assert_eq!(metric(&front, &ejections).await, 1.0);

    // Probes go well all the time; they let it in only when its time is over.
    bad.store(false, SeqCst);
    let pool = front.handles().pool;
    eventually("it is back", || pool.snapshot().ready.len() == 3).await;
    let status = fetch_status(front.admin()).await.unwrap();
    assert!(status.backends.iter().all(|it| it.circuit.state == "closed"), "{status:?}");
}

#[tokio::test]
async fn the_last_backends_stay_however_badly_they_answer() {
    let bad = Arc::new(AtomicBool::new(true));
    let backends = [moody(&bad).await, moody(&bad).await];
    let addresses: Vec<_> = backends.iter().map(|it| it.address).collect();
    let front = ready_front(&addresses, "outliers: {consecutive_errors: 2, max_ejected: 100%}").await;
    let mut wire = Wire::connect(&front).await;
    for _ in 0..40 {
        assert!(wire.get("/").await.0.starts_with("HTTP/1.1 500"), "an answer, not a wait");
    }
    assert_eq!(front.handles().pool.snapshot().ready.len(), 1);
    assert!(metric(&front, "flurry_outliers_spared_total{pool=\"default\"}").await >= 1.0);
}

#[tokio::test]
async fn clients_that_leave_eject_nobody() {
    let slow = |_| async {
        tokio::time::sleep(10 * SECOND).await;
        ok("late")
    };
    let backends = [Backend::serve(slow).await, Backend::serve(slow).await];
    let addresses: Vec<_> = backends.iter().map(|it| it.address).collect();
    let extra = "outliers: {consecutive_errors: 1, consecutive_gateway_errors: 1}";
    let front = ready_front(&addresses, extra).await;
    for _ in 0..10 {
        let mut wire = Wire::connect(&front).await;
        wire.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let came: u64 = backends.iter().map(Backend::count).sum();
        eventually("it came to a backend", || backends.iter().map(Backend::count).sum::<u64>() > came).await;
    }
    let pool = front.handles().pool;
    eventually("all requests are gone", || pool.in_flight() == 0).await;
    assert!(pool.snapshot().all.iter().all(|it| it.state() == State::Ready && it.failed() == 0));
}
