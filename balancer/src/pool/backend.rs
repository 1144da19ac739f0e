//! One backend: where it is, how it does, and how many requests it serves.
//!
//! Counts and state are atomics: a request takes its place with one add and three
//! loads (the state before and after, the limit), and gives it back with one subtract
//! and a look at the line.
//!
//!   probing -> ready <-> ejected
//!      any of them -> draining -> gone
//!                        \-> probing, if the drain is taken back
//!
//! Invariant: once `Draining` is stored and `in_flight` was read as 0, no request
//! will start here again, unless the drain is taken back. Both sides use sequentially consistent order for it:
//! a taker adds, then looks at the state; the drain stores the state, then looks at
//! the count.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, AtomicU32, AtomicU64};
use std::time::Instant;

use arc_swap::ArcSwapOption;
use tokio::net::UnixStream;
use tokio::sync::Notify;

use super::adaptive::Adaptive;
use super::circuit::Circuit;
use super::dial::Dial;
use super::link::Link;
use super::queue::Queue;
use super::rtt::PeakEwma;
use crate::net::{Address, Raw};

/// What the warmth of a warm backend is, in thousandths.
const WARM: u32 = 1000;
/// Least warmth: a cold backend must get requests, or it would stay cold.
const COLDEST: u32 = 50;
/// No backend's share is above this.
pub(super) const FULL_SCALE: u64 = MAX_WEIGHT as u64 * WARM as u64;
/// Largest weight that a backend can be given.
pub const MAX_WEIGHT: u32 = 1000;

/// The name of a backend: `parent`, `clone-7`, or the address of a fixed one.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BackendId(Arc<str>);

impl BackendId {
    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl<T: AsRef<str>> From<T> for BackendId {
    fn from(name: T) -> Self {
        Self(name.as_ref().into())
    }
}

impl fmt::Display for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for BackendId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a backend may be used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// New; it has not answered yet. Ends with the first good probe.
    Probing,
    /// Takes requests. Ends with an ejection or a drain.
    Ready,
    /// It failed; probes decide when it is readmitted.
    Ejected,
    /// Finishes what it has, takes nothing new. Ends with its removal.
    Draining,
    /// Removed from the pool; exchanges that still run are cut.
    Gone,
}

impl State {
    const ALL: [State; 5] = [State::Probing, State::Ready, State::Ejected, State::Draining, State::Gone];

    /// The word for it in the status document and in metrics.
    pub fn word(self) -> &'static str {
        match self {
            State::Probing => "probing",
            State::Ready => "ready",
            State::Ejected => "ejected",
            State::Draining => "draining",
            State::Gone => "gone",
        }
    }

    fn from_u8(raw: u8) -> Self {
        Self::ALL.into_iter().find(|state| *state as u8 == raw).unwrap_or(State::Gone)
    }
}

/// What a user of the pool gives to have a backend.
pub struct BackendSpec {
    /// Its name; one of a kind in the pool.
    pub id: BackendId,
    /// Where it listens.
    pub address: Address,
    /// How it is reached.
    pub dialer: Arc<dyn Dial>,
    /// Whether it must answer a probe before its first request.
    pub initial: Initial,
}

/// How a backend enters the pool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Initial {
    /// It gets requests after its first good probe.
    Probing,
    /// The same, but one waiting request may be its first probe: it is known to be up, and every
    /// exchange counts.
    Trial,
    /// It gets requests at once.
    Ready,
}

/// One backend of the pool.
pub struct Backend {
    id: BackendId,
    serial: u64,
    address: Address,
    dialer: Arc<dyn Dial>,
    link: Arc<Link>,
    inserted: Instant,
    max_in_flight: AtomicU32,
    adaptive: Adaptive,
    queue: Arc<Queue>,
    in_flight: AtomicU32,
    state: AtomicU8,
    /// The first request may come before the first probe; used up by it.
    trial: AtomicBool,
    cut: AtomicBool,
    failures_in_a_row: AtomicU32,
    circuit: Circuit,
    weight: AtomicU32,
    warmth: AtomicU32,
    /// What it is owed in weighted turns.
    credit: AtomicI64,
    rtt: PeakEwma,
    token: ArcSwapOption<String>,
    requests: AtomicU64,
    failed: AtomicU64,
    ready_at: OnceLock<Instant>,
    emptied: Notify,
    probe_now: Notify,
}

impl Backend {
    pub(super) fn new(
        spec: BackendSpec,
        serial: u64,
        max_in_flight: Option<u32>,
        link: Arc<Link>,
        queue: Arc<Queue>,
        now: Instant,
    ) -> Self {
        let (state, ready_at) = match spec.initial {
            Initial::Probing | Initial::Trial => (State::Probing, OnceLock::new()),
            Initial::Ready => (State::Ready, OnceLock::from(now)),
        };
        Self {
            id: spec.id,
            serial,
            address: spec.address,
            dialer: spec.dialer,
            link,
            inserted: now,
            max_in_flight: AtomicU32::new(max_in_flight.unwrap_or(u32::MAX)),
            adaptive: Adaptive::new(now),
            queue,
            in_flight: AtomicU32::new(0),
            state: AtomicU8::new(state as u8),
            trial: AtomicBool::new(spec.initial == Initial::Trial),
            cut: AtomicBool::new(false),
            failures_in_a_row: AtomicU32::new(0),
            circuit: Circuit::default(),
            weight: AtomicU32::new(1),
            warmth: AtomicU32::new(WARM),
            credit: AtomicI64::new(0),
            rtt: PeakEwma::new(now),
            token: ArcSwapOption::empty(),
            requests: AtomicU64::new(0),
            failed: AtomicU64::new(0),
            ready_at,
            emptied: Notify::new(),
            probe_now: Notify::new(),
        }
    }

    /// Its name.
    pub fn id(&self) -> &BackendId {
        &self.id
    }

    /// A number that no other backend of this pool ever had.
    pub fn serial(&self) -> u64 {
        self.serial
    }

    /// Where it listens.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// How it is spoken with.
    pub fn link(&self) -> &Link {
        &self.link
    }

    /// Makes a connection to it, of bytes only.
    pub(crate) async fn dial(&self) -> io::Result<Raw> {
        let raw = match &self.address {
            Address::Tcp(address) => Raw::Tcp(self.dialer.dial(*address).await?),
            Address::Unix(path) => Raw::Unix(UnixStream::connect(path).await?),
        };
        raw.set_nodelay()?;
        Ok(raw)
    }

    /// What it may be used for now.
    pub fn state(&self) -> State {
        State::from_u8(self.state.load(SeqCst))
    }

    /// Requests being served now.
    pub fn in_flight(&self) -> u32 {
        self.in_flight.load(Relaxed)
    }

    /// Requests since it joined.
    pub fn requests(&self) -> u64 {
        self.requests.load(Relaxed)
    }

    /// Requests since it joined that failed: no answer, or a cut one.
    pub fn failed(&self) -> u64 {
        self.failed.load(Relaxed)
    }

    /// How many times as many requests it gets as one of weight 1; 1 to [`MAX_WEIGHT`].
    pub fn weight(&self) -> u32 {
        self.weight.load(Relaxed)
    }

    /// Gives it another weight.
    pub fn set_weight(&self, weight: u32) {
        self.weight.store(weight.clamp(1, MAX_WEIGHT), Relaxed);
    }

    /// How warm it is, 0 to 1: what it gets of the requests that it would get otherwise.
    pub fn warmth(&self) -> f64 {
        f64::from(self.warmth.load(Relaxed)) / f64::from(WARM)
    }

    /// Says how warm it is: the share of its working set that it has.
    pub fn set_warmth(&self, share: f64) {
        self.warmth.store((share.clamp(0.0, 1.0) * f64::from(WARM)).round() as u32, Relaxed);
    }

    /// Its weight, as far as it is warm; never 0, at most [`FULL_SCALE`].
    #[inline]
    pub(super) fn share(&self) -> u64 {
        u64::from(self.weight.load(Relaxed)) * u64::from(self.warmth.load(Relaxed).max(COLDEST))
    }

    /// What clients show that stick to it.
    pub(super) fn token(&self) -> &ArcSwapOption<String> {
        &self.token
    }

    pub(super) fn credit(&self) -> &AtomicI64 {
        &self.credit
    }

    /// How soon it answers.
    pub fn rtt(&self) -> &PeakEwma {
        &self.rtt
    }

    /// The most requests that it may have at once; `None` for any number.
    pub fn limit(&self) -> Option<u32> {
        Some(self.max_in_flight.load(Relaxed)).filter(|limit| *limit != u32::MAX)
    }

    pub(super) fn adaptive(&self) -> &Adaptive {
        &self.adaptive
    }

    /// What it answered lately, and whether it sits out for it.
    pub fn circuit(&self) -> &Circuit {
        &self.circuit
    }

    /// When it joined the pool.
    pub fn inserted(&self) -> Instant {
        self.inserted
    }

    /// When it first answered a probe (or joined as ready).
    pub fn ready_at(&self) -> Option<Instant> {
        self.ready_at.get().copied()
    }

    /// Whether exchanges with it must end at once, because it is gone.
    pub fn is_cut(&self) -> bool {
        self.cut.load(Relaxed)
    }

    /// Takes a place for one request, unless it is full or not ready.
    pub(super) fn try_take(self: &Arc<Self>) -> Option<Permit> {
        if self.state() != State::Ready {
            return None;
        }
        let limit = self.max_in_flight.load(Relaxed);
        if limit == u32::MAX {
            self.in_flight.fetch_add(1, SeqCst);
        } else {
            let below = |n: u32| (n < limit).then_some(n + 1);
            self.in_flight.fetch_update(SeqCst, Relaxed, below).ok()?;
        }
        if self.state() != State::Ready {
            self.withdraw();
            return None;
        }
        Some(Permit { backend: Arc::clone(self), is_trial: false })
    }

    /// Takes the place of the one request that may come before any answer.
    pub(super) fn try_first(self: &Arc<Self>) -> Option<Permit> {
        if !self.trial.load(Relaxed) || !self.trial.swap(false, SeqCst) {
            return None;
        }
        self.in_flight.fetch_add(1, SeqCst);
        if self.state() != State::Probing {
            self.withdraw();
            return None;
        }
        Some(Permit { backend: Arc::clone(self), is_trial: true })
    }

    pub(super) fn set_limit(&self, max_in_flight: Option<u32>) {
        self.max_in_flight.store(max_in_flight.unwrap_or(u32::MAX), Relaxed);
    }

    fn give_back(&self) {
        self.leave();
        self.queue.place_freed();
    }

    /// Gives a place back that was taken too late. The line may be held by who took it.
    fn withdraw(&self) {
        self.leave();
        self.queue.look_again();
    }

    fn leave(&self) {
        let left = self.in_flight.fetch_sub(1, SeqCst) - 1;
        if left == 0 && self.state.load(SeqCst) >= State::Draining as u8 {
            self.emptied.notify_waiters();
        }
    }

    /// Moves from one of `from` to `to`; says whether it did.
    pub(super) fn transit(&self, from: &[State], to: State) -> bool {
        let change = |raw: u8| from.iter().any(|state| *state as u8 == raw).then_some(to as u8);
        self.state.fetch_update(SeqCst, SeqCst, change).is_ok()
    }

    pub(super) fn note_ready(&self, now: Instant) {
        self.failures_in_a_row.store(0, Relaxed);
        // A second answer is not the first: the old time stays.
        let _ = self.ready_at.set(now);
    }

    pub(super) fn cut(&self) {
        self.cut.store(true, Relaxed);
    }

    /// Resolves once nothing is in flight, which is final when it is draining.
    pub(super) async fn emptied(&self) {
        loop {
            let emptied = self.emptied.notified();
            if self.in_flight.load(SeqCst) == 0 {
                return;
            }
            emptied.await;
        }
    }

    pub(super) fn ask_for_probe(&self) {
        self.probe_now.notify_one();
    }

    pub(super) async fn probe_asked_for(&self) {
        self.probe_now.notified().await;
    }

    /// Notes an exchange without a whole answer; returns how many there were in a row.
    pub(super) fn note_failure(&self) -> u32 {
        self.failed.fetch_add(1, Relaxed);
        self.failures_in_a_row.fetch_add(1, Relaxed) + 1
    }

    /// Notes an answer, whatever its status: the backend is there.
    pub(crate) fn note_answer(&self) {
        if self.failures_in_a_row.load(Relaxed) != 0 {
            self.failures_in_a_row.store(0, Relaxed);
        }
    }
}

impl fmt::Debug for Backend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {} ({}, {} in flight)", self.id, self.address, self.state().word(), self.in_flight())
    }
}

/// The right to send one request to a backend; dropping it gives the place back.
#[derive(Debug)]
pub struct Permit {
    backend: Arc<Backend>,
    is_trial: bool,
}

impl Permit {
    /// The backend that was picked.
    pub fn backend(&self) -> &Arc<Backend> {
        &self.backend
    }

    /// Whether the backend has not answered anything yet.
    pub(crate) fn is_trial(&self) -> bool {
        self.is_trial
    }

    /// Counts the request that is about to be sent.
    pub(crate) fn count_request(&self) {
        self.backend.requests.fetch_add(1, Relaxed);
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.backend.give_back();
    }
}
