//! The Kubernetes Horizontal Pod Autoscaler (`autoscaling/v2`).
//!
//!   average metric of the pods -> recommend -> stabilise -> rate policies -> replicas
//!
//! Sources: the Kubernetes documents "Horizontal Pod Autoscaling" (algorithm details,
//! configurable scaling behaviour) and enhancement proposal 853.

use std::collections::VecDeque;
use std::time::Duration;

/// Settings, with the defaults of the original.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Metric per pod to aim at, in the unit of the metric.
    pub target: f64,
    /// Deviation of the ratio from 1 that changes nothing.
    pub tolerance: f64,
    /// How often it looks.
    pub sync: Duration,
    /// How growth is limited.
    pub scale_up: Behaviour,
    /// How shrinking is limited.
    pub scale_down: Behaviour,
}

/// The limits in one direction.
#[derive(Debug, Clone, PartialEq)]
pub struct Behaviour {
    /// The most careful recommendation of this time is taken.
    pub stabilisation: Duration,
    /// The rate policies.
    pub policies: Vec<RatePolicy>,
    /// Which of them binds.
    pub select: Select,
}

/// A rate policy.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RatePolicy {
    /// How many.
    pub amount: Amount,
    /// Within this time.
    pub period: Duration,
}

/// How many pods a rate policy allows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Amount {
    /// So many pods.
    Pods(u32),
    /// Such a percentage of the pods at the start of the period.
    Percent(f64),
}

/// Which rate policy binds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Select {
    /// The one that allows most.
    Max,
    /// The one that allows least.
    Min,
    /// None: no change in this direction.
    Disabled,
}

impl Config {
    /// The defaults, with a target per pod.
    pub fn with_target(target: f64) -> Self {
        let policy = |amount| RatePolicy { amount, period: Duration::from_secs(15) };
        Self {
            target,
            tolerance: 0.1,
            sync: Duration::from_secs(15),
            scale_up: Behaviour {
                stabilisation: Duration::ZERO,
                policies: vec![policy(Amount::Pods(4)), policy(Amount::Percent(100.0))],
                select: Select::Max,
            },
            scale_down: Behaviour {
                stabilisation: Duration::from_secs(300),
                policies: vec![policy(Amount::Percent(100.0))],
                select: Select::Max,
            },
        }
    }
}

/// The pods as the metric sees them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Pods {
    /// Pods with a metric that counts.
    pub measured: u32,
    /// The sum of their metrics.
    pub sum: f64,
    /// Pods that are not ready yet, or for too short to have a metric.
    pub unready: u32,
    /// Ready pods whose metric is missing.
    pub missing: u32,
}

impl Config {
    /// Replicas that the metric recommends, before any behaviour.
    pub fn recommend(&self, current: u32, pods: Pods) -> u32 {
        if pods.measured == 0 {
            return current;
        }
        let ratio = pods.sum / (f64::from(pods.measured) * self.target);
        let rebalance = pods.unready > 0 && ratio > 1.0;
        if !rebalance && pods.missing == 0 {
            if self.near(ratio) {
                return current;
            }
            return ceil(ratio * f64::from(pods.measured));
        }
        // Missing pods are taken at the target when shrinking and at nothing when
        // growing; unready ones at nothing when growing.
        let assumed = if ratio < 1.0 { f64::from(pods.missing) * self.target } else { 0.0 };
        let counted = pods.measured + pods.missing + if rebalance { pods.unready } else { 0 };
        let careful = (pods.sum + assumed) / (f64::from(counted) * self.target);
        if self.near(careful) || (ratio < 1.0) != (careful < 1.0) {
            return current;
        }
        let replicas = ceil(careful * f64::from(counted));
        if (careful < 1.0 && replicas > current) || (careful > 1.0 && replicas < current) {
            return current;
        }
        replicas
    }

    fn near(&self, ratio: f64) -> bool {
        // The documents count a deviation of exactly the tolerance as near.
        (1.0 - ratio).abs() <= self.tolerance + 1e-9
    }
}

/// The autoscaler of one workload.
#[derive(Debug, Clone)]
pub struct Hpa {
    config: Config,
    min: u32,
    max: u32,
    recommended: VecDeque<(Duration, u32)>,
    /// Changes made: when, from, to.
    changes: VecDeque<(Duration, u32, u32)>,
}

impl Hpa {
    /// An autoscaler between `min` and `max` replicas.
    pub fn new(config: Config, min: u32, max: u32) -> Self {
        Self { config, min, max, recommended: VecDeque::new(), changes: VecDeque::new() }
    }

    /// Replicas wanted now; it is taken for granted that they are set.
    pub fn sync(&mut self, current: u32, pods: Pods, now: Duration) -> u32 {
        let recommended = self.config.recommend(current, pods);
        self.apply(current, recommended, now)
    }

    /// Replicas after stabilisation, rate policies and bounds.
    fn apply(&mut self, current: u32, recommended: u32, now: Duration) -> u32 {
        let stabilised = self.stabilise(current, recommended, now);
        let limited = if stabilised > current {
            let most = self.limit_up(current, now).max(current);
            stabilised.min(most).min(self.max)
        } else {
            let least = self.limit_down(current, now).min(current);
            stabilised.max(least).max(self.min)
        };
        let policies = self.config.scale_up.policies.iter().chain(&self.config.scale_down.policies);
        let longest = policies.map(|policy| policy.period).max().unwrap_or_default();
        while self.changes.front().is_some_and(|(at, _, _)| now.saturating_sub(*at) >= longest) {
            self.changes.pop_front();
        }
        if limited != current {
            self.changes.push_back((now, current, limited));
        }
        limited
    }

    fn stabilise(&mut self, current: u32, recommended: u32, now: Duration) -> u32 {
        if self.recommended.is_empty() {
            self.recommended.push_back((now, current));
        }
        let (up, down) = (self.config.scale_up.stabilisation, self.config.scale_down.stabilisation);
        while self.recommended.front().is_some_and(|(at, _)| now.saturating_sub(*at) > up.max(down)) {
            self.recommended.pop_front();
        }
        let within = |window: Duration| {
            let recent = self.recommended.iter().filter(move |(at, _)| now.saturating_sub(*at) < window);
            recent.map(|(_, recommended)| *recommended)
        };
        let lowest = within(up).fold(recommended, u32::min);
        let highest = within(down).fold(recommended, u32::max);
        self.recommended.push_back((now, recommended));
        current.max(lowest).min(highest)
    }

    fn limit_up(&self, current: u32, now: Duration) -> u32 {
        let limits = self.config.scale_up.policies.iter().map(|policy| {
            let start = self.at_start(current, policy.period, now);
            match policy.amount {
                Amount::Pods(pods) => start.saturating_add(pods),
                Amount::Percent(percent) => ceil(f64::from(start) * (1.0 + percent / 100.0)),
            }
        });
        match self.config.scale_up.select {
            Select::Max => limits.max().unwrap_or(current),
            Select::Min => limits.min().unwrap_or(current),
            Select::Disabled => current,
        }
    }

    fn limit_down(&self, current: u32, now: Duration) -> u32 {
        let limits = self.config.scale_down.policies.iter().map(|policy| {
            let start = self.at_start(current, policy.period, now);
            match policy.amount {
                Amount::Pods(pods) => start.saturating_sub(pods),
                // Rounded in favour of shrinking, as the documents' example has it.
                Amount::Percent(percent) => {
                    (f64::from(start) * (1.0 - percent / 100.0) + 1e-9).max(0.0) as u32
                }
            }
        });
        match self.config.scale_down.select {
            Select::Max => limits.min().unwrap_or(current),
            Select::Min => limits.max().unwrap_or(current),
            Select::Disabled => current,
        }
    }

    /// Replicas at the start of the period that ends now.
    fn at_start(&self, current: u32, period: Duration, now: Duration) -> u32 {
        let recent = self.changes.iter().filter(|(at, _, _)| now.saturating_sub(*at) < period);
        recent.map(|(_, from, _)| *from).next().unwrap_or(current)
    }
}

fn ceil(value: f64) -> u32 {
    (value - 1e-9).ceil().max(0.0) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn pods(measured: u32, each: f64) -> Pods {
        Pods { measured, sum: f64::from(measured) * each, ..Pods::default() }
    }

    fn behaviour(stabilisation: u64, policies: &[(Amount, u64)]) -> Behaviour {
        let policy = |(amount, period): &(Amount, u64)| RatePolicy { amount: *amount, period: s(*period) };
        let policies = policies.iter().map(policy).collect();
        Behaviour { stabilisation: s(stabilisation), policies, select: Select::Max }
    }

    /// Documents, "Algorithm details": 200m against 100m doubles, 50m halves.
    #[test]
    fn twice_the_target_doubles_and_half_of_it_halves() {
        let config = Config::with_target(100.0);
        assert_eq!(config.recommend(4, pods(4, 200.0)), 8);
        assert_eq!(config.recommend(4, pods(4, 50.0)), 2);
    }

    /// Walkthrough: one replica at 305 % of its request against 50 % becomes seven.
    #[test]
    fn the_walkthrough_comes_to_seven_replicas() {
        assert_eq!(Config::with_target(50.0).recommend(1, pods(1, 305.0)), 7);
    }

    /// Documents: a ratio within 0.1 of 1 changes nothing.
    #[test]
    fn a_ratio_within_the_tolerance_changes_nothing() {
        let config = Config::with_target(100.0);
        assert_eq!(config.recommend(10, pods(10, 110.0)), 10);
        assert_eq!(config.recommend(10, pods(10, 90.0)), 10);
        assert_eq!(config.recommend(10, pods(10, 111.0)), 12);
        assert_eq!(config.recommend(10, pods(10, 89.0)), 9);
    }

    /// Documents: missing metrics count as 100 % when shrinking and as 0 % when growing,
    /// unready pods as 0 % when growing; if that turns the direction, nothing is done.
    #[test]
    fn missing_and_unready_pods_are_assumed_to_dampen_the_change() {
        let config = Config::with_target(100.0);
        let with = |each, unready, missing| Pods { unready, missing, ..pods(4, each) };
        assert_eq!(config.recommend(6, with(50.0, 0, 2)), 4);
        assert_eq!(config.recommend(6, with(200.0, 0, 2)), 8);
        assert_eq!(config.recommend(8, with(140.0, 4, 0)), 8, "560 over 8 pods is below the target");
        assert_eq!(config.recommend(6, with(200.0, 2, 0)), 8);
        assert_eq!(config.recommend(6, with(50.0, 2, 0)), 2, "unready pods do not stop shrinking");
        assert_eq!(config.recommend(3, Pods { missing: 3, ..Pods::default() }), 3);
    }

    /// Documents, "Scaling policies": 80 replicas to 10 under policies of 4 pods and 10 %
    /// a minute: 8 first, then 7.2 rounded up to 8; below 40 it goes by 4.
    #[test]
    fn eighty_replicas_shrink_by_ten_percent_and_later_by_four() {
        let mut config = Config::with_target(1.0);
        config.scale_down = behaviour(0, &[(Amount::Pods(4), 60), (Amount::Percent(10.0), 60)]);
        let mut hpa = Hpa::new(config, 1, 100);
        let mut replicas = vec![80];
        for minute in 0..20 {
            let current = *replicas.last().expect("never empty");
            replicas.push(hpa.apply(current, 10, s(60 * minute)));
        }
        assert_eq!(replicas[..3], [80, 72, 64]);
        let below_forty: Vec<u32> = replicas.iter().copied().filter(|r| (10..40).contains(r)).collect();
        assert!(
            below_forty.windows(2).all(|pair| pair[0] - pair[1] == (pair[0] - 10).min(4)),
            "{replicas:?}"
        );
        assert_eq!(replicas.last(), Some(&10));
    }

    /// Proposal 853, story 1: 900 % a minute goes 1, 10, 100, 1000.
    #[test]
    fn nine_hundred_percent_multiplies_by_ten() {
        let mut config = Config::with_target(1.0);
        config.scale_up = behaviour(0, &[(Amount::Percent(900.0), 60)]);
        let mut hpa = Hpa::new(config, 1, 1000);
        let grown: Vec<u32> = (0..3)
            .scan(1, |r, minute| {
                *r = hpa.apply(*r, 5000, s(60 * minute));
                Some(*r)
            })
            .collect();
        assert_eq!(grown, [10, 100, 1000]);
    }

    /// Proposal 853, story 3: one pod per period goes 1, 2, 3, 4.
    #[test]
    fn one_pod_per_period_grows_very_gradually() {
        let mut config = Config::with_target(1.0);
        config.scale_up = behaviour(0, &[(Amount::Pods(1), 300)]);
        let mut hpa = Hpa::new(config, 1, 100);
        let grown: Vec<u32> = (0..4).map(|step| hpa.apply(1 + step, 50, s(300 * u64::from(step)))).collect();
        assert_eq!(grown, [2, 3, 4, 5]);
        assert_eq!(hpa.apply(5, 50, s(901)), 5, "the period is not over");
    }

    /// Proposal 853, story 5: over ten minutes of recommendations the largest is taken.
    #[test]
    fn shrinking_takes_the_largest_recommendation_of_the_window() {
        let mut config = Config::with_target(1.0);
        config.scale_down = behaviour(600, &[(Amount::Pods(5), 60)]);
        let mut hpa = Hpa::new(config, 1, 100);
        let recommended = [10, 9, 8, 9, 9, 8, 9, 8, 9, 8, 7];
        let replicas: Vec<u32> = recommended
            .iter()
            .enumerate()
            .map(|(minute, r)| hpa.apply(10, *r, s(60 * minute as u64)))
            .collect();
        assert_eq!(replicas, [10, 10, 10, 10, 10, 10, 10, 10, 10, 10, 9]);
    }

    /// Proposal 853, story 4: scale-down disabled never shrinks.
    #[test]
    fn disabled_scale_down_never_shrinks() {
        let mut config = Config::with_target(1.0);
        config.scale_down.select = Select::Disabled;
        let mut hpa = Hpa::new(config, 1, 100);
        assert!((0..100).all(|minute| hpa.apply(40, 1, s(60 * minute)) == 40));
    }

    /// Proposal 853, story 6: growing takes the smallest recommendation of five minutes.
    /// Whether a recommendation of exactly that age still counts the proposal answers
    /// differently in stories 5 and 6; here it does not, so the sixth minute is left out.
    #[test]
    fn growing_takes_the_smallest_recommendation_of_the_window() {
        let mut config = Config::with_target(1.0);
        config.scale_up = behaviour(300, &[(Amount::Pods(20), 60)]);
        let mut hpa = Hpa::new(config, 1, 100);
        let recommended = [2, 3, 19, 10, 3, 4, 7];
        let minutes = recommended.iter().enumerate();
        let replicas: Vec<u32> = minutes.map(|(minute, r)| hpa.apply(2, *r, s(60 * minute as u64))).collect();
        assert_eq!((&replicas[..5], replicas[6]), (&[2; 5][..], 3));
    }

    /// Documents, default behaviour: up by 4 pods or 100 % per 15 s at once, down after 300 s.
    #[test]
    fn the_default_behaviour_doubles_or_adds_four_and_waits_five_minutes() {
        let mut hpa = Hpa::new(Config::with_target(1.0), 1, 100);
        assert_eq!(hpa.apply(1, 50, s(0)), 5);
        assert_eq!(hpa.apply(5, 50, s(15)), 10);
        assert_eq!(hpa.apply(10, 50, s(30)), 20);
        assert_eq!(hpa.apply(20, 2, s(45)), 20);
        assert_eq!(hpa.apply(20, 2, s(329)), 20);
        assert_eq!(hpa.apply(20, 2, s(330)), 2);
    }

    #[test]
    fn a_disabled_direction_and_the_bounds_hold() {
        let mut config = Config::with_target(1.0);
        config.scale_down.select = Select::Disabled;
        config.scale_up.select = Select::Min;
        let mut hpa = Hpa::new(config, 2, 6);
        assert_eq!(hpa.apply(4, 1, s(400)), 4);
        assert_eq!(hpa.apply(3, 9, s(800)), 6);
        let mut hpa = Hpa::new(Config::with_target(1.0), 2, 6);
        assert_eq!(hpa.apply(4, 0, s(0)), 4);
        assert_eq!(hpa.apply(4, 0, s(400)), 2);
    }
}
