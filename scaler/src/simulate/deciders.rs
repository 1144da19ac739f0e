//! Those who decide in a simulation: the scaler itself, and what it is compared with.

use std::time::Duration;

use super::tier::Tier;
use crate::decision::{Action, Decision};
use crate::history::History;
use crate::models::hpa::{self, Hpa, Pods};
use crate::models::kpa::{self, Kpa};
use crate::sample::Sample;
use crate::scaler::Scaler;

/// Someone who sees the tier after every step and changes it.
pub(super) trait Decider {
    /// Looks at the tier and changes it if need be. Returns the decision if it can be
    /// explained.
    fn step(&mut self, tier: &mut Tier, sample: &Sample, now: Duration) -> Option<Decision>;
}

/// The scaler itself, and the time since 1970 at time zero if that is known.
pub(super) struct Dated<'a> {
    pub(super) scaler: &'a mut Scaler,
    pub(super) starts: Option<Duration>,
}

impl Decider for Dated<'_> {
    fn step(&mut self, tier: &mut Tier, sample: &Sample, now: Duration) -> Option<Decision> {
        if let Some(starts) = self.starts {
            self.scaler.set_wall_clock(starts.saturating_add(now), now);
        }
        self.scaler.observe(sample, now);
        let decision = self.scaler.decide(&tier.pool(), now);
        match decision.action {
            Action::Grow { by } => tier.grow(by, now),
            Action::Shrink { by } => tier.shrink(by),
            Action::Hold => return None,
        }
        Some(decision)
    }
}

/// A number that never changes.
pub(super) struct Fixed(pub(super) u32);

impl Decider for Fixed {
    fn step(&mut self, tier: &mut Tier, _: &Sample, now: Duration) -> Option<Decision> {
        tier.scale(self.0, now);
        None
    }
}

/// The model of Knative's autoscaler, with its metric pipeline: averages over windows of
/// the concurrency, looked at every tick.
pub(super) struct KpaDecider {
    kpa: Kpa,
    config: kpa::Config,
    history: History,
    next: Duration,
    bounds: (u32, u32),
}

impl KpaDecider {
    pub(super) fn new(config: kpa::Config, ready: u32, bounds: (u32, u32), now: Duration) -> Self {
        let history = History::new(&[Duration::MAX], config.panic_window, config.stable_window);
        Self { kpa: Kpa::new(config, ready, now), config, history, next: now, bounds }
    }
}

impl Decider for KpaDecider {
    fn step(&mut self, tier: &mut Tier, sample: &Sample, now: Duration) -> Option<Decision> {
        let concurrency = sample.in_flight.unwrap_or(0.0) + sample.queued.unwrap_or(0.0);
        self.history.put(0, concurrency, now);
        if now < self.next {
            return None;
        }
        self.next = now + self.config.tick;
        let mean = |window| self.history.mean(0, window, now).unwrap_or(0.0);
        let (stable, panic) = (mean(self.config.stable_window), mean(self.config.panic_window));
        let desired = self.kpa.desired(stable, panic, tier.pool().ready, now);
        tier.scale(desired.clamp(self.bounds.0, self.bounds.1), now);
        None
    }
}

/// The model of the Kubernetes autoscaler on CPU utilisation, with its metric pipeline:
/// utilisation averaged over the metric's window, a pod counts once it was ready for that long.
pub(super) struct HpaDecider {
    hpa: Hpa,
    sync: Duration,
    history: History,
    next: Duration,
}

impl HpaDecider {
    /// Resolution of the metrics server.
    const METRIC_WINDOW: Duration = Duration::from_secs(15);

    pub(super) fn new(config: hpa::Config, bounds: (u32, u32), now: Duration) -> Self {
        let sync = config.sync;
        let history = History::new(&[Duration::MAX], Self::METRIC_WINDOW, Self::METRIC_WINDOW);
        Self { hpa: Hpa::new(config, bounds.0, bounds.1), sync, history, next: now + sync }
    }
}

impl Decider for HpaDecider {
    fn step(&mut self, tier: &mut Tier, sample: &Sample, now: Duration) -> Option<Decision> {
        // A pod uses its processors for what it serves, not for what waits.
        let busy = sample.in_flight.unwrap_or(0.0) / f64::from(tier.pool().ready);
        self.history.put(0, busy, now);
        if now < self.next {
            return None;
        }
        self.next = now + self.sync;
        let each = self.history.mean(0, Self::METRIC_WINDOW, now).unwrap_or(0.0);
        let measured =
            tier.ready_since().iter().filter(|since| now.saturating_sub(**since) >= Self::METRIC_WINDOW);
        let measured = measured.count() as u32;
        let current = tier.pool().capacity();
        let pods =
            Pods { measured, sum: each * f64::from(measured), unready: current - measured, missing: 0 };
        tier.scale(self.hpa.sync(current, pods, now), now);
        None
    }
}
