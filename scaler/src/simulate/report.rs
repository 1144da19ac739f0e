//! What a simulation measured.

use std::time::Duration;

use serde::Serialize;

use crate::decision::Decision;
use crate::pool::PoolView;
use crate::reason::seconds;

/// Counts changes of direction that take back what was done within the last five minutes.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reversals {
    /// The last change: when, and whether it grew.
    last: Option<(Duration, bool)>,
    count: u32,
}

impl Reversals {
    const WITHIN: Duration = Duration::from_secs(300);

    /// The tier was told to grow, or else to shrink.
    pub fn changed(&mut self, grew: bool, now: Duration) {
        let turned =
            |(at, before): (Duration, bool)| before != grew && now.saturating_sub(at) <= Self::WITHIN;
        self.count += u32::from(self.last.is_some_and(turned));
        self.last = Some((now, grew));
    }

    /// How many there were.
    pub fn count(&self) -> u32 {
        self.count
    }
}

/// What a simulation measured. Shares follow the elasticity metrics of Herbst et al.
/// (ICAC 2013): how much is missing or too much, relative to demand and averaged over
/// time, and for how much of the time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct SimReport {
    /// Who decided: `flurry`, `hpa`, `kpa` or `static`.
    pub name: String,
    /// Length of the trace.
    pub seconds: f64,
    /// Time during which more than 5 % of requests missed the latency objective.
    pub slo_violation_seconds: f64,
    /// Backends, the parent included, from when they were asked for until they left, times
    /// hours.
    pub clone_hours: f64,
    /// The same with perfect foresight: at every moment the fewest that meet the objective.
    pub foresight_hours: f64,
    /// Backends missing over backends needed, mean over time.
    pub under_share: f64,
    /// Backends too many over backends needed, mean over time.
    pub over_share: f64,
    /// Share of the time with too few.
    pub under_time: f64,
    /// Share of the time with too many.
    pub over_time: f64,
    /// Times it grew.
    pub grows: u32,
    /// Times it shrank.
    pub shrinks: u32,
    /// Changes of direction within five minutes.
    pub reversals: u32,
    /// Most backends at any time.
    pub peak: u32,
    /// Longest 95th percentile of latency, seconds.
    pub worst_latency_seconds: f64,
    /// Load, size and latency over time.
    pub timeline: Vec<Moment>,
    /// Every decision that changed something; only `flurry` explains them.
    pub decisions: Vec<Decision>,
}

/// One moment of a simulation, for a plot.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Moment {
    /// When.
    #[serde(rename = "at_seconds", serialize_with = "seconds")]
    pub at: Duration,
    /// Requests per second.
    pub requests_per_second: f64,
    /// Backends that serve.
    pub ready: u32,
    /// Clones on their way.
    pub starting: u32,
    /// Backends needed to meet the objective.
    pub needed: u32,
    /// 95th percentile of latency, seconds; on a timeline the longest since the moment before.
    pub latency_seconds: f64,
}

/// Sums up while a simulation runs.
#[derive(Debug)]
pub(super) struct Meter {
    report: SimReport,
    reversals: Reversals,
    every: Option<Duration>,
    next_moment: Duration,
    /// Longest latency since the last moment of the timeline, seconds.
    longest: f64,
}

impl Meter {
    pub(super) fn new(name: &str, every: Option<Duration>) -> Self {
        let report = SimReport {
            name: name.to_owned(),
            seconds: 0.0,
            slo_violation_seconds: 0.0,
            clone_hours: 0.0,
            foresight_hours: 0.0,
            under_share: 0.0,
            over_share: 0.0,
            under_time: 0.0,
            over_time: 0.0,
            grows: 0,
            shrinks: 0,
            reversals: 0,
            peak: 0,
            worst_latency_seconds: 0.0,
            timeline: Vec::new(),
            decisions: Vec::new(),
        };
        Self { report, reversals: Reversals::default(), every, next_moment: Duration::ZERO, longest: 0.0 }
    }

    /// A step of time passed.
    pub(super) fn passed(&mut self, step: Duration, moment: Moment, violated: bool) {
        let report = &mut self.report;
        let seconds = step.as_secs_f64();
        let (ready, needed) = (f64::from(moment.ready), f64::from(moment.needed));
        report.seconds += seconds;
        report.slo_violation_seconds += if violated { seconds } else { 0.0 };
        report.clone_hours += (ready + f64::from(moment.starting)) * seconds / 3600.0;
        report.foresight_hours += needed * seconds / 3600.0;
        report.under_share += (needed - ready).max(0.0) / needed * seconds;
        report.over_share += (ready - needed).max(0.0) / needed * seconds;
        report.under_time += if ready < needed { seconds } else { 0.0 };
        report.over_time += if ready > needed { seconds } else { 0.0 };
        report.peak = report.peak.max(moment.ready + moment.starting);
        report.worst_latency_seconds = report.worst_latency_seconds.max(moment.latency_seconds);
        self.longest = self.longest.max(moment.latency_seconds);
        if let Some(every) = self.every.filter(|_| moment.at >= self.next_moment) {
            report.timeline.push(Moment { latency_seconds: self.longest, ..moment });
            self.next_moment = moment.at + every;
            self.longest = 0.0;
        }
    }

    /// The tier was told to change.
    pub(super) fn changed(&mut self, before: PoolView, after: PoolView, now: Duration) {
        let grew = after.capacity() > before.capacity();
        if after.capacity() == before.capacity() {
            return;
        }
        self.reversals.changed(grew, now);
        *(if grew { &mut self.report.grows } else { &mut self.report.shrinks }) += 1;
    }

    /// A decision was made that changed something.
    pub(super) fn decided(&mut self, decision: Decision) {
        self.report.decisions.push(decision);
    }

    pub(super) fn finish(mut self) -> SimReport {
        let report = &mut self.report;
        report.reversals = self.reversals.count();
        let shares =
            [&mut report.under_share, &mut report.over_share, &mut report.under_time, &mut report.over_time];
        for share in shares {
            *share /= report.seconds;
        }
        self.report
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    fn moment(ready: u32, needed: u32) -> Moment {
        let (requests_per_second, latency_seconds) = (1.0, 0.1);
        Moment { at: Duration::ZERO, requests_per_second, ready, starting: 1, needed, latency_seconds }
    }

    fn pool(ready: u32) -> PoolView {
        PoolView { ready, ..PoolView::default() }
    }

    #[test]
    fn shares_are_relative_to_demand_and_time() {
        let mut meter = Meter::new("test", None);
        meter.passed(1800 * S, moment(1, 4), true);
        meter.passed(1800 * S, moment(6, 4), false);
        let report = meter.finish();
        assert_eq!((report.under_share, report.over_share), (0.375, 0.25));
        assert_eq!((report.under_time, report.over_time), (0.5, 0.5));
        assert_eq!((report.clone_hours, report.foresight_hours), (4.5, 4.0));
        assert_eq!((report.slo_violation_seconds, report.peak), (1800.0, 7));
    }

    #[test]
    fn turning_back_within_five_minutes_is_a_reversal() {
        let mut meter = Meter::new("test", None);
        meter.changed(pool(1), pool(2), S);
        meter.changed(pool(2), pool(2), 2 * S);
        meter.changed(pool(2), pool(1), 301 * S);
        meter.changed(pool(1), pool(2), 602 * S);
        let report = meter.finish();
        assert_eq!((report.grows, report.shrinks, report.reversals), (2, 1, 1));
    }

    #[test]
    fn the_timeline_keeps_a_moment_now_and_then() {
        let mut meter = Meter::new("test", Some(10 * S));
        for second in 0..25 {
            meter.passed(S, Moment { at: second * S, ..moment(1, 1) }, false);
        }
        assert_eq!(meter.finish().timeline.len(), 3);
    }

    #[test]
    fn no_long_latency_hides_between_two_moments() {
        let mut meter = Meter::new("test", Some(10 * S));
        for second in 0..=10 {
            let latency_seconds = if second == 7 { 3.0 } else { 0.1 };
            meter.passed(S, Moment { at: second * S, latency_seconds, ..moment(1, 1) }, false);
        }
        let seen: Vec<f64> = meter.finish().timeline.iter().map(|moment| moment.latency_seconds).collect();
        assert_eq!(seen, [0.1, 3.0]);
    }
}
