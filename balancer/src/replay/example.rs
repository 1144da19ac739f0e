//! A made-up replay for the tests of view, summary and picture. Not a
//! measurement: every figure follows from a formula below.

use std::time::Duration;

use super::player::{Phase, Played};
use super::recorder::{Ending, Outcome, Recorder};
use super::schedule::{Arrivals, Plan};
use super::trace::{Trace, TraceTime};
use super::watch::Watch;
use crate::admin::status::{CloneStatus, DecisionStatus, EngineStatus, ScalingStatus, Status};

/// Requests per second that one made-up backend serves.
const PER_BACKEND: usize = 45;
/// The made-up tier was this old when the replay began, seconds.
const UPTIME: f64 = 30.0;

pub(crate) fn plan() -> Plan {
    let text = include_str!("../../../deploy/traces/wc98-0630.csv");
    let window = (TraceTime::from_seconds(48_600), TraceTime::from_seconds(81_000));
    let curve = Trace::parse(text).unwrap().window(Some(window.0), Some(window.1)).unwrap();
    let duration = Duration::from_secs(75);
    Plan { curve, duration, peak: 300.0, arrivals: Arrivals::Poisson, items: 200, seed: 1 }
}

/// The replay as it stands after that many seconds; the load lasts 75.
pub(crate) fn played(seconds: u64) -> Played {
    let load_ended = (seconds > 75).then(|| Duration::from_secs(75));
    Played {
        recorder: recorder(seconds),
        watch: watch(seconds),
        elapsed: Duration::from_secs(seconds),
        outstanding: 3,
        phase: if load_ended.is_some() { Phase::Settling } else { Phase::Loading },
        load_ended,
        interrupted: false,
    }
}

fn recorder(seconds: u64) -> Recorder {
    let mut recorder = Recorder::default();
    let due = plan().schedule().unwrap().into_iter().take_while(|arrival| arrival.at.as_secs() < seconds);
    for (n, arrival) in due.enumerate() {
        recorder.offer(arrival.at);
        let slow = if n % 17 == 0 { 4 } else { 1 };
        let waiting = 12_000 + 150 * (arrival.at.as_secs() % 9) + 37 * (n as u64 % 101);
        let done = arrival.at + Duration::from_micros(slow * waiting);
        let clone = Some(format!("clone-{}", n % 5));
        recorder.end(Outcome {
            due: arrival.at,
            done,
            ending: Ending::Answered { status: 200, cache_hit: Some(n % 50 != 0), clone },
        });
    }
    recorder
}

/// The made-up tier's state, four times a second.
fn watch(seconds: u64) -> Watch {
    let rates = rates();
    let mut watch = Watch::default();
    let mut tier = Tier::default();
    for quarter in 0..=seconds * 4 {
        let at = quarter as f64 / 4.0;
        if quarter % 4 == 0 {
            tier.decide(at, rates.get(at as usize).copied().unwrap_or(0));
        }
        watch.observe(at, &tier.status(at));
    }
    watch
}

fn rates() -> Vec<usize> {
    let mut rates = vec![0; 76];
    plan().schedule().unwrap().iter().for_each(|arrival| rates[arrival.at.as_secs() as usize] += 1);
    rates
}

#[derive(Default)]
struct Tier {
    clones: Vec<CloneStatus>,
    born: u32,
    decisions: Vec<DecisionStatus>,
    calm: u32,
}

impl Tier {
    fn decide(&mut self, at: f64, rate: usize) {
        let (from, wanted) = (self.clones.len() as u32 + 1, (rate / PER_BACKEND) as u32 + 1);
        self.calm = if wanted < from { self.calm + 1 } else { 0 };
        let (action, to) = match wanted {
            to if to > from => ("grow", to),
            _ if self.calm >= 5 => ("shrink", from - 1),
            _ => ("hold", from),
        };
        (from..to).for_each(|_| self.birth());
        self.clones.truncate(to as usize - 1);
        let reason = format!("{rate} req/s, {PER_BACKEND} a backend wanted, so {wanted}");
        let decision = DecisionStatus { at_seconds: UPTIME + at, action: action.into(), from, to, reason };
        let told = self.decisions.last().is_none_or(|last| last.action != "hold" || action != "hold");
        self.decisions.extend(told.then_some(decision));
    }

    fn birth(&mut self) {
        self.born += 1;
        let ms = if self.born == 1 { 290.0 } else { 130.0 + f64::from(self.born * 37 % 60) };
        self.clones.push(CloneStatus {
            id: self.born,
            state: "ready".into(),
            fork_to_first_response_ms: Some(ms),
            ..CloneStatus::default()
        });
    }

    fn status(&self, at: f64) -> Status {
        let ready = self.clones.len() as u32 + 1;
        Status {
            version: "0.1.0".into(),
            uptime_seconds: UPTIME + at,
            scaling: ScalingStatus { desired: ready, ready, ..ScalingStatus::default() },
            engine: Some(EngineStatus {
                accelerator: "tcg".into(),
                accelerator_reason: "there is no /dev/kvm".into(),
                clones: self.clones.clone(),
                boot_to_first_response_ms: Some(11_800.0),
                parent_pause_ms: Some(11.4),
                descriptor_bytes: Some(118_000),
                fork_to_first_response_ms: Some(150.0),
                pages_fetched: u64::from(self.born) * 900,
                ..EngineStatus::default()
            }),
            decisions: self.decisions.clone(),
            ..Status::default()
        }
    }
}
