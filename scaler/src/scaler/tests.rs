//! Short stories of one tier on a fake clock.

use super::*;
use crate::policy::{Direction, Targets};
use crate::rate::{Rate, Select};
use crate::reason::HoldReason;
use crate::sample::LATENCY_WINDOW;
use crate::signal::Signal;

pub(super) const TICK: Duration = Duration::from_millis(250);

pub(super) fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Target 4, max 8, windows 2 s and 10 s, stabilisation 30 s.
pub(super) fn policy() -> Policy {
    let mut policy = Policy::defaults_for(Duration::from_millis(500));
    policy.scale_down.rate = None;
    policy
}

pub(super) fn concurrency(requests: f64) -> Sample {
    Sample { in_flight: Some(requests), ..Sample::default() }
}

/// A tier whose clones are ready one tick after they were asked for.
pub(super) struct Tier {
    pub(super) scaler: Scaler,
    pub(super) pool: PoolView,
    pub(super) now: Duration,
    pub(super) log: Vec<Decision>,
}

impl Tier {
    pub(super) fn new(policy: Policy, ready: u32) -> Self {
        let scaler = Scaler::new(policy).expect("a valid policy");
        Self { scaler, pool: PoolView { ready, ..PoolView::default() }, now: Duration::ZERO, log: vec![] }
    }

    /// Decides once and carries it out.
    pub(super) fn tick(&mut self, sample: Option<Sample>) -> Decision {
        self.now += TICK;
        self.pool.ready += std::mem::take(&mut self.pool.starting);
        if let Some(sample) = sample {
            self.scaler.observe(&sample, self.now);
        }
        let decision = self.scaler.decide(&self.pool, self.now);
        match decision.action {
            Action::Grow { by } => self.pool.starting += by,
            Action::Shrink { by } => self.pool.ready -= by,
            Action::Hold => {}
        }
        self.log.push(decision);
        decision
    }

    pub(super) fn run(&mut self, sample: Option<Sample>, time: Duration) -> Decision {
        let end = self.now + time;
        let mut last = self.tick(sample);
        while self.now < end {
            last = self.tick(sample);
        }
        last
    }

    pub(super) fn load(&mut self, requests: f64, time: Duration) -> Decision {
        self.run(Some(concurrency(requests)), time)
    }

    pub(super) fn size(&self) -> u32 {
        self.pool.capacity()
    }
}

pub(super) fn hold(decision: &Decision) -> HoldReason {
    match decision.reason {
        Reason::Hold(hold) => hold,
        other => panic!("does not hold: {other:?}"),
    }
}

#[test]
fn it_grows_to_what_the_load_wants_at_the_first_sample() {
    let mut tier = Tier::new(policy(), 1);
    let decision = tier.load(14.0, TICK);
    assert_eq!(decision.action, Action::Grow { by: 3 });
    assert_eq!(
        decision.to_string(),
        "grow from 1 to 4: panic: concurrency averaged 14 over 2s, which at 4 per backend wants 4"
    );
    assert_eq!(tier.load(14.0, s(5)).action, Action::Hold);
}

#[test]
fn a_leap_is_met_at_once_although_the_window_still_holds_the_time_before() {
    let mut tier = Tier::new(policy(), 1);
    tier.load(1.0, s(20));
    let to = [28.0; 3].map(|load| tier.tick(Some(concurrency(load))).to);
    assert_eq!(to[2], 7, "{to:?}");
}

#[test]
fn what_is_no_leap_waits_for_a_second_look() {
    let mut tier = Tier::new(policy(), 2);
    tier.load(7.0, s(20));
    assert_eq!(tier.load(11.0, s(1)).to, 2);
    assert_eq!(tier.load(11.0, s(3)).to, 3);
}

#[test]
fn queued_requests_make_it_grow_too() {
    let mut tier = Tier::new(policy(), 1);
    let sample = Sample { in_flight: Some(4.0), queued: Some(20.0), ..Sample::default() };
    assert_eq!(tier.tick(Some(sample)).to, 6);
}

#[test]
fn clones_on_their_way_count_so_nothing_is_asked_for_twice() {
    let mut scaler = Scaler::new(policy()).expect("valid");
    scaler.observe(&concurrency(14.0), s(1));
    let pool = PoolView { ready: 1, starting: 3, ..PoolView::default() };
    let decision = scaler.decide(&pool, s(1));
    assert!(matches!(hold(&decision), HoldReason::Enough(_)), "{decision}");
    let pool = PoolView { ready: 4, starting: 0, retiring: 5, unready: 0 };
    assert_eq!(scaler.decide(&pool, s(1)).from, 4, "retiring backends are no capacity");
}

#[test]
fn growth_ends_at_max_and_says_so() {
    let mut tier = Tier::new(policy(), 1);
    let decision = tier.load(100.0, TICK);
    assert_eq!((decision.to, decision.action), (8, Action::Grow { by: 7 }));
    assert!(decision.to_string().ends_with("wants 25; max is 8"), "{decision}");
    let decision = tier.load(100.0, s(1));
    assert!(
        matches!(hold(&decision), HoldReason::Limited { bound: Bound::Max { max: 8 }, .. }),
        "{decision}"
    );
}

#[test]
fn no_more_clones_are_born_at_once_than_surge_allows() {
    let mut scaler = Scaler::new(Policy { surge: 3, ..policy() }).expect("valid");
    scaler.observe(&concurrency(28.0), s(1));
    let decision = scaler.decide(&PoolView { ready: 1, starting: 0, ..PoolView::default() }, s(1));
    assert_eq!((decision.to, decision.action), (7, Action::Grow { by: 3 }));
    let decision = scaler.decide(&PoolView { ready: 1, starting: 3, ..PoolView::default() }, s(1));
    assert_eq!((decision.to, decision.action), (7, Action::Hold));
    assert!(matches!(
        hold(&decision),
        HoldReason::Limited { bound: Bound::Surge { starting: 3, surge: 3 }, .. }
    ));
    let decision = scaler.decide(&PoolView { ready: 3, starting: 1, ..PoolView::default() }, s(1));
    assert_eq!(decision.action, Action::Grow { by: 2 });
}

#[test]
fn it_shrinks_to_the_highest_demand_of_the_stabilisation_window() {
    let mut tier = Tier::new(policy(), 1);
    tier.load(24.0, s(60));
    assert_eq!(tier.size(), 6);
    let decision = tier.load(8.0, s(29));
    assert!(matches!(
        hold(&decision),
        HoldReason::Limited { bound: Bound::Stabilised { highest: 6, .. }, .. }
    ));
    tier.load(8.0, s(30));
    // 8 / (4 * 0.9) = 2.2: room for the load to jitter by the tolerance.
    assert_eq!(tier.size(), 3);
    let shrinks = tier.log.iter().filter(|decision| matches!(decision.action, Action::Shrink { .. }));
    assert!(shrinks.count() >= 1);
}

#[test]
fn it_never_goes_below_min() {
    let mut tier = Tier::new(Policy { min: 2, ..policy() }, 5);
    let decision = tier.load(0.0, s(120));
    assert_eq!(tier.size(), 2);
    assert!(
        matches!(hold(&decision), HoldReason::Limited { bound: Bound::Min { min: 2 }, .. }),
        "{decision}"
    );
}

#[test]
fn a_tier_below_min_grows_and_one_above_max_shrinks_without_any_sample() {
    let mut tier = Tier::new(Policy { min: 3, ..policy() }, 1);
    let decision = tier.tick(None);
    assert_eq!(decision.to_string(), "grow from 1 to 3: min is 3");
    let mut tier = Tier::new(policy(), 12);
    assert_eq!(tier.tick(None).to_string(), "shrink from 12 to 8: max is 8");
}

#[test]
fn it_does_not_shrink_while_panicking() {
    let mut tier = Tier::new(policy(), 1);
    tier.scaler.policy.scale_down.stabilisation = Duration::ZERO;
    tier.scaler.wanted = RollingMax::new(Duration::ZERO);
    tier.load(0.0, s(20));
    tier.load(30.0, s(1));
    assert!(tier.size() > 1);
    let size = tier.size();
    let decision = tier.load(0.0, s(8));
    assert_eq!(tier.size(), size);
    assert!(matches!(hold(&decision), HoldReason::Panicking { .. }), "{decision}");
    tier.load(0.0, s(20));
    assert_eq!(tier.size(), 1);
}

#[test]
fn a_load_below_the_threshold_is_no_panic() {
    let mut tier = Tier::new(policy(), 2);
    let decision = tier.load(15.9, TICK);
    assert!(matches!(decision.reason, Reason::Load { .. }), "{decision}");
    let mut tier = Tier::new(policy(), 2);
    assert!(matches!(tier.load(16.0, TICK).reason, Reason::Panic { .. }));
}

#[test]
fn a_load_within_tolerance_changes_nothing() {
    let mut tier = Tier::new(policy(), 2);
    let decision = tier.load(8.8, s(60));
    assert!(matches!(hold(&decision), HoldReason::WithinTolerance(_)), "{decision}");
    assert_eq!(tier.load(8.9, s(60)).from, 3);
}

#[test]
fn it_does_not_shrink_before_it_has_watched_for_a_full_window() {
    let mut tier = Tier::new(policy(), 5);
    tier.scaler.wanted = RollingMax::new(Duration::ZERO);
    let decision = tier.load(1.0, s(9));
    assert!(matches!(hold(&decision), HoldReason::FirstWindow { .. }), "{decision}");
    assert_eq!(tier.size(), 5);
    tier.load(1.0, s(3));
    assert_eq!(tier.size(), 1);
}

#[test]
fn after_a_restart_what_is_there_counts_as_wanted() {
    let mut tier = Tier::new(policy(), 5);
    tier.load(1.0, s(29));
    assert_eq!(tier.size(), 5);
    tier.load(1.0, s(3));
    assert_eq!(tier.size(), 1);
}

#[test]
fn without_samples_nothing_changes() {
    let mut tier = Tier::new(policy(), 5);
    assert_eq!(hold(&tier.run(None, s(100))), HoldReason::NoSamplesYet);
    assert_eq!(tier.size(), 5);
}

#[test]
fn stale_samples_change_nothing_however_long() {
    let mut tier = Tier::new(policy(), 1);
    tier.load(16.0, s(60));
    assert_eq!(tier.size(), 4);
    let decision = tier.run(None, s(300));
    assert!(matches!(hold(&decision), HoldReason::Stale { .. }), "{decision}");
    assert_eq!(tier.size(), 4);
    // And when they come back it watches for a full window first.
    let decision = tier.load(0.0, s(9));
    assert!(matches!(hold(&decision), HoldReason::FirstWindow { .. }), "{decision}");
}

#[test]
fn the_signal_that_wants_most_decides() {
    let mut both = policy();
    both.targets.requests_per_second = Some(10.0);
    let mut tier = Tier::new(both, 1);
    let sample = |requests_per_second| Sample { requests_per_second, ..concurrency(8.0) };
    let decision = tier.tick(Some(sample(Some(45.0))));
    assert_eq!(decision.to, 5);
    assert!(decision.to_string().contains("requests per second averaged 45"), "{decision}");
}

#[test]
fn a_missing_signal_stops_shrinking_but_not_growing() {
    let mut both = policy();
    both.targets.requests_per_second = Some(10.0);
    let mut tier = Tier::new(both, 3);
    let decision = tier.load(1.0, s(60));
    let missing = Signal::RequestsPerSecond;
    assert!(matches!(hold(&decision), HoldReason::SignalMissing { missing: m, .. } if m == missing));
    assert_eq!(tier.load(20.0, s(5)).from, 5);
}

#[test]
fn values_that_cannot_be_are_left_out() {
    let mut tier = Tier::new(policy(), 2);
    tier.load(8.0, s(5));
    for bad in [f64::NAN, f64::INFINITY, -5.0] {
        let observed = tier.scaler.observe(&concurrency(bad), tier.now);
        assert_eq!(observed.len(), 1);
    }
    assert_eq!(tier.load(8.0, s(5)).action, Action::Hold);
    assert_eq!(tier.size(), 2);
}

#[test]
fn a_signal_of_only_bad_values_goes_stale() {
    let mut tier = Tier::new(policy(), 4);
    tier.load(16.0, s(5));
    let decision = tier.load(f64::NAN, s(5));
    assert!(matches!(hold(&decision), HoldReason::Stale { .. }), "{decision}");
}

#[test]
fn shrinking_goes_no_faster_than_its_rate() {
    let mut slow = policy();
    let rate = Rate { backends: Some(2), share: None, per: s(10), select: Select::Max };
    slow.scale_down.rate = Some(rate);
    slow.max = 10;
    let mut tier = Tier::new(slow, 10);
    tier.load(0.0, s(31));
    assert_eq!(tier.size(), 8);
    let decision = tier.load(0.0, s(5));
    let limited = HoldReason::Limited {
        driver: match hold(&decision) {
            HoldReason::Limited { driver, .. } => driver,
            other => panic!("{other:?}"),
        },
        bound: Bound::Rate { direction: Direction::Down, room: 0, per: s(10) },
    };
    assert_eq!(hold(&decision), limited);
    tier.load(0.0, s(6));
    assert_eq!(tier.size(), 6);
}

#[test]
fn growing_goes_no_faster_than_its_rate() {
    let mut slow = policy();
    slow.scale_up.rate = Some(Rate { backends: Some(1), share: Some(1.0), per: s(10), select: Select::Max });
    let mut tier = Tier::new(slow, 1);
    tier.load(100.0, s(5));
    assert_eq!(tier.size(), 2);
    tier.load(100.0, s(6));
    assert_eq!(tier.size(), 4);
}

#[test]
fn a_direction_that_is_switched_off_is_not_taken() {
    let mut policy = policy();
    policy.scale_up.enabled = false;
    policy.scale_down.enabled = false;
    let mut tier = Tier::new(policy, 3);
    let up = tier.load(100.0, s(5));
    let disabled = |decision: &Decision| match hold(decision) {
        HoldReason::Limited { bound: Bound::Disabled { direction }, .. } => direction,
        other => panic!("{other:?}"),
    };
    assert_eq!(disabled(&up), Direction::Up);
    let down = tier.load(0.0, s(90));
    assert_eq!(disabled(&down), Direction::Down);
    assert_eq!(tier.size(), 3);
}

#[test]
fn after_a_refusal_it_asks_again_later() {
    let mut tier = Tier::new(policy(), 1);
    tier.load(16.0, TICK);
    tier.pool.starting = 1;
    tier.scaler.granted(3, 1, tier.now);
    let decision = tier.load(16.0, s(4));
    assert!(
        matches!(hold(&decision), HoldReason::Limited { bound: Bound::Refused { .. }, .. }),
        "{decision}"
    );
    assert_eq!(tier.size(), 2);
    tier.load(16.0, s(2));
    assert_eq!(tier.size(), 4);
    tier.scaler.granted(2, 2, tier.now);
    assert_eq!(tier.scaler.refused_for(tier.now), None);
}

#[test]
fn only_ready_backends_can_leave() {
    let mut tier = Tier::new(policy(), 1);
    tier.load(0.0, s(60));
    let pool = PoolView { ready: 1, starting: 3, ..PoolView::default() };
    let decision = tier.scaler.decide(&pool, tier.now);
    assert!(
        matches!(hold(&decision), HoldReason::Limited { bound: Bound::FewReady { ready: 1 }, .. }),
        "{decision}"
    );
}

fn with_latency() -> Policy {
    let targets = Targets { p95_latency: Some(Duration::from_millis(200)), ..policy().targets };
    Policy { targets, ..policy() }
}

fn latency(requests: f64, ms: f64) -> Sample {
    Sample { p95_seconds: Some(ms / 1e3), ..concurrency(requests) }
}

#[test]
fn latency_over_its_target_adds_backends_once_per_stable_window() {
    let mut tier = Tier::new(with_latency(), 2);
    let decision = tier.run(Some(latency(7.0, 300.0)), TICK);
    assert_eq!((decision.from, decision.to), (2, 3));
    assert!(decision.to_string().contains("p95 latency averaged 300 ms"), "{decision}");
    let decision = tier.run(Some(latency(7.0, 300.0)), s(14));
    assert_eq!(tier.size(), 3, "the clones have had no time to show in the latency");
    assert!(
        decision.to_string().contains("in which the last change does not show yet; it keeps 3"),
        "{decision}"
    );
    tier.run(Some(latency(7.0, 300.0)), s(2));
    assert_eq!(tier.size(), 5);
}

/// Latencies as the balancer tells them: the slowest of the requests of the last ten seconds.
struct LookingBack(std::collections::VecDeque<(Duration, f64)>);

impl LookingBack {
    fn slowest(&mut self, ms: f64, now: Duration) -> f64 {
        self.0.push_back((now, ms));
        self.0.retain(|(at, _)| now.saturating_sub(*at) <= LATENCY_WINDOW);
        self.0.iter().map(|(_, ms)| *ms).fold(0.0, f64::max)
    }
}

#[test]
fn one_incident_of_latency_doubles_a_tier_once_though_it_is_told_for_ten_seconds() {
    let mut tier = Tier::new(with_latency(), 2);
    let mut told = LookingBack(Default::default());
    for _ in 0..160 {
        // Two are too few; three and more answer in time at once.
        let ms = told.slowest(if tier.pool.ready < 3 { 900.0 } else { 100.0 }, tier.now);
        tier.tick(Some(latency(7.0, ms)));
    }
    let grown: u32 =
        tier.log.iter().filter(|it| matches!(it.action, Action::Grow { .. })).map(|it| it.action.by()).sum();
    assert_eq!(grown, 2, "{:#?}", tier.log.iter().filter(|it| it.action != Action::Hold).collect::<Vec<_>>());
}

#[test]
fn a_hopeless_latency_at_most_doubles_the_tier_at_a_time() {
    let mut tier = Tier::new(with_latency(), 2);
    tier.run(Some(latency(1.0, 60_000.0)), TICK);
    assert_eq!(tier.size(), 4);
}

#[test]
fn latency_near_its_target_keeps_the_tier_and_none_lets_it_shrink() {
    let mut tier = Tier::new(with_latency(), 4);
    tier.run(Some(latency(1.0, 190.0)), s(120));
    assert_eq!(tier.size(), 4);
    tier.load(1.0, s(120));
    assert_eq!(tier.size(), 1);
}

#[test]
fn a_clock_that_stands_still_or_goes_back_breaks_nothing() {
    let mut scaler = Scaler::new(policy()).expect("valid");
    let pool = PoolView { ready: 3, ..PoolView::default() };
    for _ in 0..1000 {
        scaler.observe(&concurrency(1.0), s(50));
        assert_eq!(scaler.decide(&pool, s(50)).action, Action::Hold);
    }
    for step in 0..40 {
        let now = s(40 - step);
        scaler.observe(&concurrency(1.0), now);
        let decision = scaler.decide(&pool, now);
        assert_eq!((decision.action, decision.at), (Action::Hold, now));
    }
    for now in 0..3 {
        scaler.observe(&concurrency(30.0), s(now));
    }
    assert_eq!(scaler.decide(&pool, s(2)).action, Action::Grow { by: 5 });
}

#[test]
fn a_clock_that_leaps_ahead_makes_the_samples_stale() {
    let mut tier = Tier::new(policy(), 3);
    tier.load(1.0, s(20));
    let decision = tier.scaler.decide(&tier.pool, tier.now + s(3600));
    assert!(matches!(hold(&decision), HoldReason::Stale { .. }), "{decision}");
    let end = tier.scaler.decide(&tier.pool, Duration::MAX);
    assert_eq!(end.action, Action::Hold);
}

#[test]
fn a_metric_that_jumps_stays_within_the_bounds() {
    let mut tier = Tier::new(policy(), 1);
    for step in 0..200 {
        let jump = if step % 2 == 0 { 0.0 } else { Sample::LARGEST };
        let decision = tier.tick(Some(concurrency(jump)));
        assert!((1..=8).contains(&decision.to), "{decision}");
    }
    assert_eq!(tier.size(), 8);
}

#[test]
fn a_tier_without_any_ready_backend_still_decides() {
    let mut scaler = Scaler::new(policy()).expect("valid");
    scaler.observe(&concurrency(9.0), s(1));
    let decision = scaler.decide(&PoolView::default(), s(1));
    assert_eq!(decision.action, Action::Grow { by: 3 });
}

#[test]
fn a_policy_with_complaints_is_refused() {
    let refused = Scaler::new(Policy { min: 0, surge: 0, ..policy() }).expect_err("invalid");
    assert_eq!(refused.as_slice().len(), 2);
}
