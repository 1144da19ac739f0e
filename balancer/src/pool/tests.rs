//! The pool with real sockets on loopback, and the queue.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
const OK: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
const UNWELL: &[u8] = b"HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n";

/// A backend that answers every request; `well` decides how.
async fn answering(listener: TcpListener, well: Arc<AtomicBool>) {
    loop {
        let Ok((mut stream, _)) = listener.accept().await else { return };
        let well = Arc::clone(&well);
        tokio::spawn(async move {
            let mut bytes = [0; 4096];
            while stream.read(&mut bytes).await.is_ok_and(|n| n > 0) {
                let answer = if well.load(SeqCst) { OK } else { UNWELL };
                if stream.write_all(answer).await.is_err() {
                    return;
                }
            }
        });
    }
}

fn pool(health: HealthSettings, queue: QueueSettings, max_in_flight: Option<u32>) -> Pool {
    Pool::new(PoolSettings { health, queue, max_in_flight, ..PoolSettings::default() })
}

fn quick() -> HealthSettings {
    HealthSettings { interval: SECOND / 50, timeout: SECOND / 5, ..HealthSettings::default() }
}

fn spec(id: &str, address: SocketAddr, initial: Initial) -> BackendSpec {
    BackendSpec { id: id.into(), address: address.into(), dialer: Arc::new(Tcp), initial }
}

async fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..400 {
        if holds() {
            return;
        }
        tokio::time::sleep(SECOND / 200).await;
    }
    panic!("not within two seconds: {what}");
}

fn take(pool: &Pool) -> Option<Permit> {
    pool.take_now(&mut Rng::new(1), Wish::default())
}

#[tokio::test]
async fn a_new_backend_is_ready_once_it_answers_and_not_before() {
    let (listener, address) = listener().await;
    drop(listener);
    let pool = pool(HealthSettings::default(), QueueSettings::default(), None);
    pool.insert(spec("a", address, Initial::Probing)).unwrap();
    tokio::time::sleep(SECOND / 10).await;
    assert!(take(&pool).is_none(), "nobody answered yet");
    let listener = TcpListener::bind(address).await.unwrap();
    tokio::spawn(answering(listener, Arc::new(AtomicBool::new(true))));
    let answer = pool.wait_ready(&"a".into()).await.unwrap();
    assert!(answer.after >= SECOND / 10);
    assert!(take(&pool).is_some());
}

#[tokio::test]
async fn waiting_requests_are_released_in_order_when_a_backend_is_ready() {
    let (listener, address) = listener().await;
    let pool = pool(quick(), QueueSettings::default(), Some(1));
    let (first, second) = (pool.clone(), pool.clone());
    let first = tokio::spawn(async move { first.take_in_line(Wish::default()).await });
    eventually("the first waits", || pool.queued() == 1).await;
    let second = tokio::spawn(async move { second.take_in_line(Wish::default()).await });
    eventually("both wait", || pool.queued() == 2).await;
    tokio::spawn(answering(listener, Arc::new(AtomicBool::new(true))));
    pool.insert(spec("a", address, Initial::Probing)).unwrap();
    let permit = first.await.unwrap().unwrap();
    assert_eq!(pool.queued(), 1);
    assert!(!second.is_finished(), "the backend takes one at a time");
    drop(permit);
    second.await.unwrap().unwrap();
    assert_eq!(pool.in_flight(), 0);
}

#[tokio::test]
async fn a_drain_that_is_not_published_yet_does_not_stop_the_line() {
    let pool = pool(quick(), QueueSettings { timeout: SECOND / 20, ..QueueSettings::default() }, Some(1));
    let backend = pool.insert(spec("a", "127.0.0.1:1".parse().unwrap(), Initial::Ready)).unwrap();
    let permit = take(&pool).unwrap();
    let waiting = pool.clone();
    let waiting = tokio::spawn(async move { waiting.take_in_line(Wish::default()).await.map(drop) });
    eventually("one waits", || pool.queued() == 1).await;
    assert!(backend.transit(&[State::Ready], State::Draining));
    drop(permit);
    assert_eq!(waiting.await.unwrap(), Err(Refused::TimedOut));
    assert_eq!(backend.in_flight(), 0);
}

#[tokio::test]
async fn one_waiting_request_that_may_be_repeated_is_the_first_of_a_backend_on_trial() {
    let pool = pool(quick(), QueueSettings::default(), None);
    let waiter = |may_be_first| {
        let pool = pool.clone();
        tokio::spawn(async move { pool.take_in_line(Wish { may_be_first, ..Wish::default() }).await })
    };
    let once_only = waiter(false);
    eventually("it waits", || pool.queued() == 1).await;
    let repeatable = [waiter(true), waiter(true)];
    eventually("all wait", || pool.queued() == 3).await;
    let (_silent, address) = listener().await;
    pool.insert(spec("a", address, Initial::Trial)).unwrap();
    eventually("one is given to it", || repeatable.iter().any(|task| task.is_finished())).await;
    assert!(!once_only.is_finished(), "it may not be lost with a backend that nobody has heard of");
    let [one, other] = repeatable;
    let (first, second) = if one.is_finished() { (one, other) } else { (other, one) };
    let first = first.await.unwrap().unwrap();
    assert_eq!((first.backend().state(), second.is_finished()), (State::Probing, false));

    // A bad answer says nothing; a good one lets the others in.
    pool.answered(first.backend(), StatusCode::BAD_GATEWAY);
    pool.answered(first.backend(), StatusCode::NOT_FOUND);
    assert_eq!(first.backend().state(), State::Probing);
    pool.answered(first.backend(), StatusCode::OK);
    assert!(pool.wait_ready(&"a".into()).await.is_ok());
    assert!(once_only.await.unwrap().is_ok() && second.await.unwrap().is_ok());
}

#[tokio::test]
async fn a_backend_on_trial_is_probed_if_nobody_waits() {
    let (listener, address) = listener().await;
    let pool = pool(quick(), QueueSettings::default(), None);
    tokio::spawn(answering(listener, Arc::new(AtomicBool::new(true))));
    pool.insert(spec("a", address, Initial::Trial)).unwrap();
    assert!(pool.wait_ready(&"a".into()).await.is_ok());
}

#[tokio::test]
async fn the_line_is_bounded_in_length_and_in_time() {
    let queue = QueueSettings { max_requests: 1, timeout: SECOND / 20 };
    let pool = pool(quick(), queue, None);
    let waiting = pool.clone();
    let waiting = tokio::spawn(async move { waiting.take_in_line(Wish::default()).await.map(drop) });
    eventually("one waits", || pool.queued() == 1).await;
    assert_eq!(pool.take_in_line(Wish::default()).await.map(drop), Err(Refused::QueueFull));
    assert_eq!(waiting.await.unwrap(), Err(Refused::TimedOut));
    assert_eq!(pool.queued(), 0);
}

#[tokio::test]
async fn who_leaves_the_line_does_not_block_it() {
    let pool = pool(quick(), QueueSettings::default(), Some(1));
    let (gone, stays) = (pool.clone(), pool.clone());
    let gone = tokio::spawn(async move { gone.take_in_line(Wish::default()).await });
    eventually("one waits", || pool.queued() == 1).await;
    let stays = tokio::spawn(async move { stays.take_in_line(Wish::default()).await });
    eventually("two wait", || pool.queued() == 2).await;
    gone.abort();
    eventually("one has left", || pool.queued() == 1).await;
    pool.insert(spec("a", "127.0.0.1:1".parse().unwrap(), Initial::Ready)).unwrap();
    stays.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_name_is_taken_once() {
    let pool = pool(quick(), QueueSettings::default(), None);
    let address = "127.0.0.1:1".parse().unwrap();
    pool.insert(spec("a", address, Initial::Ready)).unwrap();
    let again = pool.insert(spec("a", address, Initial::Ready)).map(drop);
    assert_eq!(again, Err(Duplicate("a".into())));
    pool.remove(&"a".into()).unwrap();
    assert_eq!(pool.remove(&"a".into()), Err(Unknown("a".into())));
    assert_eq!(pool.drain(&"a".into(), SECOND).await, Err(Unknown("a".into())));
    assert_eq!(pool.wait_ready(&"a".into()).await, Err(Unknown("a".into())));
}

#[tokio::test]
async fn a_drain_waits_for_what_is_in_flight_and_lets_nothing_in() {
    let pool = pool(quick(), QueueSettings::default(), None);
    pool.insert(spec("a", "127.0.0.1:1".parse().unwrap(), Initial::Ready)).unwrap();
    let permit = take(&pool).unwrap();
    let old_view = pool.snapshot();
    assert_eq!(pool.drain(&"a".into(), SECOND / 50).await, Ok(Drained::DeadlinePassed { in_flight: 1 }));
    assert!(
        {
            let (balance, turn) = (Balance::default(), pick::Turns::default());
            pick::pick(&old_view.ready, &balance, Wish::default(), &mut Rng::new(1), &turn).is_none()
        },
        "not even with an old snapshot"
    );
    let (draining, handle) = (pool.clone(), BackendId::from("a"));
    let draining = tokio::spawn(async move { draining.drain(&handle, 5 * SECOND).await });
    tokio::task::yield_now().await;
    assert!(!draining.is_finished());
    drop(permit);
    assert_eq!(draining.await.unwrap(), Ok(Drained::Empty));
}

#[tokio::test]
async fn a_removed_backend_cuts_what_still_runs_and_ends_the_wait_for_it() {
    let pool = pool(quick(), QueueSettings::default(), None);
    let backend = pool.insert(spec("a", "127.0.0.1:1".parse().unwrap(), Initial::Probing)).unwrap();
    let waiting = pool.clone();
    let waiting = tokio::spawn(async move { waiting.wait_ready(&"a".into()).await });
    tokio::task::yield_now().await;
    pool.remove(&"a".into()).unwrap();
    assert!(backend.is_cut());
    assert_eq!(backend.state(), State::Gone);
    assert_eq!(waiting.await.unwrap(), Err(Unknown("a".into())));
}

#[tokio::test]
async fn a_backend_that_turns_bad_is_ejected_and_let_in_again_when_it_is_well() {
    let (listener, address) = listener().await;
    let well = Arc::new(AtomicBool::new(true));
    tokio::spawn(answering(listener, Arc::clone(&well)));
    let pool = pool(quick(), QueueSettings::default(), None);
    let backend = pool.insert(spec("a", address, Initial::Probing)).unwrap();
    eventually("ready", || backend.state() == State::Ready).await;
    well.store(false, SeqCst);
    eventually("ejected", || backend.state() == State::Ejected).await;
    assert!(take(&pool).is_none());
    well.store(true, SeqCst);
    eventually("ready again", || backend.state() == State::Ready).await;
}

#[tokio::test]
async fn failures_in_a_row_eject_and_an_answer_between_them_does_not() {
    let pool = pool(HealthSettings::default(), QueueSettings::default(), None);
    let backend = pool.insert(spec("a", "127.0.0.1:1".parse().unwrap(), Initial::Ready)).unwrap();
    for _ in 0..4 {
        pool.exchange_failed(&backend);
    }
    backend.note_answer();
    for _ in 0..4 {
        pool.exchange_failed(&backend);
    }
    assert_eq!(backend.state(), State::Ready);
    pool.exchange_failed(&backend);
    assert_eq!(backend.state(), State::Ejected);
    assert_eq!(backend.failed(), 9);
}

/// Connects to where it was told to, not to the address of the backend.
struct Detour(SocketAddr);

impl Dial for Detour {
    fn dial(&self, _address: SocketAddr) -> Dialing<'_> {
        Box::pin(tokio::net::TcpStream::connect(self.0))
    }
}

#[tokio::test]
async fn a_backend_is_reached_by_its_own_dialer() {
    let (listener, real) = listener().await;
    tokio::spawn(answering(listener, Arc::new(AtomicBool::new(true))));
    let pool = pool(quick(), QueueSettings::default(), None);
    let address = "203.0.113.1:80".parse().unwrap();
    let dialer = Arc::new(Detour(real));
    pool.insert(BackendSpec { id: "a".into(), address, dialer, initial: Initial::Probing }).unwrap();
    tokio::time::timeout(SECOND, pool.wait_ready(&"a".into())).await.unwrap().unwrap();
}

/// Never gets anywhere, like a SYN to a VM that is not there.
struct Nowhere;

impl Dial for Nowhere {
    fn dial(&self, _address: SocketAddr) -> Dialing<'_> {
        Box::pin(std::future::pending::<io::Result<tokio::net::TcpStream>>())
    }
}

#[tokio::test]
async fn a_backend_that_swallows_connections_is_never_ready_and_is_removed_all_the_same() {
    let pool = pool(quick(), QueueSettings::default(), None);
    let address = "203.0.113.1:80".parse().unwrap();
    let spec = BackendSpec { id: "a".into(), address, dialer: Arc::new(Nowhere), initial: Initial::Probing };
    let backend = pool.insert(spec).unwrap();
    tokio::time::sleep(SECOND / 2).await;
    assert_eq!(backend.state(), State::Probing);
    pool.remove(&"a".into()).unwrap();
}

fn outliers(percent: u32) -> OutlierSettings {
    OutlierSettings {
        errors: Some(2),
        max_ejected_percent: percent,
        ejection_time: SECOND / 5,
        interval: SECOND / 100,
        success_rate: Some(SuccessRate { min_backends: 3, min_requests: 10, deviations: 1.2 }),
        ..OutlierSettings::default()
    }
}

fn judged(outliers: OutlierSettings, backends: u64) -> (Pool, Vec<Arc<Backend>>) {
    let settings = PoolSettings { outliers: Some(outliers), health: quick(), ..PoolSettings::default() };
    let pool = Pool::new(settings);
    // Nobody listens there; probes of ready backends come late enough.
    let insert = |name: u64| {
        pool.insert(spec(&format!("b{name}"), "127.0.0.1:1".parse().unwrap(), Initial::Ready)).unwrap()
    };
    let backends = (0..backends).map(insert).collect();
    (pool, backends)
}

#[tokio::test]
async fn errors_in_a_row_eject_up_to_the_share_and_at_least_one() {
    let (pool, all) = judged(outliers(50), 4);
    for backend in &all {
        (0..2).for_each(|_| pool.answered(backend, StatusCode::INTERNAL_SERVER_ERROR));
    }
    let states: Vec<State> = all.iter().map(|it| it.state()).collect();
    assert_eq!(states, [State::Ejected, State::Ejected, State::Ready, State::Ready]);
    assert_eq!(pool.outliers_spared(), 2);
    let (pool, two) = judged(outliers(0), 2);
    (0..4).for_each(|_| pool.answered(&two[0], StatusCode::BAD_GATEWAY));
    (0..4).for_each(|_| pool.answered(&two[1], StatusCode::BAD_GATEWAY));
    assert_eq!((two[0].state(), two[1].state()), (State::Ejected, State::Ready));
}

#[tokio::test]
async fn good_probes_do_not_end_an_ejection_before_its_time() {
    let (listener, address) = listener().await;
    tokio::spawn(answering(listener, Arc::new(AtomicBool::new(true))));
    let (pool, _others) = judged(outliers(100), 1);
    let backend = pool.insert(spec("a", address, Initial::Ready)).unwrap();
    let ejected = Instant::now();
    (0..2).for_each(|_| pool.answered(&backend, StatusCode::INTERNAL_SERVER_ERROR));
    assert_eq!(backend.state(), State::Ejected);
    eventually("it is back", || backend.state() == State::Ready).await;
    assert!(ejected.elapsed() >= SECOND / 5, "{:?}", ejected.elapsed());
    assert_eq!(backend.circuit().state(Instant::now()), CircuitState::Closed);
}

#[tokio::test]
async fn the_one_with_far_more_errors_than_the_others_is_ejected() {
    let (pool, all) = judged(outliers(50), 4);
    pool.answered(&all[0], StatusCode::OK);
    for _ in 0..20 {
        all.iter().for_each(|backend| pool.judge(backend, Outcome::Fine));
        // Never two in a row.
        pool.judge(&all[2], Outcome::Error);
    }
    tokio::time::sleep(SECOND / 50).await;
    pool.judge(&all[0], Outcome::Fine);
    let ejected: Vec<_> = all.iter().filter(|it| it.state() == State::Ejected).collect();
    assert_eq!(ejected.len(), 1, "{all:?}");
    assert_eq!(all[2].circuit().ejections(OutlierReason::SuccessRate), 1);
}

#[tokio::test]
async fn a_pool_without_the_section_judges_nobody() {
    let pool = pool(quick(), QueueSettings::default(), None);
    let backends =
        ["a", "b"].map(|id| pool.insert(spec(id, "127.0.0.1:1".parse().unwrap(), Initial::Ready)).unwrap());
    (0..100).for_each(|_| pool.answered(&backends[0], StatusCode::INTERNAL_SERVER_ERROR));
    assert_eq!(backends[0].state(), State::Ready);
}

#[tokio::test]
async fn a_first_request_that_is_answered_is_no_bad_probe() {
    let health = HealthSettings { unhealthy_after: 1, interval: 60 * SECOND, ..HealthSettings::default() };
    let pool = pool(health, QueueSettings::default(), None);
    let address = "203.0.113.1:80".parse().unwrap();
    let spec = BackendSpec { id: "a".into(), address, dialer: Arc::new(Nowhere), initial: Initial::Trial };
    let backend = pool.insert(spec).unwrap();
    let wish = Wish { may_be_first: true, ..Wish::default() };
    let permit = pool.take_in_line(wish).await.unwrap();
    // Time for the prober to find out that there is a first request.
    tokio::time::sleep(SECOND / 20).await;
    pool.answered(permit.backend(), StatusCode::OK);
    tokio::time::sleep(SECOND / 4).await;
    assert_eq!(backend.state(), State::Ready);
}
