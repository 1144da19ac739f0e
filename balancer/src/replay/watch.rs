//! What the tier said about itself during a replay, from its status document.
//!
//! Pure: [`super::sampler`] fetches documents, this file compares each with
//! the one before and keeps what a picture needs. The tier's clock (seconds
//! since its start) is mapped to the replay's by the age that each document
//! states, so decisions fall on the right place even if a sample came late.

use std::collections::{BTreeMap, VecDeque};

use crate::admin::status::{CloneStatus, DecisionStatus, EngineStatus, Status};

/// The tier at one moment of the replay.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample {
    /// Seconds since the start of the replay.
    pub at: f64,
    /// Backends wanted.
    pub desired: u32,
    /// Backends that take new requests.
    pub ready: u32,
    /// Clones being born.
    pub starting: u32,
    /// Clones draining.
    pub retiring: u32,
    /// Clones in state `ready`; `None` for a tier of fixed backends.
    pub clones_ready: Option<u32>,
}

/// A clone that was first seen during the replay.
#[derive(Debug, Clone, PartialEq)]
pub struct Birth {
    /// Clone ID.
    pub id: u32,
    /// When it was first seen, seconds since the start of the replay.
    pub at: f64,
    /// From `sf_create_clones` to its first HTTP response, milliseconds.
    pub first_response_ms: Option<f64>,
}

/// A decision of the scaler, with its time on the clock of the replay.
#[derive(Debug, Clone, PartialEq)]
pub struct Mark {
    /// Seconds since the start of the replay.
    pub at: f64,
    /// What was decided.
    pub decision: DecisionStatus,
}

/// What the engine measured, as last stated.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct EngineFacts {
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// Why.
    pub accelerator_reason: String,
    /// See [`EngineStatus::boot_to_first_response_ms`].
    pub boot_to_first_response_ms: Option<f64>,
    /// See [`EngineStatus::parent_pause_ms`].
    pub parent_pause_ms: Option<f64>,
    /// See [`EngineStatus::descriptor_bytes`].
    pub descriptor_bytes: Option<u64>,
    /// See [`EngineStatus::fork_to_first_response_ms`].
    pub fork_to_first_response_ms: Option<f64>,
    /// Pages fetched since the replay began.
    pub pages_fetched: u64,
}

/// All that was seen.
#[derive(Debug, Clone, Default)]
pub struct Watch {
    /// In order of time.
    pub samples: Vec<Sample>,
    /// In order of time.
    pub births: Vec<Birth>,
    /// In order of time; those of the replay only.
    pub decisions: Vec<Mark>,
    /// `None` for a tier of fixed backends.
    pub engine: Option<EngineFacts>,
    /// Status documents that could not be had.
    pub missed: u64,
    /// Clones alive at the last sample, with the index of their birth, if it
    /// fell into the replay.
    alive: BTreeMap<u32, Option<usize>>,
    /// The newest decisions of the last sample.
    last_decisions: VecDeque<DecisionStatus>,
    /// Pages fetched at the first sample.
    pages_before: Option<u64>,
}

impl Watch {
    /// Takes in the status document that was there `at` seconds into the replay.
    pub fn observe(&mut self, at: f64, status: &Status) {
        let first = self.samples.is_empty();
        let engine = status.engine.as_ref();
        let scaling = &status.scaling;
        self.samples.push(Sample {
            at,
            desired: scaling.desired,
            ready: scaling.ready,
            starting: scaling.starting,
            retiring: scaling.retiring,
            clones_ready: engine.map(|e| e.clones.iter().filter(|c| c.state == "ready").count() as u32),
        });
        self.observe_decisions(at - status.uptime_seconds, &status.decisions, first);
        if let Some(engine) = engine {
            self.observe_clones(at, &engine.clones, first);
            self.observe_engine(engine);
        }
    }

    /// A status document could not be had.
    pub fn miss(&mut self) {
        self.missed += 1;
    }

    fn observe_decisions(&mut self, offset: f64, decisions: &[DecisionStatus], first: bool) {
        let new = decisions.len() - self.known(decisions);
        if !first {
            let new = &decisions[decisions.len() - new..];
            let marks = new.iter().map(|d| Mark { at: offset + d.at_seconds, decision: d.clone() });
            self.decisions.extend(marks);
        }
        self.last_decisions = decisions.iter().cloned().collect();
    }

    /// How many of these decisions were in the last sample already. Both lists
    /// are windows on one sequence: the newer one starts somewhere in the older.
    fn known(&self, decisions: &[DecisionStatus]) -> usize {
        let old = &self.last_decisions;
        let longest = old.len().min(decisions.len());
        let matches = |n: &usize| old.iter().skip(old.len() - n).eq(&decisions[..*n]);
        (0..=longest).rev().find(matches).unwrap_or(0)
    }

    fn observe_clones(&mut self, at: f64, clones: &[CloneStatus], first: bool) {
        let live = |clone: &&CloneStatus| !matches!(clone.state.as_str(), "gone" | "failed");
        let mut alive = BTreeMap::new();
        for clone in clones.iter().filter(live) {
            let birth = match self.alive.get(&clone.id) {
                Some(known) => *known,
                None if first => None,
                None => {
                    self.births.push(Birth { id: clone.id, at, first_response_ms: None });
                    Some(self.births.len() - 1)
                }
            };
            if let (Some(index), Some(ms)) = (birth, clone.fork_to_first_response_ms) {
                self.births[index].first_response_ms = Some(ms);
            }
            alive.insert(clone.id, birth);
        }
        self.alive = alive;
    }

    fn observe_engine(&mut self, engine: &EngineStatus) {
        let before = *self.pages_before.get_or_insert(engine.pages_fetched);
        self.engine = Some(EngineFacts {
            accelerator: engine.accelerator.clone(),
            accelerator_reason: engine.accelerator_reason.clone(),
            boot_to_first_response_ms: engine.boot_to_first_response_ms,
            parent_pause_ms: engine.parent_pause_ms,
            descriptor_bytes: engine.descriptor_bytes,
            fork_to_first_response_ms: engine.fork_to_first_response_ms,
            pages_fetched: engine.pages_fetched.saturating_sub(before),
        });
    }

    /// Whether no clone is left and none is on its way.
    pub fn is_settled(&self) -> bool {
        self.alive.is_empty() && self.samples.last().is_none_or(|last| last.starting == 0)
    }

    /// The most clones that were ready at once; `None` for a tier of fixed backends.
    pub fn clones_max(&self) -> Option<u32> {
        self.samples.iter().filter_map(|sample| sample.clones_ready).max()
    }

    /// Times from fork to first response of the clones born in this replay.
    pub fn first_responses_ms(&self) -> Vec<f64> {
        self.births.iter().filter_map(|birth| birth.first_response_ms).collect()
    }

    /// The last decision that changed something, or else the last of all.
    pub fn last_decision(&self) -> Option<&Mark> {
        let acted = self.decisions.iter().rev().find(|mark| mark.decision.action != "hold");
        acted.or(self.decisions.last())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decision(at: f64, action: &str) -> DecisionStatus {
        DecisionStatus { at_seconds: at, action: action.into(), from: 1, to: 2, reason: "load".into() }
    }

    fn clone(id: u32, state: &str, ms: Option<f64>) -> CloneStatus {
        CloneStatus { id, state: state.into(), fork_to_first_response_ms: ms, ..CloneStatus::default() }
    }

    fn status(uptime: f64, clones: Vec<CloneStatus>, decisions: Vec<DecisionStatus>) -> Status {
        let engine = EngineStatus { accelerator: "tcg".into(), clones, ..EngineStatus::default() };
        Status { uptime_seconds: uptime, engine: Some(engine), decisions, ..Status::default() }
    }

    #[test]
    fn a_clone_is_born_when_first_seen_and_its_time_may_come_later() {
        let mut watch = Watch::default();
        watch.observe(0.0, &status(10.0, vec![clone(1, "ready", Some(99.0))], vec![]));
        watch.observe(
            0.25,
            &status(10.25, vec![clone(1, "ready", Some(99.0)), clone(2, "running", None)], vec![]),
        );
        assert_eq!(watch.births, [Birth { id: 2, at: 0.25, first_response_ms: None }]);
        watch.observe(0.5, &status(10.5, vec![clone(2, "ready", Some(180.0))], vec![]));
        assert_eq!(watch.births, [Birth { id: 2, at: 0.25, first_response_ms: Some(180.0) }]);
        assert_eq!(watch.first_responses_ms(), [180.0]);
        assert_eq!(watch.clones_max(), Some(1));
    }

    #[test]
    fn an_id_that_comes_back_after_its_end_is_another_birth() {
        let mut watch = Watch::default();
        for (at, state) in [(0.0, "gone"), (1.0, "ready"), (2.0, "gone"), (3.0, "ready")] {
            watch.observe(at, &status(at, vec![clone(4, state, None)], vec![]));
        }
        assert_eq!(watch.births.iter().map(|birth| birth.at).collect::<Vec<_>>(), [1.0, 3.0]);
    }

    #[test]
    fn decisions_are_taken_once_and_fall_on_the_clock_of_the_replay() {
        let mut watch = Watch::default();
        let (a, b, c) = (decision(90.0, "hold"), decision(101.0, "grow"), decision(102.0, "hold"));
        watch.observe(0.5, &status(100.5, vec![], vec![a.clone()]));
        assert_eq!(watch.decisions, [], "what was decided before the replay is not of it");
        watch.observe(1.5, &status(101.5, vec![], vec![a, b.clone()]));
        watch.observe(2.5, &status(102.5, vec![], vec![b.clone(), c.clone()]));
        watch.observe(3.5, &status(103.5, vec![], vec![b, c]));
        assert_eq!(watch.decisions.iter().map(|mark| mark.at).collect::<Vec<_>>(), [1.0, 2.0]);
        assert_eq!(watch.last_decision().unwrap().decision.action, "grow");
    }

    #[test]
    fn a_window_of_decisions_that_moved_on_entirely_is_all_new() {
        let mut watch = Watch::default();
        watch.observe(0.0, &status(0.0, vec![], vec![decision(0.0, "hold")]));
        watch.observe(9.0, &status(9.0, vec![], vec![decision(8.0, "grow"), decision(9.0, "hold")]));
        assert_eq!(watch.decisions.len(), 2);
    }

    #[test]
    fn a_tier_is_settled_when_no_clone_is_left_and_none_is_starting() {
        let mut watch = Watch::default();
        assert!(watch.is_settled());
        watch.observe(0.0, &status(0.0, vec![clone(1, "retiring", None)], vec![]));
        assert!(!watch.is_settled());
        let mut starting = status(1.0, vec![clone(1, "gone", None)], vec![]);
        starting.scaling.starting = 1;
        watch.observe(1.0, &starting);
        assert!(!watch.is_settled());
        watch.observe(2.0, &status(2.0, vec![clone(1, "gone", None)], vec![]));
        assert!(watch.is_settled());
    }

    #[test]
    fn a_tier_of_fixed_backends_yields_no_clones_rather_than_zero() {
        let mut watch = Watch::default();
        watch.observe(0.0, &Status::default());
        assert_eq!((watch.clones_max(), watch.engine), (None, None));
    }

    #[test]
    fn pages_are_counted_from_the_start_of_the_replay() {
        let mut watch = Watch::default();
        for (at, pages) in [(0.0, 1_000), (1.0, 2_500)] {
            let mut status = status(at, vec![], vec![]);
            status.engine.as_mut().unwrap().pages_fetched = pages;
            watch.observe(at, &status);
        }
        assert_eq!(watch.engine.unwrap().pages_fetched, 1_500);
    }
}
