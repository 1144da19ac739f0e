//! What a user wants of a tier's size: targets, bounds, windows, rates.
//!
//! Every key is described in `POLICY.md`. Values are plain and public;
//! [`Policy::complaints`] tells what is wrong with them, and a
//! [`Scaler`](crate::Scaler) takes only a policy without complaints.

mod check;
mod keys;
mod read;
mod rules;
mod signals;

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::forecast::Predict;
use crate::rate::{Rate, Select};
use crate::schedule::Schedule;
use crate::signal::Signal;
use crate::step::Step;

pub use signals::{CustomSignal, Origin};

/// A policy for one tier.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Whether it acts.
    pub mode: Mode,
    /// Fewest backends, the parent included; 1 or more.
    pub min: u32,
    /// Most backends, the parent included.
    pub max: u32,
    /// What one backend should carry.
    pub targets: Targets,
    /// Values up to which a signal asks for nothing.
    pub activation: Vec<(Signal, f64)>,
    /// Signals beside the built-in ones.
    pub signals: Vec<CustomSignal>,
    /// Steps beside the targets.
    pub steps: Vec<Step>,
    /// Floors by the calendar.
    pub schedule: Vec<Schedule>,
    /// A floor by what was wanted a day or a week before.
    pub predict: Option<Predict>,
    /// Where what is remembered for that is kept; `None` for nowhere. Whoever runs the
    /// scaler reads and writes it.
    pub predict_file: Option<PathBuf>,
    /// Where everything told and decided is written down; `None` for nowhere. Whoever
    /// runs the scaler writes it, see [`crate::journal`].
    pub journal: Option<PathBuf>,
    /// What to do without any signal.
    pub fallback: Option<Fallback>,
    /// What a missing signal means for shrinking.
    pub when_missing: WhenMissing,
    /// Window that shrinking looks at.
    pub stable_window: Duration,
    /// Window that panic looks at.
    pub panic_window: Duration,
    /// Load over capacity, in the panic window, that starts a panic; 2.0 is twice.
    pub panic_threshold: f64,
    /// Time in which a queue should be gone; sizes the growth that a queue asks for.
    pub drain_queue_within: Duration,
    /// Share by which the load may miss the target before anything is done.
    pub tolerance: f64,
    /// Most clones on their way at once.
    pub surge: u32,
    /// Age from which on a sample says nothing about now.
    pub stale_after: Duration,
    /// Most clones asked for at once while no backend is ready.
    pub from_zero_cap: u32,
    /// How long to be content with fewer clones than asked for.
    pub retry_refused_after: Duration,
    /// How it grows.
    pub scale_up: ScaleUp,
    /// How it shrinks.
    pub scale_down: ScaleDown,
    /// Which of the times above were given; the others follow what clones take.
    pub given: GivenTimes,
}

/// Times that a user gave, and that stay whatever clones take.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct GivenTimes {
    /// `stable_window`.
    pub stable_window: bool,
    /// `panic_window`.
    pub panic_window: bool,
    /// `drain_queue_within`.
    pub drain_queue_within: bool,
    /// `scale_up.window`.
    pub growth_window: bool,
    /// `scale_down.stabilisation`.
    pub stabilisation: bool,
    /// `scale_down.rate`.
    pub shrink_rate: bool,
}

/// Whether a policy acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// It decides, and decisions are carried out.
    #[default]
    Active,
    /// It decides and explains, and nothing is carried out.
    Recommend,
    /// It does nothing at all, whatever `min` and `max` say.
    Paused,
}

impl Mode {
    /// Its name in policies.
    pub fn name(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Recommend => "recommend",
            Self::Paused => "paused",
        }
    }
}

/// What a missing signal means for shrinking.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhenMissing {
    /// Nothing shrinks while any signal with a target is missing.
    Keep,
    /// The other signals decide alone.
    Ignore,
}

/// What to do when no signal has been fresh for some time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fallback {
    /// The time.
    pub after: Duration,
    /// Backends there are at least then, the parent included.
    pub backends: u32,
}

/// What one backend should carry. Over the signals that have a target, the one that
/// wants the most backends decides. Latencies, waits and errors only add or keep backends.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Targets {
    /// Requests in flight and queued, per backend.
    pub concurrency: Option<f64>,
    /// Requests per second, per backend.
    pub requests_per_second: Option<f64>,
    /// Share of the guests' processors that is busy.
    pub cpu: Option<f64>,
    /// Median latency.
    pub p50_latency: Option<Duration>,
    /// 95th percentile of latency.
    pub p95_latency: Option<Duration>,
    /// 99th percentile of latency.
    pub p99_latency: Option<Duration>,
    /// Wait for a backend.
    pub queue_wait: Option<Duration>,
    /// Share of requests that fail.
    pub error_share: Option<f64>,
}

impl Targets {
    /// The signals that have a target, with it.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Signal, f64)> {
        let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
        let given = [
            (Signal::Concurrency, self.concurrency),
            (Signal::RequestsPerSecond, self.requests_per_second),
            (Signal::Cpu, self.cpu),
            (Signal::P50Latency, seconds(self.p50_latency)),
            (Signal::P95Latency, seconds(self.p95_latency)),
            (Signal::P99Latency, seconds(self.p99_latency)),
            (Signal::QueueWait, seconds(self.queue_wait)),
            (Signal::ErrorShare, self.error_share),
        ];
        given.into_iter().filter_map(|(signal, target)| Some((signal, target?)))
    }
}

/// How a tier grows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScaleUp {
    /// Whether it grows by load at all.
    pub enabled: bool,
    /// Window that growing looks at.
    pub window: Duration,
    /// Grows no higher than what was wanted all the time within this window.
    pub stabilisation: Duration,
    /// Share by which the load may be over; `None` for the policy's.
    pub tolerance: Option<f64>,
    /// Time after any change in which nothing grows.
    pub cool_down: Duration,
    /// Limit on growth per period.
    pub rate: Option<Rate>,
}

/// How a tier shrinks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ScaleDown {
    /// Whether it shrinks by load at all.
    pub enabled: bool,
    /// Shrinks no lower than what was wanted at any time within this window.
    pub stabilisation: Duration,
    /// Share by which the load may be under; `None` for the policy's.
    pub tolerance: Option<f64>,
    /// Time after any change in which nothing shrinks.
    pub cool_down: Duration,
    /// Limit on shrinking per period.
    pub rate: Option<Rate>,
}

/// A way for a tier's size to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// More backends.
    Up,
    /// Fewer backends.
    Down,
}

impl fmt::Display for Direction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Up => "growing",
            Self::Down => "shrinking",
        })
    }
}

impl Policy {
    /// From asking for a clone to its first answer, while none has been timed: what a
    /// sibling takes on the two cores that `tests/bench fork` was run on.
    pub const ASSUMED_CLONE_TIME: Duration = Duration::from_millis(250);
    /// Largest tier that can be asked for.
    pub const LARGEST_MAX: u32 = 100_000;

    /// The defaults for a tier whose clones answer `clone_time` after they were asked for,
    /// as measured. Windows follow it within bounds: reacting faster than clones arrive
    /// asks for the same ones twice, and reacting slower wastes what a fork is good for.
    pub fn defaults_for(clone_time: Duration) -> Self {
        let panic_window =
            (clone_time.saturating_mul(4)).clamp(Duration::from_secs(1), Duration::from_secs(6));
        let stable_window = (panic_window * 5).clamp(Duration::from_secs(10), Duration::from_secs(60));
        Self {
            mode: Mode::Active,
            min: 1,
            max: 8,
            targets: Targets { concurrency: Some(4.0), ..Targets::default() },
            activation: Vec::new(),
            signals: Vec::new(),
            steps: Vec::new(),
            schedule: Vec::new(),
            predict: None,
            predict_file: None,
            journal: None,
            fallback: None,
            when_missing: WhenMissing::Keep,
            stable_window,
            panic_window,
            panic_threshold: 2.0,
            drain_queue_within: panic_window,
            tolerance: 0.1,
            surge: 8,
            stale_after: Duration::from_secs(3),
            from_zero_cap: 8,
            retry_refused_after: Duration::from_secs(5),
            scale_up: ScaleUp {
                enabled: true,
                window: Self::growth_window(panic_window, stable_window),
                stabilisation: Duration::ZERO,
                tolerance: None,
                cool_down: Duration::ZERO,
                rate: None,
            },
            scale_down: ScaleDown {
                enabled: true,
                stabilisation: stable_window * 3,
                tolerance: None,
                cool_down: Duration::ZERO,
                rate: Some(Self::default_rate(stable_window)),
            },
            given: GivenTimes::default(),
        }
    }

    /// This policy with the times that were not given as they are for clones that take
    /// `clone_time`. Times that were given may leave no room for others: then it stays.
    #[must_use]
    pub fn for_clones_of(&self, clone_time: Duration) -> Self {
        let (default, given) = (Self::defaults_for(clone_time), self.given);
        let mut policy = self.clone();
        let follow = |given: bool, time: &mut Duration, of: Duration| {
            if !given {
                *time = of;
            }
        };
        follow(given.panic_window, &mut policy.panic_window, default.panic_window);
        follow(given.stable_window, &mut policy.stable_window, default.stable_window);
        let (panic_window, stable_window) = (policy.panic_window, policy.stable_window);
        follow(given.drain_queue_within, &mut policy.drain_queue_within, panic_window);
        let growth_window = Self::growth_window(panic_window, stable_window);
        follow(given.growth_window, &mut policy.scale_up.window, growth_window);
        let stabilisation = stable_window.saturating_mul(3);
        follow(given.stabilisation, &mut policy.scale_down.stabilisation, stabilisation);
        if !given.shrink_rate {
            policy.scale_down.rate = Some(Self::default_rate(stable_window));
        }
        if policy.problems().is_empty() { policy } else { self.clone() }
    }

    /// Share by which the load may be over its target.
    pub(crate) fn tolerance_up(&self) -> f64 {
        self.scale_up.tolerance.unwrap_or(self.tolerance)
    }

    /// Share by which the load may be under its target.
    pub(crate) fn tolerance_down(&self) -> f64 {
        self.scale_down.tolerance.unwrap_or(self.tolerance)
    }

    /// Age from which on a value of a signal says nothing: one that is asked for now and
    /// then may miss two answers.
    pub(crate) fn stale_after(&self, signal: Signal) -> Duration {
        let own = self.signals.iter().find(|own| Signal::Custom(own.name) == signal);
        match own.map(|own| &own.origin) {
            Some(Origin::Prometheus { every, .. }) => self.stale_after.max(every.saturating_mul(3)),
            _ => self.stale_after,
        }
    }

    /// Twice the panic window: what does not double the load can wait for a second look.
    fn growth_window(panic_window: Duration, stable_window: Duration) -> Duration {
        panic_window.saturating_mul(2).min(stable_window)
    }

    /// Half of the backends, and at least one, per period.
    fn default_rate(per: Duration) -> Rate {
        Rate { backends: Some(1), share: Some(0.5), per, select: Select::Max }
    }
}

impl Default for Policy {
    /// The defaults while no clone has been timed.
    fn default() -> Self {
        Self::defaults_for(Self::ASSUMED_CLONE_TIME)
    }
}

#[cfg(test)]
mod tests;
