//! The pool: which backends there are and which of them may get requests.
//!
//!   insert -> probing -> ready <-> ejected ... drain -> draining -> remove -> gone
//!
//! Membership changes take a lock and publish a new numbered [`Snapshot`]; requests
//! read the snapshot and the backends' atomics, and never take that lock. Probes run
//! as tasks on the runtime on which the pool was made.
//!
//! Not here: connections (each worker keeps its own) and how many backends there
//! should be (the scaler's).

mod adaptive;
mod backend;
mod circuit;
mod dial;
mod eject;
mod grpc_health;
mod health;
mod link;
mod outlier;
mod pick;
mod probe;
mod queue;
mod rtt;
mod snapshot;
mod sticky;
mod timing;

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::{HeaderName, StatusCode};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;

use eject::Judge;
use outlier::Outcome;

pub use adaptive::AdaptiveSettings;
pub use backend::{Backend, BackendId, BackendSpec, Initial, MAX_WEIGHT, Permit, State};
pub use circuit::{Circuit, CircuitState};
pub use dial::{Dial, Dialing, Tcp, is_local};
pub(crate) use grpc_health::LONGEST_SERVICE;
pub use health::{HealthSettings, ProbeKind, Streak, Verdict, probe_gap};
pub(crate) use link::{Ends, PING_INTERVAL};
pub use link::{Link, ProxyHeader};
pub use outlier::{OutlierSettings, Reason as OutlierReason, SuccessRate};
pub use pick::{Balance, HashBy, Rng};
pub(crate) use pick::{Wish, hash};
pub use queue::{Priority, Queue, QueueSettings, Refused};
pub use rtt::PeakEwma;
pub use snapshot::Snapshot;
pub use sticky::{SameSite, Secret, StickySettings};

/// Serials of backends are one of a kind among all pools: workers keep connections by them.
static SERIALS: AtomicU64 = AtomicU64::new(1);

/// The name of the pool whose backends stand at the top of the configuration.
pub const DEFAULT_POOL: &str = "default";

/// What a pool is made with.
#[derive(Debug, Clone, Default)]
pub struct PoolSettings {
    /// Probes and ejections.
    pub health: HealthSettings,
    /// Ejections of backends that answer badly.
    pub outliers: Option<OutlierSettings>,
    /// The wait for a backend.
    pub queue: QueueSettings,
    /// The field in which requests say their [`Priority`], if they may.
    pub priority_header: Option<HeaderName>,
    /// Requests that one backend may serve at once; `None` for any number.
    pub max_in_flight: Option<u32>,
    /// Bounds of a limit that is found out for each backend, in place of `max_in_flight`.
    pub adaptive: Option<AdaptiveSettings>,
    /// How the backend of a request is chosen.
    pub balance: Balance,
    /// Whether clients stick to their backend.
    pub sticky: Option<Arc<StickySettings>>,
    /// How backends are spoken with.
    pub link: Arc<Link>,
}

impl PoolSettings {
    /// The limit of a backend of which nothing is known.
    fn first_limit(&self) -> Option<u32> {
        self.adaptive.map(|bounds| bounds.min).or(self.max_in_flight)
    }
}

/// A backend with this name is in the pool already.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("there is a backend `{0}` in the pool already")]
pub struct Duplicate(pub BackendId);

/// There is no backend of this name in the pool (any more).
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("there is no backend `{0}` in the pool")]
pub struct Unknown(pub BackendId);

/// A backend answered its first probe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FirstAnswer {
    /// When the head of the answer was there.
    pub at: Instant,
    /// Time from `insert` until then.
    pub after: Duration,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Drained {
    /// Nothing is in flight, and nothing will be.
    Empty,
    /// The deadline passed; removing the backend cuts these requests.
    DeadlinePassed {
        /// Requests still being served.
        in_flight: u32,
    },
}

/// Waits until one of several pools has changed.
pub(crate) async fn any_changed(changes: &mut [watch::Receiver<u64>]) {
    let each = changes.iter_mut().map(|it| Box::pin(it.changed()));
    if each.len() == 0 {
        return std::future::pending().await;
    }
    // A pool that is gone is a change, too.
    let _ = futures_util::future::select_all(each).await;
}

/// The pool; clones are handles of the same one.
#[derive(Clone)]
pub struct Pool(Arc<Shared>);

struct Shared {
    name: String,
    settings: ArcSwap<PoolSettings>,
    runtime: Handle,
    members: Mutex<Vec<Member>>,
    snapshot: Arc<ArcSwap<Snapshot>>,
    queue: Arc<Queue>,
    judge: Judge,
    /// What values of cookies are made with if no other secret is given; made when it is needed first.
    secret: OnceLock<Option<Secret>>,
    generation: watch::Sender<u64>,
}

struct Member {
    backend: Arc<Backend>,
    prober: AbortHandle,
}

impl Pool {
    /// An empty pool. Its probes run on the current tokio runtime.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(settings: PoolSettings) -> Self {
        Self::named(DEFAULT_POOL, settings)
    }

    /// The same, with the name that metrics call it by.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn named(name: &str, settings: PoolSettings) -> Self {
        let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
        let balance = settings.balance.clone();
        let queue = Arc::new(Queue::new(settings.queue, balance, Arc::clone(&snapshot)));
        Self(Arc::new(Shared {
            name: name.to_owned(),
            settings: ArcSwap::from_pointee(settings),
            runtime: Handle::current(),
            members: Mutex::new(Vec::new()),
            snapshot,
            queue,
            judge: Judge::new(Instant::now()),
            secret: OnceLock::new(),
            generation: watch::Sender::new(0),
        }))
    }

    /// Adds a backend and begins to probe it at once.
    ///
    /// # Errors
    /// [`Duplicate`] if its name is taken.
    pub fn insert(&self, spec: BackendSpec) -> Result<Arc<Backend>, Duplicate> {
        let mut members = self.members();
        if members.iter().any(|member| member.backend.id() == &spec.id) {
            return Err(Duplicate(spec.id));
        }
        let serial = SERIALS.fetch_add(1, Relaxed);
        let (settings, queue) = (self.settings(), Arc::clone(&self.0.queue));
        let (limit, link) = (settings.first_limit(), Arc::clone(&settings.link));
        let backend = Arc::new(Backend::new(spec, serial, limit, link, queue, Instant::now()));
        self.give_token(&backend, settings.sticky.as_deref());
        let prober = self.0.runtime.spawn(probe::run(self.clone(), Arc::clone(&backend))).abort_handle();
        members.push(Member { backend: Arc::clone(&backend), prober });
        self.publish(members);
        Ok(backend)
    }

    /// Waits until a backend has answered its first probe.
    ///
    /// # Errors
    /// [`Unknown`] if it is not in the pool, or was removed before it answered.
    pub async fn wait_ready(&self, id: &BackendId) -> Result<FirstAnswer, Unknown> {
        let mut changes = self.changes();
        loop {
            changes.mark_unchanged();
            let snapshot = self.snapshot();
            let backend = snapshot.get(id).ok_or_else(|| Unknown(id.clone()))?;
            if let Some(at) = backend.ready_at() {
                return Ok(FirstAnswer { at, after: at.saturating_duration_since(backend.inserted()) });
            }
            drop(snapshot);
            if changes.changed().await.is_err() {
                return Err(Unknown(id.clone()));
            }
        }
    }

    /// Gives a backend no new requests and waits until those it has are done.
    /// It stays in the pool; [`remove`](Self::remove) it afterwards.
    ///
    /// # Errors
    /// [`Unknown`] if it is not in the pool.
    pub async fn drain(&self, id: &BackendId, deadline: Duration) -> Result<Drained, Unknown> {
        let backend = self.begin_drain(id)?;
        Ok(self.end_of_drain(&backend, deadline).await)
    }

    /// Gives a backend no new requests from now on.
    ///
    /// # Errors
    /// [`Unknown`] if it is not in the pool.
    pub(crate) fn begin_drain(&self, id: &BackendId) -> Result<Arc<Backend>, Unknown> {
        let backend = self.snapshot().get(id).cloned().ok_or_else(|| Unknown(id.clone()))?;
        if backend.transit(&[State::Probing, State::Ready, State::Ejected], State::Draining) {
            self.publish(self.members());
        }
        Ok(backend)
    }

    /// Waits until the requests of a draining backend are done.
    pub(crate) async fn end_of_drain(&self, backend: &Backend, deadline: Duration) -> Drained {
        match tokio::time::timeout(deadline, backend.emptied()).await {
            Ok(()) => Drained::Empty,
            Err(_elapsed) => match backend.in_flight() {
                0 => Drained::Empty,
                in_flight => Drained::DeadlinePassed { in_flight },
            },
        }
    }

    /// Takes a drain back: the backend gets requests again after its next good probe. Says whether
    /// there was a drain to take back.
    pub(crate) fn revive(&self, id: &BackendId) -> bool {
        let members = self.members();
        let Some(member) = members.iter().find(|member| member.backend.id() == id) else { return false };
        let backend = Arc::clone(&member.backend);
        let revived = backend.transit(&[State::Draining], State::Probing);
        if revived {
            self.publish(members);
            backend.ask_for_probe();
        }
        revived
    }

    /// Removes a backend unless its drain was taken back.
    pub(crate) fn remove_if_draining(&self, backend: &Backend) {
        let members = self.members();
        let same = |member: &Member| member.backend.serial() == backend.serial();
        match members.iter().position(same) {
            Some(index) if backend.state() == State::Draining => self.take_out(members, index),
            _ => {}
        }
    }

    /// Removes a backend; requests that it still serves are cut within seconds.
    ///
    /// # Errors
    /// [`Unknown`] if it is not in the pool.
    pub fn remove(&self, id: &BackendId) -> Result<(), Unknown> {
        let members = self.members();
        let index = members.iter().position(|member| member.backend.id() == id);
        self.take_out(members, index.ok_or_else(|| Unknown(id.clone()))?);
        Ok(())
    }

    fn take_out(&self, mut members: MutexGuard<'_, Vec<Member>>, index: usize) {
        let member = members.remove(index);
        let all = [State::Probing, State::Ready, State::Ejected, State::Draining];
        member.backend.transit(&all, State::Gone);
        member.backend.cut();
        member.prober.abort();
        self.publish(members);
    }

    /// The pool as it is now.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.0.snapshot.load_full()
    }

    /// The generation of the snapshot, to wait for changes.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.generation.subscribe()
    }

    /// Requests that wait for a backend.
    pub fn queued(&self) -> usize {
        self.0.queue.waiting()
    }

    /// How long the first in line for a backend has waited; `None` if nobody waits.
    pub fn oldest_wait(&self, now: Instant) -> Option<Duration> {
        self.0.queue.oldest_wait(now)
    }

    /// Requests that backends are serving.
    pub fn in_flight(&self) -> u64 {
        self.snapshot().all.iter().map(|backend| u64::from(backend.in_flight())).sum()
    }

    /// Takes a ready backend out of service until probes readmit it.
    pub fn eject(&self, backend: &Arc<Backend>, why: &str) {
        if backend.transit(&[State::Ready], State::Ejected) {
            tracing::warn!(backend = %backend.id(), address = %backend.address(), why, "backend ejected");
            self.publish(self.members());
            backend.ask_for_probe();
        }
    }

    /// Ends all probing; for the end of the process.
    pub fn close(&self) {
        self.members().iter().for_each(|member| member.prober.abort());
    }

    /// What requests for the same backend have in common, if that counts.
    #[inline]
    pub(crate) fn hash_by(&self) -> Option<HashBy> {
        match &self.0.settings.load().balance {
            Balance::Hash(by) => Some(by.clone()),
            Balance::TwoChoices | Balance::RoundRobin | Balance::LeastRequests | Balance::PeakEwma => None,
        }
    }

    /// The field in which requests say their priority, if they may.
    #[inline]
    pub(crate) fn priority_header(&self) -> Option<HeaderName> {
        self.0.settings.load().priority_header.clone()
    }

    /// Takes a place at a ready backend without waiting. `None`: stand in line.
    #[inline]
    pub(crate) fn take_now(&self, rng: &mut Rng, wish: Wish) -> Option<Permit> {
        if self.0.queue.waiting() != 0 {
            return None;
        }
        let snapshot = self.0.snapshot.load();
        pick::pick(&snapshot.ready, &self.0.settings.load().balance, wish, rng, self.0.queue.turns())
    }

    /// Takes a place at a ready backend, waiting in line for it.
    pub(crate) async fn take_in_line(&self, wish: Wish) -> Result<Permit, Refused> {
        self.0.queue.wait(wish).await
    }

    /// Notes an answer. One to the first request of a new backend counts as that to its first probe.
    #[inline]
    pub(crate) fn answered(&self, backend: &Arc<Backend>, status: StatusCode) {
        backend.note_answer();
        self.judge(backend, Outcome::of(status));
        let good = status.is_success() || status.is_redirection();
        if good && backend.state() == State::Probing {
            self.admit(backend);
        }
    }

    /// The longest time for an answer to a probe, and to the request that stands for one.
    pub(crate) fn probe_timeout(&self) -> Duration {
        self.0.settings.load().health.timeout
    }

    /// Notes that an exchange with `backend` brought no answer.
    pub(crate) fn exchange_failed(&self, backend: &Arc<Backend>) {
        self.judge(backend, Outcome::Gateway);
        self.failed_to_answer(backend);
        if backend.note_failure() >= self.settings().health.eject_after {
            self.eject(backend, "too many requests in a row without an answer");
        }
    }

    fn settings(&self) -> Arc<PoolSettings> {
        self.0.settings.load_full()
    }

    /// Goes on with other settings. How backends are spoken with stays as it is for those
    /// that are there.
    pub fn reconfigure(&self, settings: PoolSettings) {
        let members = self.members();
        let limit = |now: Option<u32>| match (settings.adaptive, now) {
            // What was found out stays, within the bounds there are now.
            (Some(bounds), Some(limit)) => Some(limit.clamp(bounds.min, bounds.max)),
            _ => settings.first_limit(),
        };
        members.iter().for_each(|member| member.backend.set_limit(limit(member.backend.limit())));
        for member in members.iter() {
            self.give_token(&member.backend, settings.sticky.as_deref());
        }
        self.0.queue.reconfigure(settings.queue, settings.balance.clone());
        self.0.settings.store(Arc::new(settings));
        self.publish(members);
    }

    /// The name that metrics call it by.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// Whether two handles are of the same pool.
    pub fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }

    fn admit(&self, backend: &Arc<Backend>) {
        let now = Instant::now();
        if backend.circuit().is_open(now) {
            return;
        }
        if backend.transit(&[State::Probing, State::Ejected], State::Ready) {
            backend.circuit().close();
            backend.note_ready(now);
            tracing::info!(backend = %backend.id(), address = %backend.address(), "backend ready");
            self.publish(self.members());
        }
    }

    fn members(&self) -> MutexGuard<'_, Vec<Member>> {
        self.0.members.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes the members as a new snapshot, then serves who waits.
    fn publish(&self, members: MutexGuard<'_, Vec<Member>>) {
        let all: Box<[_]> = members.iter().map(|member| Arc::clone(&member.backend)).collect();
        let ready = all.iter().filter(|backend| backend.state() == State::Ready).cloned().collect();
        let generation = self.0.snapshot.load().generation + 1;
        self.0.snapshot.store(Arc::new(Snapshot { generation, ready, all }));
        drop(members);
        self.0.generation.send_replace(generation);
        self.0.queue.place_freed();
    }
}

#[cfg(test)]
mod tests;

/// A ready backend for unit tests, with a queue of its own.
#[cfg(test)]
fn test_backend(serial: u64, max_in_flight: Option<u32>) -> Arc<Backend> {
    let snapshot = Arc::new(ArcSwap::from_pointee(Snapshot::default()));
    let queue = Arc::new(Queue::new(QueueSettings::default(), Balance::default(), snapshot));
    let spec = BackendSpec {
        id: BackendId::from(format!("b{serial}")),
        address: std::net::SocketAddr::from(([127, 0, 0, 1], 1)).into(),
        dialer: Arc::new(Tcp),
        initial: Initial::Ready,
    };
    Arc::new(Backend::new(spec, serial, max_in_flight, Arc::default(), queue, Instant::now()))
}
