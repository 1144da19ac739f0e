//! Stories of the rules beside the targets: floors, steps, formulas, modes, cool-downs.

use super::tests::{TICK, Tier, concurrency, hold, policy, s};
use super::*;
use crate::forecast::Predict;
use crate::formula::Formula;
use crate::policy::{CustomSignal, Fallback, GivenTimes, Origin, WhenMissing};
use crate::rate::{Rate, Select};
use crate::schedule::{Schedule, parse_cron, parse_zone};
use crate::signal::Measure;
use crate::step::{Change, Step, Threshold};

const HOUR: Duration = Duration::from_secs(3600);

fn cpu(share: f64) -> Sample {
    Sample { cpu_share: Some(share), ..concurrency(1.0) }
}

fn step(when: Threshold, change: Change) -> Step {
    Step { signal: Signal::Cpu, when, change }
}

#[test]
fn a_step_is_taken_once_and_then_waits_for_its_effect() {
    let mut tier = Tier::new(
        Policy {
            steps: vec![
                step(Threshold::Above(0.7), Change::Backends(1)),
                step(Threshold::Above(0.9), Change::Share(1.0)),
            ],
            ..policy()
        },
        2,
    );
    let decision = tier.run(Some(cpu(0.95)), TICK);
    assert_eq!(decision.to_string(), "grow from 2 to 4: cpu averaged 95% over 4s, above 90%, which adds 2");
    tier.run(Some(cpu(0.95)), s(3));
    assert_eq!(tier.size(), 4, "the greatest of the steps that are met, once");
    tier.run(Some(cpu(0.8)), s(12));
    assert!((6..=8).contains(&tier.size()), "one more each time it has settled: {}", tier.size());
}

#[test]
fn a_step_down_waits_for_the_stable_window_and_takes_one_at_a_time() {
    let mut policy = policy();
    policy.targets.concurrency = None;
    policy.steps = vec![step(Threshold::Below(0.3), Change::Backends(1))];
    policy.scale_down.stabilisation = Duration::ZERO;
    let mut tier = Tier::new(policy, 4);
    assert_eq!(tier.run(Some(cpu(0.2)), s(9)).action, Action::Hold);
    tier.run(Some(cpu(0.2)), s(2));
    assert_eq!(tier.size(), 3);
    tier.run(Some(cpu(0.2)), s(5));
    assert_eq!(tier.size(), 3, "not before the window is over");
    tier.run(Some(cpu(0.5)), s(30));
    assert_eq!(tier.size(), 3, "between the thresholds nothing changes");
}

#[test]
fn utilisation_counts_for_the_backends_it_was_taken_over() {
    let mut policy = policy();
    policy.targets.concurrency = None;
    policy.targets.cpu = Some(0.6);
    let mut tier = Tier::new(policy, 2);
    assert_eq!(tier.tick(Some(cpu(0.9))).to, 3, "1.8 processors at 60% each");
}

#[test]
fn one_reading_of_a_mean_over_backends_is_multiplied_once() {
    let mut policy = policy();
    policy.targets.concurrency = None;
    let busy = CustomSignal { measure: Measure::PerBackend, target: Some(0.6), ..jobs() };
    policy.signals = vec![CustomSignal { origin: asked_every(s(5)), ..busy }];
    let mut tier = Tier::new(policy, 2);
    let name = Name::new("jobs").expect("a name");
    tier.scaler.observe_own(name, 0.9, tier.now).expect("a value");
    let decision = tier.run(None, s(5));
    assert_eq!(tier.size(), 3, "{decision}");
    assert!(
        decision.to_string().contains("in which the last change does not show yet; it keeps 3"),
        "{decision}"
    );
    tier.scaler.observe_own(name, 0.9, tier.now).expect("a value");
    tier.run(None, s(1));
    assert_eq!(tier.size(), 5, "a new value of all three is believed");
}

#[test]
fn a_mean_over_backends_neither_grows_nor_shrinks_a_tier_by_what_was_before_a_change() {
    let mut policy = policy();
    policy.targets.concurrency = None;
    policy.targets.cpu = Some(0.6);
    policy.scale_down.stabilisation = Duration::ZERO;
    let mut tier = Tier::new(policy, 2);
    tier.run(Some(cpu(0.9)), TICK);
    tier.run(Some(cpu(0.6)), s(60));
    assert_eq!(tier.size(), 3, "two that were busy are not three that are");
    // A third of them leaves by hand: what they had said before is not how they are now.
    tier.run(Some(cpu(0.2)), s(5));
    tier.pool.ready -= 1;
    tier.run(Some(cpu(0.2)), s(9));
    assert_eq!(tier.size(), 2);
    tier.run(Some(cpu(0.2)), s(3));
    assert_eq!(tier.size(), 1, "these two have been idle for a window");
}

#[test]
fn a_step_goes_by_the_measure_that_the_signal_was_given() {
    let formula = Formula::new("concurrency").expect("a formula");
    let with = |measure| {
        let signal = CustomSignal { measure, ..own("busy", Origin::Formula(formula.clone()), None) };
        let step = Step {
            signal: Signal::Custom(signal.name),
            when: Threshold::Above(5.0),
            change: Change::Backends(1),
        };
        let mut tier = Tier::new(Policy { signals: vec![signal], steps: vec![step], ..policy() }, 3);
        tier.load(9.0, TICK);
        tier.size()
    };
    assert_eq!((with(Measure::Total), with(Measure::PerBackend), with(Measure::Guard)), (3, 4, 4));
}

#[test]
fn a_guard_of_ones_own_says_that_it_guards() {
    let formula = Formula::new("concurrency").expect("a formula");
    let guard = CustomSignal { measure: Measure::Guard, ..own("mood", Origin::Formula(formula), Some(5.0)) };
    let mut tier = Tier::new(Policy { signals: vec![guard], ..policy() }, 2);
    let decision = tier.load(7.0, TICK);
    assert!(
        decision.to_string().contains("mood averaged 7 over 4s against a target of 5, which wants 3"),
        "{decision}"
    );
}

#[test]
fn a_forecast_does_not_remember_its_own_floor() {
    let predict = Predict { season: 2 * HOUR, bin: s(60), buffer: s(0), acts: true };
    let mut policy = Policy { predict: Some(predict), ..policy() };
    policy.targets.p95_latency = Some(s(1));
    policy.steps = vec![step(Threshold::Below(0.2), Change::Backends(1))];
    let mut tier = Tier::new(policy, 1);
    let mut seen = vec![];
    for minute in 0..4 * 120 {
        tier.scaler.set_wall_clock(HOUR * 1000 + s(60 * minute), tier.now);
        // Busy once, in the first season; later as slow as it may be and idle otherwise.
        let busy = if minute == 60 { 24.0 } else { 1.0 };
        for _ in 0..30 {
            tier.now += s(2) - TICK;
            let sample = Sample { p95_seconds: Some(0.95), ..cpu(0.5) };
            tier.tick(Some(Sample { in_flight: Some(busy), ..sample }));
        }
        if minute % 120 == 60 {
            seen.push(tier.scaler.forecast().unwrap_or(0));
        }
    }
    assert_eq!(seen, [0, 6, 4, 3], "half of what was there is forgotten each season");
}

#[test]
fn guests_that_do_not_report_keep_the_tier_or_are_ignored_by_policy() {
    let mut policy = policy();
    policy.targets.cpu = Some(0.6);
    let mut tier = Tier::new(policy.clone(), 4);
    let held = tier.load(1.0, s(60));
    assert!(matches!(hold(&held), HoldReason::SignalMissing { missing: Signal::Cpu, .. }), "{held}");
    let mut tier = Tier::new(Policy { when_missing: WhenMissing::Ignore, ..policy }, 4);
    tier.load(1.0, s(60));
    assert_eq!(tier.size(), 1);
}

#[test]
fn a_signal_below_its_activation_asks_for_nothing() {
    let mut tier = Tier::new(Policy { activation: vec![(Signal::Concurrency, 20.0)], ..policy() }, 2);
    assert_eq!(tier.load(19.0, s(5)).action, Action::Hold);
    tier.load(19.0, s(60));
    assert_eq!(tier.size(), 1);
    tier.load(21.0, s(10));
    assert_eq!(tier.size(), 6);
}

fn own(name: &str, origin: Origin, target: Option<f64>) -> CustomSignal {
    let name = Name::new(name).expect("a name");
    CustomSignal { name, origin, target, measure: Measure::Total, activation: None }
}

fn asked_every(every: Duration) -> Origin {
    let (url, query) = ("http://127.0.0.1:9090".to_owned(), "jobs".to_owned());
    Origin::Prometheus { url, query, every, timeout: s(1) }
}

/// A query that is asked once a second.
fn jobs() -> CustomSignal {
    own("jobs", asked_every(s(1)), None)
}

#[test]
fn a_formula_asks_for_backends_and_is_missing_with_its_inputs() {
    let formula = Formula::new("concurrency + 0.5 * jobs").expect("a formula");
    let mut policy = policy();
    policy.targets.concurrency = None;
    policy.signals = vec![jobs(), own("blend", Origin::Formula(formula), Some(4.0))];
    let mut tier = Tier::new(policy, 1);
    let name = Name::new("jobs").expect("a name");
    assert_eq!(hold(&tier.load(2.0, TICK)), HoldReason::NoSamplesYet, "half of a formula is nothing");
    tier.scaler.observe_own(name, 20.0, tier.now).expect("a value");
    let decision = tier.load(2.0, TICK);
    assert_eq!(tier.size(), 3, "{decision}");
    assert!(decision.to_string().contains("blend averaged 12 over"), "{decision}");
    let held = tier.load(2.0, s(10));
    assert!(matches!(hold(&held), HoldReason::Stale { .. }), "the query has not answered for ten seconds");
}

#[test]
fn values_of_own_signals_that_cannot_be_are_refused_and_unknown_names_left_out() {
    let mut scaler = Scaler::new(Policy { signals: vec![jobs()], ..policy() }).expect("valid");
    let name = |text: &str| Name::new(text).expect("a name");
    let refused = scaler.observe_own(name("jobs"), f64::NAN, s(1)).expect_err("no number");
    assert_eq!(refused.to_string(), "jobs of NaN is no measurement and was left out");
    assert_eq!(scaler.observe_own(name("others"), 3.0, s(1)), Ok(()));
    assert_eq!(scaler.readings().len(), 1);
}

/// From eight to ten in the morning, UTC, four at least.
fn morning() -> Policy {
    let (cron, zone) = (parse_cron("0 8 * * *").expect("cron"), parse_zone("UTC").expect("zone"));
    Policy { schedule: vec![Schedule::new(cron, zone, 2 * HOUR, 4)], ..policy() }
}

#[test]
fn a_schedule_raises_the_floor_while_it_holds() {
    let mut tier = Tier::new(morning(), 1);
    assert_eq!(tier.load(1.0, TICK).to, 1, "without a wall clock there is no schedule");
    tier.scaler.set_wall_clock(8 * HOUR - s(1), tier.now);
    tier.load(1.0, TICK);
    assert_eq!(tier.size(), 1);
    let log = tier.log.len();
    tier.load(1.0, s(1));
    let grow = tier.log[log..].iter().find(|decision| decision.action != Action::Hold).expect("it grows");
    assert_eq!(grow.to_string(), "grow from 1 to 4: the schedule asks for 4 at least for another 2h");
    tier.load(1.0, s(60));
    assert_eq!((tier.size(), tier.scaler.held_to()), (4, (4, 8)));
    tier.scaler.set_wall_clock(10 * HOUR, tier.now);
    tier.load(1.0, s(60));
    assert_eq!((tier.size(), tier.scaler.held_to()), (1, (1, 8)));
}

#[test]
fn a_forecast_is_shown_first_and_acts_only_if_told_to() {
    let predict = Predict { season: 2 * HOUR, bin: s(60), buffer: s(120), acts: false };
    let season = |acts: bool| {
        let mut tier = Tier::new(Policy { predict: Some(Predict { acts, ..predict }), ..policy() }, 1);
        let minute = |tier: &mut Tier, minute: u64| {
            tier.scaler.set_wall_clock(HOUR * 1000 + s(60 * minute), tier.now);
            let busy = minute % 120 == 60;
            for _ in 0..30 {
                tier.now += s(2) - TICK;
                tier.tick(Some(concurrency(if busy { 24.0 } else { 1.0 })));
            }
        };
        (0..120 + 57).for_each(|at| minute(&mut tier, at));
        let before = (tier.size(), tier.scaler.forecast());
        minute(&mut tier, 120 + 57);
        (before, tier.size(), tier.scaler.forecast())
    };
    assert_eq!(season(false), ((1, Some(1)), 1, Some(6)), "it is foreseen and nothing is done");
    assert_eq!(season(true), ((1, Some(1)), 6, Some(6)), "two minutes before, it is there");
}

#[test]
fn a_record_of_former_days_is_taken_up_only_if_it_fits() {
    let predict = Predict { season: 2 * HOUR, bin: s(60), buffer: s(0), acts: true };
    let with = |predict| Scaler::new(Policy { predict: Some(predict), ..policy() }).expect("valid");
    let kept = with(predict).record().cloned().expect("a record");
    assert!(with(predict).remember(kept.clone()));
    assert!(!with(Predict { bin: s(120), ..predict }).remember(kept.clone()));
    assert!(!Scaler::new(policy()).expect("valid").remember(kept));
}

#[test]
fn without_any_signal_the_fallback_is_kept_and_never_shrunk_to() {
    let fallback = Fallback { after: s(5), backends: 3 };
    let mut tier = Tier::new(Policy { fallback: Some(fallback), ..policy() }, 1);
    tier.load(1.0, s(5));
    tier.run(None, s(4));
    assert_eq!(tier.size(), 1);
    tier.run(None, s(6));
    assert_eq!(tier.size(), 3);
    let decision = tier.log.iter().find(|decision| decision.action != Action::Hold).expect("it grows");
    assert!(
        decision.to_string().contains("nothing is known of the load for 5.0s, and 3 are kept"),
        "{decision}"
    );
    let mut many = Tier::new(Policy { fallback: Some(fallback), ..policy() }, 6);
    many.run(None, s(60));
    assert_eq!(many.size(), 6);
}

#[test]
fn a_paused_policy_does_nothing_and_one_that_recommends_only_says_so() {
    let mut tier = Tier::new(Policy { mode: Mode::Paused, min: 2, ..policy() }, 1);
    let decision = tier.load(30.0, s(5));
    assert_eq!((hold(&decision), tier.size()), (HoldReason::Paused, 1));
    tier.scaler.set_mode(Mode::Recommend);
    let decision = tier.load(30.0, s(5));
    assert_eq!((decision.action, decision.to, tier.size()), (Action::Hold, 8, 1));
    assert!(
        decision.reason.to_string().starts_with("recommended only: concurrency averaged 30"),
        "{decision}"
    );
    tier.scaler.set_mode(Mode::Active);
    tier.load(30.0, s(1));
    assert_eq!(tier.size(), 8);
}

#[test]
fn a_size_asked_for_by_hand_holds_for_its_time_within_the_bounds() {
    let mut tier = Tier::new(policy(), 1);
    tier.load(1.0, s(15));
    tier.scaler.hold_at(5, Some(s(60)), tier.now);
    let decision = tier.tick(Some(concurrency(1.0)));
    assert_eq!(decision.to_string(), "grow from 1 to 5: 5 were asked for by hand, for another 1m");
    tier.load(40.0, s(50));
    assert_eq!((tier.size(), tier.scaler.held_to()), (5, (5, 5)));
    tier.scaler.hold_at(99, None, tier.now);
    tier.load(1.0, s(50));
    assert_eq!(tier.size(), 8, "no more than max");
    tier.scaler.hold_at(2, Some(s(10)), tier.now);
    tier.load(1.0, TICK);
    assert_eq!(tier.size(), 2, "at once");
    tier.scaler.resume();
    tier.load(1.0, s(60));
    assert_eq!(tier.size(), 1);
}

#[test]
fn after_a_change_each_direction_waits_for_its_cool_down() {
    let mut policy = policy();
    policy.scale_up.cool_down = s(20);
    policy.scale_down.cool_down = s(40);
    policy.scale_down.stabilisation = Duration::ZERO;
    policy.panic_threshold = 100.0;
    let mut tier = Tier::new(policy, 1);
    tier.load(6.0, s(1));
    assert_eq!(tier.size(), 2);
    let held = tier.load(14.0, s(10));
    assert!(held.reason.to_string().contains("growing waits for another"), "{held}");
    tier.load(14.0, s(11));
    assert_eq!(tier.size(), 4);
    let held = tier.load(1.0, s(38));
    assert!(held.reason.to_string().contains("shrinking waits for another"), "{held}");
    tier.load(1.0, s(10));
    assert_eq!(tier.size(), 1);
}

#[test]
fn growth_waits_until_it_was_wanted_all_along_but_not_in_a_panic() {
    let mut policy = policy();
    policy.scale_up.stabilisation = s(10);
    let mut tier = Tier::new(policy, 2);
    tier.load(7.0, s(15));
    let held = tier.load(12.0, s(8));
    assert_eq!(tier.size(), 2);
    assert!(
        held.reason.to_string().contains("only 2 were wanted all the time within the last 10s"),
        "{held}"
    );
    tier.load(12.0, s(8));
    assert_eq!(tier.size(), 3);
    tier.load(60.0, s(2));
    assert_eq!(tier.size(), 8);
}

#[test]
fn a_disabled_rate_stops_its_direction() {
    let mut policy = policy();
    policy.scale_up.rate = Some(Rate { backends: None, share: None, per: s(10), select: Select::Disabled });
    let mut tier = Tier::new(policy, 1);
    let held = tier.load(30.0, s(5));
    assert!(held.reason.to_string().ends_with("growing is switched off"), "{held}");
}

#[test]
fn tolerances_differ_by_direction() {
    let mut policy = policy();
    (policy.scale_up.tolerance, policy.scale_down.tolerance) = (Some(0.5), Some(0.0));
    policy.scale_down.stabilisation = Duration::ZERO;
    let mut tier = Tier::new(policy, 2);
    tier.load(11.9, s(20));
    assert_eq!(tier.size(), 2, "8 and half of it");
    tier.load(4.0, s(20));
    assert_eq!(tier.size(), 1, "exactly what one carries");
}

#[test]
fn a_backlog_before_nobody_is_drained_not_mirrored() {
    let mut policy = policy();
    policy.max = 100;
    policy.from_zero_cap = 6;
    policy.drain_queue_within = s(2);
    let mut scaler = Scaler::new(policy.clone()).expect("valid");
    let nobody = PoolView::default();
    let waiting = Sample { in_flight: Some(0.0), queued: Some(400.0), ..Sample::default() };
    scaler.observe(&waiting, s(1));
    let decision = scaler.decide(&nobody, s(1));
    assert_eq!(decision.to, 6, "{decision}");
    assert!(decision.reason.to_string().contains("no more than 6 count while nobody is ready"), "{decision}");
    // The same with experience: 400 x 40 ms within 2 s are 8 at once, which two carry.
    let mut scaler = Scaler::new(policy).expect("valid");
    let before = Sample { requests_per_second: Some(100.0), service_seconds: Some(0.04), ..concurrency(4.0) };
    scaler.observe(&before, Duration::ZERO);
    scaler.observe(&waiting, s(9));
    assert_eq!(scaler.decide(&nobody, s(9)).to, 2);
    let coming = PoolView { starting: 2, ..nobody };
    assert_eq!(scaler.decide(&coming, s(9)).action, Action::Hold, "those on their way count");
}

#[test]
fn clones_that_do_not_answer_take_up_room_and_are_not_asked_for_again() {
    let mut tier = Tier::new(Policy { max: 4, ..policy() }, 2);
    tier.pool.unready = 1;
    let decision = tier.load(100.0, TICK);
    assert_eq!((decision.to, decision.action), (4, Action::Grow { by: 1 }));
    let decision = tier.load(100.0, s(1));
    assert_eq!(decision.action, Action::Hold);
    assert!(decision.to_string().contains("1 that do not answer take up room"), "{decision}");
    tier.pool.unready = 0;
    tier.load(100.0, s(1));
    assert_eq!(tier.size(), 4);
}

#[test]
fn what_was_not_granted_uses_up_no_rate_and_starts_no_cool_down() {
    let mut policy = policy();
    let rate = Rate { backends: Some(3), share: None, per: s(60), select: Select::Max };
    (policy.scale_up.rate, policy.scale_down.cool_down) = (Some(rate), s(300));
    policy.scale_down.stabilisation = Duration::ZERO;
    let mut tier = Tier::new(policy, 2);
    assert_eq!(tier.load(30.0, TICK).action, Action::Grow { by: 3 });
    tier.pool.starting = 0;
    tier.scaler.granted(3, 0, tier.now);
    let decision = tier.load(30.0, s(6));
    assert_eq!(tier.size(), 5, "{decision}");
    tier.pool = PoolView { ready: 2, ..PoolView::default() };
    tier.scaler.granted(3, 0, tier.now);
    tier.load(0.0, s(60));
    assert_eq!(tier.size(), 1, "nothing has grown, so nothing cools down");
}

#[test]
fn births_that_fail_are_tried_again_later_and_later() {
    let mut tier = Tier::new(policy(), 1);
    let mut tries = vec![];
    for _ in 0..400 {
        let decision = tier.load(30.0, TICK);
        if std::mem::take(&mut tier.pool.starting) > 0 {
            tries.push(tier.now.as_secs());
            // They fail one by one, and count as one try.
            tier.scaler.births(0, 1, tier.now);
            tier.scaler.births(0, 1, tier.now + TICK / 2);
        } else {
            assert!(decision.to_string().contains("not born"), "{decision}");
        }
    }
    assert_eq!(tries, [0, 5, 15, 35, 75]);
    tier.scaler.births(1, 0, tier.now);
    tier.scaler.births(0, 1, tier.now);
    assert_eq!(tier.scaler.refused_for(tier.now), Some(s(5)), "one that was born ends the row");
}

#[test]
fn times_that_were_not_given_follow_what_clones_take() {
    let mut tier = Tier::new(Policy::default(), 1);
    tier.load(14.0, s(40));
    assert_eq!((tier.size(), tier.scaler.policy().panic_window), (4, s(1)));
    tier.scaler.clones_take(s(1));
    let policy = tier.scaler.policy();
    assert_eq!((policy.panic_window, policy.stable_window, policy.scale_up.window), (s(4), s(20), s(8)));
    assert_eq!(policy.scale_down.stabilisation, s(60));
    // What was seen before is not forgotten.
    let reading = tier.scaler.readings()[0];
    assert_eq!((reading.value, reading.stable), (Some(14.0), Some(14.0)));
    let decision = tier.load(5.0, s(59));
    assert_eq!(tier.size(), 4, "{decision}");
    let given = GivenTimes { panic_window: true, stable_window: true, ..GivenTimes::default() };
    let mut fixed = Scaler::new(Policy { given, ..Policy::default() }).expect("valid");
    fixed.clones_take(s(1));
    assert_eq!((fixed.policy().panic_window, fixed.policy().stable_window), (s(1), s(10)));
}
