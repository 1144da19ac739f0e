//! A second backend is asked when the first one takes too long.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;

use super::*;

/// A backend that answers with `text` after a time, once it is told to be slow.
async fn slow_on_demand(text: &'static str, slow: Arc<AtomicBool>) -> Backend {
    Backend::serve(move |_| {
        let slow = Arc::clone(&slow);
        async move {
            if slow.load(SeqCst) {
                tokio::time::sleep(30 * SECOND).await;
            }
            ok(text)
        }
    })
    .await
}

/// Two backends of which the first is asked first, because it is by far the heavier one.
async fn two(route: &str) -> (Front, Arc<AtomicBool>, Backend, Backend) {
    let slow = Arc::new(AtomicBool::new(false));
    let (first, second) = (slow_on_demand("first", Arc::clone(&slow)).await, Backend::text("second").await);
    let front = open([first.address, second.address], route).await;
    (front, slow, first, second)
}

/// Asks `first` nearly always, by turns.
async fn open([first, second]: [SocketAddr; 2], route: &str) -> Front {
    let text = format!(
        "listen: ['127.0.0.1:0']\nbalance: {{policy: round_robin}}\nbackends: [{{address: '{first}', weight: 200}}, '{second}']\nroutes: [{{name: hedged, path: /, {route}}}]"
    );
    let front = Site::new().open(&text).await;
    eventually("both are ready", || front.handles().pool.snapshot().ready.len() == 2).await;
    front
}

async fn ask(front: &Front, method: &str, body: &str) -> String {
    let mut wire = Wire::connect(front).await;
    let length = body.len();
    wire.send(format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: {length}\r\n\r\n{body}")).await;
    let answer = tokio::time::timeout(10 * SECOND, wire.answer()).await;
    answer.map_or_else(|_| "nothing".to_owned(), |(_, body)| body)
}

fn in_flight(front: &Front) -> u64 {
    front.handles().pool.in_flight()
}

#[tokio::test]
async fn a_second_backend_answers_for_one_that_does_not_and_its_place_is_free_again() {
    let (front, slow, _first, _second) = two("hedge: {after: 50ms}").await;
    assert_eq!(ask(&front, "GET", "").await, "first");
    assert_eq!(metric(&front, "flurry_hedges_total").await, 0.0);
    slow.store(true, SeqCst);
    for _ in 0..3 {
        assert_eq!(ask(&front, "GET", "").await, "second");
    }
    assert!(metric(&front, "flurry_hedges_total").await >= 1.0);
    assert_eq!(
        metric(&front, "flurry_hedges_won_total").await,
        metric(&front, "flurry_hedges_total").await,
        "the first one never answered"
    );
    eventually("all places are free", || in_flight(&front) == 0).await;
}

#[tokio::test]
async fn what_must_not_be_sent_twice_and_what_the_budget_forbids_waits_for_the_first() {
    let (front, slow, _first, second) =
        two("hedge: {after: 50ms}, response_timeout: 1s, retries: {share: 0%, per_second: 0}").await;
    slow.store(true, SeqCst);
    assert_eq!(ask(&front, "GET", "").await, "the backend did not answer in time\n");
    assert_eq!(metric(&front, "flurry_hedges_denied_total").await, 1.0);
    assert_eq!(second.count(), 0);
    let (front, slow, _first, second) = two("hedge: {after: 50ms}, response_timeout: 1s").await;
    slow.store(true, SeqCst);
    assert_eq!(ask(&front, "POST", "").await, "the backend did not answer in time\n");
    assert_eq!(ask(&front, "PUT", "body").await, "the backend did not answer in time\n");
    assert_eq!((second.count(), metric(&front, "flurry_hedges_total").await), (0, 0.0));
}

#[tokio::test]
async fn an_error_of_the_second_backend_does_not_win_over_a_first_that_is_late() {
    let late = Backend::serve(|_| async {
        tokio::time::sleep(SECOND / 2).await;
        ok("late")
    })
    .await;
    let broken = Backend::serve(|_| async {
        let mut answer = ok("broken");
        *answer.status_mut() = http::StatusCode::INTERNAL_SERVER_ERROR;
        answer
    })
    .await;
    let front = open([late.address, broken.address], "hedge: {after: 20ms}").await;
    assert_eq!(ask(&front, "GET", "").await, "late");
    assert_eq!(broken.count(), 1);
    assert_eq!(metric(&front, "flurry_hedges_won_total").await, 0.0);
    eventually("all places are free", || in_flight(&front) == 0).await;
}
