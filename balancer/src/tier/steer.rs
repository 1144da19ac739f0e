//! The scaler of a tier with all that it is told and that tells of it: metrics, the
//! status document, the journal, the record of former days.
//!
//!   samples, answers, orders, grants -> Steer -> Decision -> the control loop

use std::collections::{BTreeMap, VecDeque};
use std::time::{Duration, Instant};

use scaler::journal::{Entry, Happened};
use scaler::{Decision, Explanation, Policy, PoolView, Scaler, Signal};
use snowflock_engine::control::{LifeState, View};
use snowflock_engine::network::identity::CloneId;

use super::TierError;
use super::journal::Journal;
use super::observe;
use super::processors::{self, Processors};
use super::queries::Answered;
use super::record::RecordFile;
use super::report::median;
use super::scaler_metrics::ScalerMeter;
use crate::admin::status::{DecisionStatus, ScalerStatus, SignalStatus};
use crate::front::{Handles, Order};

/// Births whose median tells what clones take; fewer than the least tell nothing.
const BIRTHS: (usize, usize) = (3, 16);
/// A share by which clones must take longer or shorter than before to change anything.
const NOTEWORTHY: f64 = 0.25;

/// The scaler and its surroundings; the control loop owns it.
pub(super) struct Steer {
    scaler: Scaler,
    meter: ScalerMeter,
    journal: Journal,
    record: Option<RecordFile>,
    handles: Handles,
    last: Option<Decision>,
    /// The newest sample that was told.
    sampled: Option<Instant>,
    processors: Processors,
    births: VecDeque<f64>,
    /// What clones take, as last told, seconds.
    clones_take: f64,
    /// States of clones as last written down.
    states: BTreeMap<CloneId, LifeState>,
}

impl Steer {
    /// A scaler that has seen nothing but what the policy's files remember.
    pub(super) fn new(policy: &Policy, vcpus: u32, handles: &Handles) -> Result<Self, TierError> {
        let unusable = |complaints| TierError::Unusable { key: "scaling", problem: format!("{complaints}") };
        let mut scaler = Scaler::new(policy.clone()).map_err(unusable)?;
        let record = RecordFile::open(policy.predict_file.as_deref(), &mut scaler);
        let (journal, handles) = (Journal::open(policy.journal.as_deref()), handles.clone());
        let meter = ScalerMeter::new(&handles.registry)?;
        let started = Happened::Started {
            unix_seconds: observe::wall_clock().as_secs_f64(),
            record: scaler.record().cloned(),
        };
        journal.note(handles.board.uptime().as_secs_f64(), started);
        Ok(Self {
            scaler,
            meter,
            journal,
            record,
            handles,
            last: None,
            sampled: None,
            processors: Processors::new(vcpus),
            births: VecDeque::new(),
            clones_take: Policy::ASSUMED_CLONE_TIME.as_secs_f64(),
            states: BTreeMap::new(),
        })
    }

    /// Takes the newest sample and decides for the pool. `processes` run the ready VMs.
    pub(super) fn decide(&mut self, pool: &PoolView, processes: &[u32]) -> Decision {
        let (now, unix) = (self.now(), observe::wall_clock());
        self.observe(processes, now);
        self.scaler.set_wall_clock(unix, now);
        let decision = self.scaler.decide(pool, now);
        let news = self.last.is_none_or(|last| decision.is_news_after(&last));
        let explanation = self.scaler.explain(&decision, pool);
        self.meter.decided(&decision, pool, &self.scaler, &explanation.inputs);
        self.journal.note(now.as_secs_f64(), Happened::Clock { unix_seconds: unix.as_secs_f64() });
        let changes = if news { explanation.would_change.clone() } else { Vec::new() };
        self.journal.write(Entry::decision(&decision, pool, changes));
        if news {
            self.tell(&decision);
        }
        self.handles.board.set_scaler(self.status(explanation));
        self.last = Some(decision);
        if let Some(record) = &mut self.record {
            record.keep(self.scaler.record());
        }
        decision
    }

    /// Takes the newest sample, unless it is the one of before: what does not come any more
    /// grows stale.
    fn observe(&mut self, processes: &[u32], now: Duration) {
        let seen = *self.handles.samples.borrow();
        if self.sampled.replace(seen.at) == Some(seen.at) {
            return;
        }
        let cpu = self.scaler.goes_by(Signal::Cpu);
        let cpu = cpu.then(|| self.processors.share(processes, seen.at, processors::used)).flatten();
        let sample = observe::sample(&seen, cpu);
        self.scaler.observe(&sample, now);
        self.journal.note(now.as_secs_f64(), Happened::Sample { sample });
    }

    fn tell(&self, decision: &Decision) {
        let (from, to) = (decision.from, decision.to);
        tracing::info!(from, to, "{}: {}", decision.action.name(), decision.reason);
        self.handles.board.note_decision(DecisionStatus {
            at_seconds: decision.at.as_secs_f64(),
            action: decision.action.name().to_owned(),
            from,
            to,
            reason: decision.reason.to_string(),
        });
    }

    fn status(&self, explanation: Explanation) -> ScalerStatus {
        let signal = |reading: scaler::Reading| SignalStatus {
            signal: reading.signal.name().to_owned(),
            target: reading.target,
            value: reading.value,
            stable: reading.stable,
            age_seconds: reading.age.map(|age| age.as_secs_f64()),
        };
        let (min, max) = self.scaler.held_to();
        ScalerStatus {
            mode: self.scaler.policy().mode.name().to_owned(),
            min,
            max,
            panic_seconds: self.scaler.panicking_for().map(|left| left.as_secs_f64()),
            forecast: self.scaler.forecast(),
            signals: explanation.inputs.into_iter().map(signal).collect(),
            would_change: explanation.would_change,
        }
    }

    /// Backends wanted by the last decision.
    pub(super) fn desired(&self) -> Option<u32> {
        self.last.map(|last| last.to)
    }

    /// Fewest backends that must stay ready now.
    pub(super) fn least(&self) -> u32 {
        self.scaler.held_to().0
    }

    /// So many clones were granted of those asked for.
    pub(super) fn granted(&mut self, asked: u32, granted: u32) {
        let now = self.now();
        self.meter.granted(asked, granted);
        self.scaler.granted(asked, granted, now);
        self.journal.note(now.as_secs_f64(), Happened::Granted { asked, granted });
    }

    /// Clones were never born, or never answered.
    pub(super) fn not_born(&mut self, failed: u32) {
        self.births_were(0, failed);
    }

    /// A clone answers, so long after it was asked for.
    pub(super) fn born(&mut self, after: Duration) {
        self.births_were(1, 0);
        let (least, most) = BIRTHS;
        self.births.push_back(after.as_secs_f64());
        while self.births.len() > most {
            self.births.pop_front();
        }
        let usual = median(self.births.iter().copied().collect()).filter(|_| self.births.len() >= least);
        let Some(seconds) = usual else { return };
        if (seconds / self.clones_take - 1.0).abs() > NOTEWORTHY {
            self.clones_take = seconds;
            self.scaler.clones_take(Duration::from_secs_f64(seconds));
            self.journal.note(self.now().as_secs_f64(), Happened::CloneTime { seconds });
            tracing::info!(seconds, "clones take another time than was reckoned with");
        }
    }

    fn births_were(&mut self, born: u32, failed: u32) {
        let now = self.now();
        self.scaler.births(born, failed, now);
        self.journal.note(now.as_secs_f64(), Happened::Births { born, failed });
    }

    /// A Prometheus was asked for a signal.
    pub(super) fn answered(&mut self, answered: &Answered) {
        let now = self.now();
        let taken = answered.value.as_ref().map(|value| self.scaler.observe_own(answered.name, *value, now));
        self.meter.answered(answered.name.as_str(), matches!(taken, Ok(Ok(()))));
        if let Ok(value) = answered.value {
            let signal = answered.name.to_string();
            self.journal.note(now.as_secs_f64(), Happened::Signal { signal, value });
        }
    }

    /// Someone asked for a size or a mode.
    pub(super) fn obey(&mut self, order: Order) {
        let now = self.now();
        let what = match order {
            Order::HoldAt { backends, time } => {
                self.scaler.hold_at(backends, time, now);
                Happened::HoldAt { backends, for_seconds: time.map(|time| time.as_secs_f64()) }
            }
            Order::Resume => {
                self.scaler.resume();
                Happened::Resume
            }
            Order::Mode(mode) => {
                self.scaler.set_mode(mode);
                Happened::Mode { mode }
            }
        };
        self.journal.note(now.as_secs_f64(), what);
    }

    /// Writes down which clones came to another state.
    pub(super) fn follow(&mut self, view: &View) {
        if !self.journal.is_open() {
            return;
        }
        let at = self.now().as_secs_f64();
        for clone in &view.clones {
            if self.states.get(&clone.id) == Some(&clone.state) {
                continue;
            }
            self.states.insert(clone.id, clone.state.clone());
            let detail = match &clone.state {
                LifeState::Failed(why) => Some(why.to_string()),
                _ => None,
            };
            let (id, state) = (clone.id.to_string(), clone.state.to_string());
            self.journal.note(at, Happened::Clone { id, state, detail });
        }
        self.states.retain(|id, _| view.clones.iter().any(|clone| clone.id == *id));
    }

    fn now(&self) -> Duration {
        self.handles.board.uptime()
    }
}

impl Drop for Steer {
    fn drop(&mut self) {
        if let Some(record) = &mut self.record {
            record.finish(self.scaler.record());
        }
    }
}
