//! The Knative Pod Autoscaler.
//!
//!   wanted = ceil(average concurrency / target), average over the stable window (60 s),
//!   or over the panic window (6 s) as well while panicking; never fewer while panicking
//!
//! Sources: Knative Serving's documents "Additional autoscaling configuration for
//! Knative Pod Autoscaler" and the commented defaults of its `config-autoscaler`.

use std::time::Duration;

/// Settings, with the names of the original.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Config {
    /// Concurrency per pod to aim at: `containerConcurrency` times the target percentage.
    pub target: f64,
    /// `stable-window`.
    pub stable_window: Duration,
    /// `panic-window-percentage` of the stable window.
    pub panic_window: Duration,
    /// `panic-threshold-percentage`, as a ratio.
    pub panic_threshold: f64,
    /// `max-scale-up-rate`: most pods wanted per ready one.
    pub max_scale_up_rate: f64,
    /// `max-scale-down-rate`: most ready pods per wanted one.
    pub max_scale_down_rate: f64,
    /// `tick-interval`.
    pub tick: Duration,
}

impl Config {
    /// `container-concurrency-target-percentage`, as a ratio.
    pub const TARGET_UTILISATION: f64 = 0.7;

    /// The defaults for pods that serve `container_concurrency` requests at once.
    pub fn for_concurrency(container_concurrency: f64) -> Self {
        Self {
            target: container_concurrency * Self::TARGET_UTILISATION,
            stable_window: Duration::from_secs(60),
            panic_window: Duration::from_secs(6),
            panic_threshold: 2.0,
            max_scale_up_rate: 1000.0,
            max_scale_down_rate: 2.0,
            tick: Duration::from_secs(2),
        }
    }
}

/// The autoscaler of one revision.
#[derive(Debug, Clone)]
pub struct Kpa {
    config: Config,
    /// While panicking: when it was last over the threshold, and the most pods wanted since.
    panic: Option<(Duration, u32)>,
}

impl Kpa {
    /// An autoscaler that starts beside `ready` pods. With more than one it starts in a
    /// panic, so as not to drop pods for want of history.
    pub fn new(config: Config, ready: u32, now: Duration) -> Self {
        Self { config, panic: (ready > 1).then_some((now, ready)) }
    }

    /// Pods wanted, from the averages of the whole revision's concurrency.
    pub fn desired(&mut self, stable: f64, panic: f64, ready: u32, now: Duration) -> u32 {
        let config = &self.config;
        let ready = f64::from(ready.max(1));
        let most = (config.max_scale_up_rate * ready).ceil();
        let least = (ready / config.max_scale_down_rate).floor();
        let by_stable = (stable / config.target).ceil();
        let by_panic = (panic / config.target).ceil();
        let limited = |wanted: f64| wanted.max(least).min(most) as u32;
        let over = by_panic / ready >= config.panic_threshold;
        self.panic = match self.panic {
            before if over => Some((now, before.map_or(0, |(_, most_pods)| most_pods))),
            Some((since, _)) if since + config.stable_window < now => None,
            before => before,
        };
        let Some((_, most_pods)) = &mut self.panic else { return limited(by_stable) };
        *most_pods = limited(by_stable).max(limited(by_panic)).max(*most_pods);
        *most_pods
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn target(target: f64) -> Config {
        Config { target, ..Config::for_concurrency(100.0) }
    }

    /// Autoscaling sample of the documents: a target of 10 and 50 requests in flight.
    #[test]
    fn fifty_requests_at_a_target_of_ten_want_five_pods() {
        let mut kpa = Kpa::new(target(10.0), 1, s(0));
        assert_eq!(kpa.desired(50.0, 50.0, 1, s(2)), 5);
    }

    /// The same with a concurrency of 10 and the default percentage: 100 / (10 x 0.7).
    #[test]
    fn a_hundred_requests_at_seventy_percent_of_ten_want_fifteen_pods() {
        let mut kpa = Kpa::new(Config::for_concurrency(10.0), 15, s(0));
        assert_eq!(Config::for_concurrency(10.0).target, 7.0);
        assert_eq!(kpa.desired(100.0, 100.0, 15, s(2)), 15);
    }

    /// From the reasoning for rounding the scale-up limit up: a rate of 1.1, 3 requests,
    /// 2 pods, a target of 1 must come to 3 pods.
    #[test]
    fn a_timid_rate_still_grows_by_one() {
        let config = Config { max_scale_up_rate: 1.1, ..target(1.0) };
        assert_eq!(Kpa::new(config, 0, s(0)).desired(3.0, 3.0, 2, s(2)), 3);
    }

    /// From the comments on the settings: a rate of 2 goes from N to 2 N, or from N to N/2.
    #[test]
    fn rates_limit_one_evaluation() {
        let config = Config { max_scale_up_rate: 2.0, ..target(10.0) };
        assert_eq!(Kpa::new(config, 0, s(0)).desired(1000.0, 1000.0, 10, s(2)), 20);
        assert_eq!(Kpa::new(config, 0, s(0)).desired(0.0, 0.0, 10, s(2)), 5);
    }

    #[test]
    fn panic_starts_at_twice_the_capacity_and_takes_the_short_window() {
        let mut calm = Kpa::new(target(10.0), 0, s(0));
        assert_eq!(calm.desired(50.0, 90.0, 5, s(2)), 5, "below 200 % only the stable window counts");
        let mut panicking = Kpa::new(target(10.0), 0, s(0));
        assert_eq!(panicking.desired(50.0, 100.0, 5, s(2)), 10);
    }

    #[test]
    fn nothing_shrinks_until_a_stable_window_after_the_panic() {
        let mut kpa = Kpa::new(target(10.0), 0, s(0));
        kpa.desired(50.0, 100.0, 5, s(2));
        assert_eq!(kpa.desired(10.0, 0.0, 10, s(62)), 10);
        assert_eq!(kpa.desired(10.0, 0.0, 10, s(63)), 5);
        assert_eq!(kpa.desired(10.0, 0.0, 5, s(65)), 2);
    }

    #[test]
    fn a_restart_beside_many_pods_keeps_them_for_a_window() {
        let mut kpa = Kpa::new(target(10.0), 8, s(100));
        assert_eq!(kpa.desired(0.0, 0.0, 8, s(102)), 8);
        assert_eq!(kpa.desired(0.0, 0.0, 8, s(161)), 4);
    }
}
