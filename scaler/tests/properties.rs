//! What holds for every policy, load and pool. On a failure proptest prints the case
//! and keeps its seed in `proptest-regressions`, which replays it at the next run.

use std::time::Duration;

use proptest::prelude::*;
use scaler::{
    Action, BackendView, Change, Decision, Fallback, Phase, Policy, PoolView, Rate, Reason, Sample, Scaler,
    Select, Signal, Step, Threshold, choose_victims,
};

const TICK: Duration = Duration::from_millis(500);

fn sample(requests: f64) -> Sample {
    Sample { in_flight: Some(requests), ..Sample::default() }
}

/// A decision, the pool it was made for, and whether a panic was on.
#[derive(Debug, PartialEq)]
struct Played {
    pool: PoolView,
    decision: Decision,
    panicking: bool,
}

/// Observes and decides once a tick, and carries out every decision; clones need
/// `birth` ticks.
fn play(policy: &Policy, ready: u32, birth: usize, loads: &[f64]) -> Vec<Played> {
    let mut scaler = Scaler::new(policy.clone()).expect("a valid policy");
    let mut pool = PoolView { ready, ..PoolView::default() };
    let mut births = vec![0; birth];
    let mut played = Vec::new();
    for (tick, load) in loads.iter().enumerate() {
        let now = TICK * tick as u32;
        let born = births.remove(0);
        (pool.ready, pool.starting) = (pool.ready + born, pool.starting - born);
        scaler.observe(&sample(*load), now);
        let decision = scaler.decide(&pool, now);
        played.push(Played { pool, decision, panicking: scaler.panicking_for().is_some() });
        births.push(0);
        match decision.action {
            Action::Grow { by } => {
                births[birth - 1] += by;
                pool.starting += by;
            }
            Action::Shrink { by } => pool.ready -= by,
            Action::Hold => {}
        }
    }
    played
}

prop_compose! {
    fn rates()(
        backends in proptest::option::of(1_u32..6),
        share in 0.01_f64..1.0,
        seconds in 1_u64..60,
        max in any::<bool>(),
    ) -> Rate {
        let select = if max { Select::Max } else { Select::Min };
        Rate { backends, share: Some(share), per: Duration::from_secs(seconds), select }
    }
}

/// Rules beside targets and windows.
#[derive(Debug, Clone)]
struct Rules {
    times: (Duration, Duration, Duration),
    cap: u32,
    fallback: Option<Fallback>,
    steps: Vec<Step>,
}

prop_compose! {
    fn rules()(
        times in (0_u64..8, 0_u64..20, 0_u64..20),
        cap in 1_u32..9,
        after in proptest::option::of((1_u64..9, 1_u32..40)),
        add in proptest::option::of((1.0_f64..20.0, 1_u32..9)),
        remove in proptest::option::of((0.0_f64..1.0, 0.1_f64..1.0)),
    ) -> Rules {
        let s = Duration::from_secs;
        let step = |when, change| Step { signal: Signal::Concurrency, when, change };
        let add = add.map(|(above, by)| step(Threshold::Above(above), Change::Backends(by)));
        let remove = remove.map(|(below, by)| step(Threshold::Below(below), Change::Share(by)));
        Rules {
            times: (s(times.0), s(times.1), s(times.2)),
            cap,
            fallback: after.map(|(after, backends)| Fallback { after: s(after), backends }),
            steps: add.into_iter().chain(remove).collect(),
        }
    }
}

prop_compose! {
    fn policies()(
        min in 1_u32..4,
        more in 0_u32..30,
        target in 0.5_f64..20.0,
        panic_ms in 500_u64..5000,
        stable_ratio in 1_u32..10,
        stabilisation in 0_u64..90,
        tolerance in 0.0_f64..0.3,
        surge in 1_u32..10,
        up in proptest::option::of(rates()),
        down in proptest::option::of(rates()),
        rules in rules(),
    ) -> Policy {
        let mut policy = Policy { min, max: min + more, tolerance, surge, ..Policy::default() };
        policy.targets.concurrency = Some(target);
        policy.panic_window = Duration::from_millis(panic_ms);
        policy.stable_window = policy.panic_window * stable_ratio;
        policy.scale_up.window = policy.panic_window;
        policy.scale_up.rate = up;
        policy.scale_down.rate = down;
        policy.scale_down.stabilisation = Duration::from_secs(stabilisation);
        (policy.scale_up.stabilisation, policy.scale_up.cool_down, policy.scale_down.cool_down) = rules.times;
        (policy.from_zero_cap, policy.fallback, policy.steps) = (rules.cap, rules.fallback, rules.steps);
        policy.fallback = policy.fallback.map(|fallback| Fallback { backends: policy.max.min(fallback.backends), ..fallback });
        policy
    }
}

/// Loads with steps, spikes and things that are no loads.
fn loads() -> impl Strategy<Value = Vec<f64>> {
    let load = prop_oneof![
        6 => 0.0_f64..200.0,
        1 => Just(0.0),
        1 => Just(f64::NAN),
        1 => Just(-1.0),
        1 => Just(f64::INFINITY),
        1 => Just(1e9),
    ];
    prop::collection::vec((load, 1_usize..40), 1..12).prop_map(|steps| {
        steps.into_iter().flat_map(|(load, ticks)| std::iter::repeat_n(load, ticks)).collect()
    })
}

proptest! {
    #[test]
    fn what_is_wanted_is_always_within_the_bounds(
        policy in policies(), loads in loads(), ready in 1_u32..60, birth in 1_usize..8,
    ) {
        for Played { pool, decision, .. } in play(&policy, ready, birth, &loads) {
            prop_assert!((policy.min..=policy.max).contains(&decision.to), "{decision}");
            prop_assert_eq!(decision.from, pool.capacity());
            match decision.action {
                Action::Grow { by } => {
                    prop_assert!(by >= 1 && decision.from + by <= decision.to, "{decision}");
                    prop_assert!(pool.starting + by <= policy.surge, "{decision}");
                }
                Action::Shrink { by } => {
                    prop_assert!(by >= 1 && decision.from - by >= decision.to, "{decision}");
                    prop_assert!(pool.ready - by >= policy.min, "{decision}");
                }
                Action::Hold => prop_assert!(matches!(decision.reason, Reason::Hold(_))),
            }
            prop_assert!(!decision.reason.to_string().is_empty());
        }
    }

    #[test]
    fn without_any_signal_the_fallback_is_what_is_wanted_at_least(
        policy in policies(), ready in 1_u32..20, birth in 1_usize..8, blind in 1_usize..60,
    ) {
        // What is no number is no signal.
        let loads = vec![f64::NAN; blind];
        let played = play(&policy, ready, birth, &loads);
        let Some(fallback) = policy.fallback else { return Ok(()) };
        for (tick, Played { decision, .. }) in played.iter().enumerate() {
            let due = TICK * tick as u32 >= fallback.after;
            prop_assert!(!due || decision.to >= fallback.backends.max(policy.min), "{decision}");
            prop_assert!(due || decision.to <= ready.max(policy.min), "{decision}");
        }
    }

    #[test]
    fn the_same_inputs_give_the_same_decisions(
        policy in policies(), loads in loads(), ready in 1_u32..20, birth in 1_usize..8,
    ) {
        prop_assert_eq!(play(&policy, ready, birth, &loads), play(&policy, ready, birth, &loads));
    }

    #[test]
    fn more_load_never_wants_fewer_backends(
        policy in policies(), load in prop::collection::vec(0.0_f64..100.0, 1..60),
        factor in 1.0_f64..5.0, ready in 1_u32..30, starting in 0_u32..5,
    ) {
        // The same pool throughout and no rates, whose room depends on what was done
        // before: only the load differs.
        let mut policy = policy;
        (policy.scale_up.rate, policy.scale_down.rate) = (None, None);
        // Steps and cool-downs depend on when it last changed.
        policy.steps.clear();
        (policy.scale_up.cool_down, policy.scale_down.cool_down) = (Duration::ZERO, Duration::ZERO);
        let pool = PoolView { ready, starting, ..PoolView::default() };
        let wanted = |factor: f64| {
            let mut scaler = Scaler::new(policy.clone()).expect("a valid policy");
            let decide = |(tick, load): (usize, &f64)| {
                let now = TICK * tick as u32;
                scaler.observe(&sample(load * factor), now);
                scaler.decide(&pool, now)
            };
            load.iter().enumerate().map(decide).last()
        };
        let (less, more) = (wanted(1.0), wanted(factor));
        prop_assert!(less.map(|d| d.to) <= more.map(|d| d.to), "{less:?} {more:?}");
    }

    #[test]
    fn a_panicking_tier_never_shrinks(
        policy in policies(), loads in loads(), ready in 1_u32..20, birth in 1_usize..8,
    ) {
        let ready = ready.clamp(policy.min, policy.max);
        for Played { decision, panicking, .. } in play(&policy, ready, birth, &loads) {
            let shrinks = matches!(decision.action, Action::Shrink { .. });
            prop_assert!(!(panicking && shrinks), "{decision}");
        }
    }

    #[test]
    fn noise_within_the_tolerance_never_makes_it_shrink_and_grow_again(
        mean in 1.0_f64..200.0,
        noise in prop::collection::vec(-1.0_f64..1.0, 600),
        birth in 1_usize..6,
    ) {
        let mut policy = Policy { max: 100, surge: 100, ..Policy::default() };
        policy.scale_down.stabilisation = Duration::from_secs(5);
        let loads: Vec<f64> = noise.iter().map(|noise| mean * (1.0 + 0.1 * noise)).collect();
        let moves: Vec<Action> = play(&policy, 1, birth, &loads)
            .into_iter()
            .map(|played| played.decision.action)
            .filter(|action| *action != Action::Hold)
            .collect();
        let first_shrink = moves.iter().position(|action| matches!(action, Action::Shrink { .. }));
        let after = &moves[first_shrink.unwrap_or(moves.len())..];
        prop_assert!(after.iter().all(|action| matches!(action, Action::Shrink { .. })), "{moves:?}");
    }

    #[test]
    fn no_order_of_times_and_values_breaks_it(
        policy in policies(),
        events in prop::collection::vec((any::<u64>(), any::<f64>(), any::<f64>(), any::<u32>(), any::<u32>()), 1..80),
    ) {
        let mut scaler = Scaler::new(policy.clone()).expect("a valid policy");
        for (nanos, in_flight, p95, ready, starting) in events {
            let now = Duration::from_nanos(nanos);
            let sample = Sample { p95_seconds: Some(p95), ..sample(in_flight) };
            scaler.observe(&sample, now);
            scaler.granted(ready, starting, now);
            let decision = scaler.decide(&PoolView { ready, starting, ..PoolView::default() }, now);
            prop_assert!((policy.min..=policy.max).contains(&decision.to), "{decision}");
        }
    }

    #[test]
    fn victims_are_the_least_busy_and_min_stay(
        backends in prop::collection::vec((0_u64..4, 0_u64..4, any::<bool>(), any::<bool>()), 0..30),
        n in 0_u32..40, min in 0_u32..10,
    ) {
        let view = |(id, (in_flight, joined, stays, ready)): (usize, &(u64, u64, bool, bool))| BackendView {
            id,
            phase: if *ready { Phase::Ready } else { Phase::Starting },
            stays: *stays,
            in_flight: *in_flight,
            private_pages: 0,
            joined: Duration::from_secs(*joined),
        };
        let pool: Vec<_> = backends.iter().enumerate().map(view).collect();
        let victims = choose_victims(&pool, n, min);
        let ready = pool.iter().filter(|backend| backend.phase == Phase::Ready).count();
        let may_go = |id: &usize| pool[*id].phase == Phase::Ready && !pool[*id].stays;
        prop_assert!(victims.iter().all(may_go));
        prop_assert!(victims.is_empty() || ready - victims.len() >= min.max(1) as usize);
        prop_assert!(victims.len() <= n as usize);
        let busiest = victims.iter().map(|id| pool[*id].in_flight).max();
        let spared = (0..pool.len()).filter(|id| may_go(id) && !victims.contains(id));
        prop_assert!(busiest <= spared.map(|id| pool[id].in_flight).min().or(busiest));
    }

    #[test]
    fn any_text_is_read_or_complained_about(text in "[a-z_: \\-\\[\\]{},.0-9%\n]{0,200}") {
        let read = scaler::yaml::read(&text, |root| {
            Some(root.section("scaling", |section| Policy::read(section, TICK)))
        });
        match read {
            Ok(policy) => prop_assert!(Scaler::new(policy).is_ok()),
            Err(complaints) => {
                let report = scaler::yaml::Lines::of(&text).report("f", &complaints);
                prop_assert!(!report.is_empty());
            }
        }
    }
}
