//! The board: what the status document is made of.
//!
//! Each part has one writer: the front door its state, the sampler the load, a tier its
//! decisions and its engine. Readers put a document together when they are asked.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::history::Moments;
use super::orders::Order;
use crate::admin::status::{
    BackendStatus, CircuitStatus, DecisionStatus, EngineStatus, History, LoadStatus, ScalerStatus,
    ScalingStatus, Status, TierStatus,
};
use crate::load::Sample;
use crate::net::Address;
use crate::pool::{Backend, CircuitState, DEFAULT_POOL, OutlierReason, Pool, State};

/// Decisions that are kept.
const MAX_DECISIONS: usize = 64;

/// Takes an order to the tier, and says what comes of it or why nothing does.
type OrderTaker = Box<dyn FnMut(Order) -> Result<String, String> + Send + Sync>;

/// Makes the engine's part of the document.
type EngineSource = Box<dyn Fn() -> EngineStatus + Send + Sync>;

/// Where the tier is in its life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TierState {
    /// No backend has been ready yet.
    Starting,
    /// A backend has been ready.
    Serving,
    /// On its way out.
    Draining,
}

impl TierState {
    /// The word for it in the document.
    pub fn word(self) -> &'static str {
        match self {
            Self::Starting => "starting",
            Self::Serving => "serving",
            Self::Draining => "draining",
        }
    }
}

/// The numbers of a scaled tier.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Scaling {
    desired: u32,
    starting: u32,
    retiring: u32,
}

struct Notes {
    state: TierState,
    scaling: Option<Scaling>,
    decisions: VecDeque<DecisionStatus>,
    engine: Option<EngineSource>,
    listen: Vec<String>,
    orders: Option<OrderTaker>,
    scaler: ScalerStatus,
    moments: Moments,
}

/// What the status document is made of.
pub struct Board {
    started: Instant,
    name: String,
    notes: Mutex<Notes>,
}

impl Board {
    pub(super) fn new(name: &str, listen: &[Address], now: Instant) -> Self {
        let notes = Notes {
            state: TierState::Starting,
            scaling: None,
            decisions: VecDeque::new(),
            engine: None,
            listen: listen.iter().map(Address::to_string).collect(),
            orders: None,
            scaler: ScalerStatus::default(),
            moments: Moments::default(),
        };
        Self { started: now, name: name.to_owned(), notes: Mutex::new(notes) }
    }

    /// Says where clients come in from now on.
    pub(super) fn set_listen(&self, listen: &[Address]) {
        self.notes().listen = listen.iter().map(Address::to_string).collect();
    }

    /// Time since the front door was opened; `at_seconds` of decisions counts from there.
    pub fn uptime(&self) -> Duration {
        self.started.elapsed()
    }

    /// Where the tier is in its life.
    pub fn state(&self) -> TierState {
        self.notes().state
    }

    /// Goes on to a state; there is no way back.
    pub fn set_state(&self, state: TierState) {
        let mut notes = self.notes();
        if notes.state as u8 <= state as u8 {
            notes.state = state;
        }
    }

    /// Says how many backends are wanted, being born, and on their way out.
    pub fn set_scaling(&self, desired: u32, starting: u32, retiring: u32) {
        self.notes().scaling = Some(Scaling { desired, starting, retiring });
    }

    /// Notes a decision; only the newest 64 are kept.
    pub fn note_decision(&self, decision: DecisionStatus) {
        let mut notes = self.notes();
        if notes.decisions.len() == MAX_DECISIONS {
            notes.decisions.pop_front();
        }
        notes.decisions.push_back(decision);
    }

    /// Gives the function that makes the engine's part. It is called for each document,
    /// and must neither block nor use the board.
    pub fn set_engine(&self, source: impl Fn() -> EngineStatus + Send + Sync + 'static) {
        self.notes().engine = Some(Box::new(source));
    }

    /// Gives the function that takes orders to the tier; it must neither block nor use the board.
    pub fn set_orders(&self, taker: impl FnMut(Order) -> Result<String, String> + Send + Sync + 'static) {
        self.notes().orders = Some(Box::new(taker));
    }

    /// Takes an order to the tier. Says what comes of it.
    ///
    /// # Errors
    /// The tier is not scaled, or the order would do nothing.
    pub fn order(&self, order: Order) -> Result<String, String> {
        match &mut self.notes().orders {
            Some(taker) => taker(order),
            None => Err("this tier is not scaled, or not up yet".to_owned()),
        }
    }

    /// Says what the scaler goes by now.
    pub fn set_scaler(&self, scaler: ScalerStatus) {
        self.notes().scaler = scaler;
    }

    /// The newest decisions, oldest first.
    pub fn decisions(&self) -> Vec<DecisionStatus> {
        self.notes().decisions.iter().cloned().collect()
    }

    /// Puts the document together. With a scaled tier, the counts are of the pool that its VMs are in.
    pub fn status(&self, pools: &[&Pool], sample: &Sample) -> Status {
        let backends = pools.iter().flat_map(|pool| backends_of(pool)).collect();
        let notes = self.notes();
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            uptime_seconds: self.started.elapsed().as_secs_f64(),
            tier: TierStatus {
                name: self.name.clone(),
                state: notes.state.word().to_owned(),
                listen: notes.listen.clone(),
            },
            load: load_status(sample),
            scaling: scaling_status(&notes, pools),
            backends,
            engine: notes.engine.as_ref().map(|source| source()),
            decisions: notes.decisions.iter().cloned().collect(),
        }
    }

    /// Keeps what is now for [`Self::history`]. Called once a second.
    pub(super) fn remember(&self, pools: &[&Pool], sample: &Sample) {
        let at = self.started.elapsed().as_secs_f64();
        let mut notes = self.notes();
        let scaling = scaling_status(&notes, pools);
        notes.moments.keep(at, load_status(sample), &scaling);
    }

    /// The last quarter of an hour, one moment a second.
    pub fn history(&self) -> History {
        self.notes().moments.document()
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn scaling_status(notes: &Notes, pools: &[&Pool]) -> ScalingStatus {
    let counted = pools.iter().filter(|pool| notes.scaling.is_none() || pool.name() == DEFAULT_POOL);
    let states: Vec<State> = counted
        .flat_map(|pool| pool.snapshot().all.iter().map(|it| it.state()).collect::<Vec<_>>())
        .collect();
    let count = |state: State| states.iter().filter(|it| **it == state).count() as u32;
    let of_pools = || Scaling {
        desired: states.len() as u32,
        starting: count(State::Probing),
        retiring: count(State::Draining),
    };
    let scaling = notes.scaling.unwrap_or_else(of_pools);
    ScalingStatus {
        desired: scaling.desired,
        ready: count(State::Ready),
        starting: scaling.starting,
        retiring: scaling.retiring,
        scaler: notes.scaler.clone(),
    }
}

fn backends_of(pool: &Pool) -> Vec<BackendStatus> {
    pool.snapshot().all.iter().map(|backend| backend_status(pool.name(), backend)).collect()
}

fn backend_status(pool: &str, backend: &Backend) -> BackendStatus {
    BackendStatus {
        pool: pool.to_owned(),
        id: backend.id().to_string(),
        address: backend.address().to_string(),
        state: backend.state().word().to_owned(),
        in_flight: backend.in_flight().into(),
        requests_total: backend.requests(),
        failed_total: backend.failed(),
        weight: backend.weight(),
        warm_ratio: backend.warmth(),
        circuit: circuit_status(backend),
    }
}

fn circuit_status(backend: &Backend) -> CircuitStatus {
    let state = backend.circuit().state(Instant::now());
    let (left, reason) = match state {
        CircuitState::Closed => (None, None),
        CircuitState::Open(left, reason) => (Some(left.as_secs_f64()), Some(reason)),
        CircuitState::HalfOpen(reason) => (None, Some(reason)),
    };
    CircuitStatus {
        state: state.word().to_owned(),
        reason: reason.map(|reason| reason.word().to_owned()),
        seconds_left: left,
        ejections_total: OutlierReason::ALL.into_iter().map(|it| backend.circuit().ejections(it)).sum(),
    }
}

fn load_status(sample: &Sample) -> LoadStatus {
    LoadStatus {
        requests_per_second: sample.requests_per_second,
        in_flight: sample.in_flight,
        queued: sample.queued,
        p50_seconds: sample.p50.map(|it| it.as_secs_f64()),
        p95_seconds: sample.p95.map(|it| it.as_secs_f64()),
        p99_seconds: sample.p99.map(|it| it.as_secs_f64()),
        requests_total: sample.requests_total,
        failed_total: sample.failed_total,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn board() -> Board {
        Board::new("shop", &["127.0.0.1:8080".parse().unwrap()], Instant::now())
    }

    #[test]
    fn a_draining_tier_does_not_serve_again() {
        let board = board();
        board.set_state(TierState::Draining);
        board.set_state(TierState::Serving);
        assert_eq!(board.state(), TierState::Draining);
    }

    #[test]
    fn only_the_newest_decisions_are_kept() {
        let board = board();
        for to in 0..100 {
            board.note_decision(DecisionStatus { to, ..DecisionStatus::default() });
        }
        let kept: Vec<u32> = board.decisions().iter().map(|decision| decision.to).collect();
        assert_eq!(kept, (36..100).collect::<Vec<_>>());
    }
}
