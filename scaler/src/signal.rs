//! The measures that a policy can go by, and how each asks for backends.

use std::fmt;
use std::time::Duration;

use serde::{Serialize, Serializer};

use crate::name::Name;

/// A measure that a policy can have a target for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signal {
    /// Requests in flight plus requests queued, over the whole tier.
    Concurrency,
    /// Requests per second, over the whole tier.
    RequestsPerSecond,
    /// Median latency in seconds.
    P50Latency,
    /// 95th percentile of latency in seconds.
    P95Latency,
    /// 99th percentile of latency in seconds.
    P99Latency,
    /// Wait for a backend in seconds.
    QueueWait,
    /// Share of requests that fail.
    ErrorShare,
    /// Share of the guests' processors that is busy.
    Cpu,
    /// A signal that the policy defines.
    Custom(Name),
}

/// How a signal asks for backends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// It counts for the whole tier, and each backend takes its target of it.
    Total,
    /// It is a mean over backends, which falls in proportion as they get more.
    PerBackend,
    /// It is how well the tier does, not how much there is to do: over its target it adds
    /// backends, and near it it keeps them.
    Guard,
}

impl Signal {
    /// The signals that need no definition.
    pub const BUILT_IN: [Self; 8] = [
        Self::Concurrency,
        Self::RequestsPerSecond,
        Self::P50Latency,
        Self::P95Latency,
        Self::P99Latency,
        Self::QueueWait,
        Self::ErrorShare,
        Self::Cpu,
    ];

    /// Its name in policies and in labels of metrics.
    pub fn name(&self) -> &str {
        match self {
            Self::Concurrency => "concurrency",
            Self::RequestsPerSecond => "requests_per_second",
            Self::P50Latency => "p50_latency",
            Self::P95Latency => "p95_latency",
            Self::P99Latency => "p99_latency",
            Self::QueueWait => "queue_wait",
            Self::ErrorShare => "error_share",
            Self::Cpu => "cpu",
            Self::Custom(name) => name.as_str(),
        }
    }

    /// The signal of a name; one that the policy defines if it is not built in.
    ///
    /// # Errors
    /// What a name must be.
    pub fn of_name(name: &str) -> Result<Self, String> {
        let built_in = Self::BUILT_IN.into_iter().find(|signal| signal.name() == name);
        built_in.map_or_else(|| Name::new(name).map(Self::Custom), Ok)
    }

    /// How it asks for backends, unless the policy says otherwise.
    pub fn measure(self) -> Measure {
        match self {
            Self::Concurrency | Self::RequestsPerSecond | Self::Custom(_) => Measure::Total,
            Self::Cpu => Measure::PerBackend,
            Self::P50Latency | Self::P95Latency | Self::P99Latency | Self::QueueWait | Self::ErrorShare => {
                Measure::Guard
            }
        }
    }

    /// A value of it for people, with its unit.
    pub(crate) fn shown(self, value: f64) -> String {
        match self {
            Self::P50Latency | Self::P95Latency | Self::P99Latency | Self::QueueWait => {
                format!("{} ms", short(value * 1e3))
            }
            Self::ErrorShare | Self::Cpu => format!("{}%", short(value * 100.0)),
            Self::Concurrency | Self::RequestsPerSecond | Self::Custom(_) => short(value),
        }
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::RequestsPerSecond => "requests per second",
            Self::P50Latency => "p50 latency",
            Self::P95Latency => "p95 latency",
            Self::P99Latency => "p99 latency",
            Self::QueueWait => "queue wait",
            Self::ErrorShare => "error share",
            Self::Concurrency | Self::Cpu | Self::Custom(_) => self.name(),
        })
    }
}

impl Serialize for Signal {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// What a signal of the policy says, and its target per backend.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Reading {
    /// The signal.
    pub signal: Signal,
    /// Its target per backend (seconds for latency).
    pub target: f64,
    /// Mean over the window for growing, for the whole tier (seconds for latency); `None`
    /// if nothing was ever heard of it.
    pub value: Option<f64>,
    /// Mean over the stable window.
    pub stable: Option<f64>,
    /// Age of its newest value.
    #[serde(rename = "age_seconds", serialize_with = "age_seconds")]
    pub age: Option<Duration>,
}

fn age_seconds<S: Serializer>(age: &Option<Duration>, serializer: S) -> Result<S::Ok, S::Error> {
    age.map(|age| age.as_secs_f64()).serialize(serializer)
}

/// A number with three digits that mean something at least.
pub(crate) fn short(value: f64) -> String {
    let rounded = if value.abs() >= 100.0 { value.round() } else { (value * 100.0).round() / 100.0 };
    rounded.to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signal_is_found_by_its_name() {
        for signal in Signal::BUILT_IN {
            assert_eq!(Signal::of_name(signal.name()), Ok(signal));
        }
        let own = Signal::of_name("jobs").expect("a name");
        assert_eq!((own.name(), own.measure()), ("jobs", Measure::Total));
        assert!(Signal::of_name("no such name").is_err());
    }

    #[test]
    fn values_are_shown_with_their_unit() {
        assert_eq!(Signal::P99Latency.shown(0.2), "200 ms");
        assert_eq!(Signal::Cpu.shown(0.705), "70.5%");
        assert_eq!(Signal::Concurrency.shown(41.234), "41.23");
    }
}
