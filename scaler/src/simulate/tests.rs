//! Small loads whose outcome is plain.

use super::*;

const S: Duration = Duration::from_secs(1);

/// One backend serves 40 requests per second; 95 % are to be answered within 400 ms.
fn params() -> SimParams {
    SimParams {
        clone_time: Duration::from_millis(200),
        cold_start: 10 * S,
        capacity: Capacity { slots: 4, service_time: Duration::from_millis(100) },
        objective: Duration::from_millis(400),
        step: Duration::from_millis(250),
        timeline_every: None,
        clone_time_each: Duration::ZERO,
        starts: None,
    }
}

fn policy() -> Policy {
    let mut policy = Policy { max: 40, surge: 40, ..Policy::defaults_for(params().clone_time) };
    policy.targets.concurrency = Some(3.0);
    policy
}

/// Seconds and loads.
fn trace(parts: &[(u64, f64)]) -> Trace {
    let mut at = Duration::ZERO;
    let mut points = Vec::new();
    for (seconds, requests_per_second) in parts {
        points.push(LoadPoint { at, requests_per_second: *requests_per_second });
        at += Duration::from_secs(*seconds);
    }
    Trace::new(points, at).expect("a trace")
}

fn flurry(trace: &Trace) -> SimReport {
    simulate(&policy(), trace, &params()).expect("valid")
}

fn rival(rival: &Rival, trace: &Trace) -> SimReport {
    simulate_rival(rival, &policy(), trace, &params()).expect("valid")
}

/// Ten times the load within a second.
fn step() -> Trace {
    trace(&[(300, 40.0), (300, 400.0), (900, 40.0)])
}

#[test]
fn a_constant_load_changes_nothing_once_it_fits() {
    let report = flurry(&trace(&[(3600, 200.0)]));
    assert_eq!((report.slo_violation_seconds, report.shrinks, report.reversals), (0.0, 0, 0));
    assert_eq!(report.seconds, 3600.0);
    assert!((report.clone_hours - report.foresight_hours).abs() / report.foresight_hours < 0.3);
}

#[test]
fn a_step_of_ten_is_met_within_seconds_and_undone_later() {
    let report = flurry(&step());
    assert!(report.slo_violation_seconds <= 3.0, "{report:#?}");
    assert!(report.peak >= 11, "{report:#?}");
    assert!(report.shrinks >= 1, "{report:#?}");
    assert_eq!(report.decisions.len() as u32, report.grows + report.shrinks);
}

#[test]
fn the_same_step_costs_those_who_start_cold_much_more() {
    let report = flurry(&step());
    for other in [Rival::KPA, Rival::HPA] {
        let other = rival(&other, &step());
        assert!(
            other.slo_violation_seconds >= 5.0 * report.slo_violation_seconds.max(1.0),
            "{}: {} against {}",
            other.name,
            other.slo_violation_seconds,
            report.slo_violation_seconds
        );
    }
}

#[test]
fn a_rival_can_be_brought_to_the_same_cost() {
    let report = flurry(&step());
    for other in [Rival::KPA, Rival::HPA] {
        let default = rival(&other, &step());
        let other =
            simulate_rival_at(report.clone_hours, &other, &policy(), &step(), &params()).expect("valid");
        let miss = |hours: f64| (hours - report.clone_hours).abs();
        assert!(miss(other.clone_hours) <= miss(default.clone_hours), "{other:?}");
        assert!(report.slo_violation_seconds <= other.slo_violation_seconds / 5.0, "{}", other.name);
    }
}

#[test]
fn a_fixed_tier_is_too_large_or_too_small() {
    let large = rival(&Rival::Static { backends: 20 }, &step());
    assert_eq!((large.slo_violation_seconds, large.grows, large.peak), (0.0, 0, 20));
    assert!(large.over_share > 1.0);
    let small = rival(&Rival::Static { backends: 3 }, &step());
    assert!(small.slo_violation_seconds >= 300.0);
    assert!(small.under_share > 0.1);
}

#[test]
fn the_same_simulation_gives_the_same_report() {
    assert_eq!(flurry(&step()), flurry(&step()));
    assert_eq!(rival(&Rival::HPA, &step()), rival(&Rival::HPA, &step()));
}

#[test]
fn the_bounds_of_the_policy_hold_for_all() {
    let narrow = Policy { min: 2, max: 5, ..policy() };
    let (trace, params) = (step(), SimParams { timeline_every: Some(S), ..params() });
    let reports = [
        simulate(&narrow, &trace, &params),
        simulate_rival(&Rival::KPA, &narrow, &trace, &params),
        simulate_rival(&Rival::HPA, &narrow, &trace, &params),
    ];
    for report in reports.map(|report| report.expect("valid")) {
        assert_eq!(report.peak, 5, "{}", report.name);
        assert!(report.timeline.iter().all(|moment| (2..=5).contains(&(moment.ready + moment.starting))));
    }
}

#[test]
fn everything_wrong_is_told_at_once() {
    let params = SimParams {
        capacity: Capacity { slots: 0, service_time: Duration::ZERO },
        objective: Duration::ZERO,
        step: Duration::ZERO,
        ..params()
    };
    let policy = Policy { min: 0, ..policy() };
    let refused = simulate(&policy, &step(), &params).expect_err("wrong");
    let keys: Vec<&str> = refused.as_slice().iter().map(|complaint| complaint.key.as_str()).collect();
    assert_eq!(keys, ["scaling.min", "capacity.slots", "capacity.service_time", "objective", "step"]);
    let refused = simulate_rival(&Rival::Kpa { utilisation: f64::NAN }, &policy, &step(), &params);
    assert_eq!(refused.expect_err("wrong").as_slice().len(), 6);
}

#[test]
fn a_simulation_that_would_not_end_is_refused() {
    let second = Capacity { slots: 1, service_time: S };
    let params = SimParams { capacity: second, objective: 5 * S, ..params() };
    let load = trace(&[(60, 2e6)]);
    let refused = simulate(&policy(), &load, &params).expect_err("too much").to_string();
    assert!(refused.starts_with("trace: keeps 2000000 requests in service at once"), "{refused}");
    let years = trace(&[(3 * 366 * 86_400, 1.0)]);
    let refused = simulate(&policy(), &years, &params).expect_err("too long").to_string();
    assert!(refused.starts_with("trace: is too long: 379468800 steps of 250ms"), "{refused}");
}

#[test]
fn a_report_serializes() {
    let params = SimParams { timeline_every: Some(60 * S), ..params() };
    let report = simulate(&policy(), &step(), &params).expect("valid");
    let json = serde_json::to_value(&report).expect("serializes");
    assert_eq!(json["timeline"][1]["at_seconds"], 60.0);
    assert_eq!(json["decisions"][0]["action"], "grow");
}

#[test]
fn a_schedule_counts_once_the_trace_has_a_date() {
    let cron = crate::schedule::parse_cron("0 8 * * *").expect("a cron");
    let zone = crate::schedule::parse_zone("UTC").expect("a zone");
    let floor = crate::Schedule::new(cron, zone, 3600 * S, 5);
    let policy = Policy { schedule: vec![floor], ..policy() };
    let trace = trace(&[(3600, 1.0)]);
    let peak = |starts| simulate(&policy, &trace, &SimParams { starts, ..params() }).expect("valid").peak;
    assert_eq!((peak(None), peak(Some(Duration::ZERO)), peak(Some(7 * 3600 * S + 1800 * S))), (1, 1, 5));
}
