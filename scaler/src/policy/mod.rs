//! What a user wants of a tier's size: targets, bounds, windows, rates.
//!
//! Every key is described in `POLICY.md`. Values are plain and public;
//! [`Policy::complaints`] tells what is wrong with them, and a
//! [`Scaler`](crate::Scaler) takes only a policy without complaints.

mod check;
mod keys;
mod read;

use std::fmt;
use std::time::Duration;

use serde::Serialize;

use crate::rate::{Rate, Select};
use crate::signal::Signal;

/// A policy for one tier.
#[derive(Debug, Clone, PartialEq)]
pub struct Policy {
    /// Fewest backends, the parent included; 1 or more.
    pub min: u32,
    /// Most backends, the parent included.
    pub max: u32,
    /// What one backend should carry.
    pub targets: Targets,
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
    /// How long to be content with fewer clones than asked for.
    pub retry_refused_after: Duration,
    /// How it grows.
    pub scale_up: ScaleUp,
    /// How it shrinks.
    pub scale_down: ScaleDown,
}

/// What one backend should carry. At least one of concurrency and requests per second
/// is set; over those set, the one that wants the most backends decides.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Targets {
    /// Requests in flight and queued, per backend.
    pub concurrency: Option<f64>,
    /// Requests per second, per backend.
    pub requests_per_second: Option<f64>,
    /// 95th percentile of latency. It only adds backends or keeps them.
    pub p95_latency: Option<Duration>,
}

impl Targets {
    /// The signals that have a target, with it.
    pub(crate) fn all(&self) -> impl Iterator<Item = (Signal, f64)> {
        let given = [
            (Signal::Concurrency, self.concurrency),
            (Signal::RequestsPerSecond, self.requests_per_second),
            (Signal::P95Latency, self.p95_latency.map(|latency| latency.as_secs_f64())),
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
            min: 1,
            max: 8,
            targets: Targets { concurrency: Some(4.0), requests_per_second: None, p95_latency: None },
            stable_window,
            panic_window,
            panic_threshold: 2.0,
            drain_queue_within: panic_window,
            tolerance: 0.1,
            surge: 8,
            stale_after: Duration::from_secs(3),
            retry_refused_after: Duration::from_secs(5),
            scale_up: ScaleUp {
                enabled: true,
                window: Self::growth_window(panic_window, stable_window),
                rate: None,
            },
            scale_down: ScaleDown {
                enabled: true,
                stabilisation: stable_window * 3,
                rate: Some(Self::default_rate(stable_window)),
            },
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
    /// The defaults while no clone has been timed: those for half a second.
    fn default() -> Self {
        Self::defaults_for(Duration::from_millis(500))
    }
}

#[cfg(test)]
mod tests;
