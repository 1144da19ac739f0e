//! Policies from YAML, their defaults, and their document.

use std::time::Duration;

use super::keys::KEYS;
use super::*;
use crate::yaml::{self, Complaints};

const CLONE_TIME: Duration = Duration::from_millis(500);

fn read(text: &str) -> Result<Policy, Complaints> {
    yaml::read(text, |root| Some(root.section("scaling", |s| Policy::read(s, CLONE_TIME))))
}

/// The complaints about `body` as the section `scaling`, one line each.
fn complaints(body: &str) -> Vec<String> {
    let text = format!("scaling: {{{body}}}");
    let refused = read(&text).expect_err("this policy should be refused");
    refused.into_iter().map(|complaint| complaint.to_string()).collect()
}

#[test]
fn an_empty_section_gives_the_defaults() {
    assert_eq!(read(""), Ok(Policy::default()));
    assert_eq!(read("scaling:"), Ok(Policy::default()));
}

#[test]
fn defaults_follow_the_measured_clone_time_within_bounds() {
    let windows = |ms| {
        let policy = Policy::defaults_for(Duration::from_millis(ms));
        assert!(policy.complaints().is_empty(), "{ms}");
        [policy.panic_window, policy.stable_window, policy.scale_down.stabilisation].map(|w| w.as_millis())
    };
    assert_eq!(windows(0), [1000, 10_000, 30_000]);
    assert_eq!(windows(500), [2000, 10_000, 30_000]);
    assert_eq!(windows(1000), [4000, 20_000, 60_000]);
    assert_eq!(windows(60_000), [6000, 30_000, 90_000]);
}

#[test]
fn every_key_is_read() {
    let text = "
scaling:
  min: 2
  max: 20
  target_concurrency: 3.5
  target_requests_per_second: 40
  target_p95_latency: 250ms
  stable_window: 20s
  panic_window: 3s
  panic_threshold: 150%
  tolerance: 5%
  surge: 4
  stale_after: 5s
  retry_refused_after: 7s
  scale_up: {enabled: false, window: 4s, rate: {backends: 4, share: 100%, per: 15s, select: min}}
  scale_down: {enabled: false, stabilisation: 1m, rate: {limited: false}}
";
    let s = Duration::from_secs;
    let rate = Rate { backends: Some(4), share: Some(1.0), per: s(15), select: Select::Min };
    let expected = Policy {
        min: 2,
        max: 20,
        targets: Targets {
            concurrency: Some(3.5),
            requests_per_second: Some(40.0),
            p95_latency: Some(Duration::from_millis(250)),
        },
        stable_window: s(20),
        panic_window: s(3),
        panic_threshold: 1.5,
        tolerance: 0.05,
        surge: 4,
        stale_after: s(5),
        retry_refused_after: s(7),
        scale_up: ScaleUp { enabled: false, window: s(4), rate: Some(rate) },
        scale_down: ScaleDown { enabled: false, stabilisation: s(60), rate: None },
    };
    assert_eq!(read(text), Ok(expected));
}

#[test]
fn windows_that_are_not_given_follow_the_ones_that_are() {
    let policy = read("scaling: {stable_window: 30s, panic_window: 3s}").expect("fine");
    assert_eq!(policy.scale_up.window, Duration::from_secs(3));
    assert_eq!(policy.scale_down.stabilisation, Duration::from_secs(90));
    assert_eq!(policy.scale_down.rate.map(|rate| rate.per), Some(Duration::from_secs(30)));
}

#[test]
fn a_target_of_requests_per_second_alone_drops_the_default_concurrency() {
    let policy = read("scaling: {target_requests_per_second: 50}").expect("fine");
    assert_eq!(policy.targets.concurrency, None);
    let policy = read("scaling: {target_p95_latency: 1s}").expect("fine");
    assert_eq!(policy.targets.concurrency, Policy::default().targets.concurrency);
}

#[test]
fn all_complaints_come_at_once_with_key_and_remedy() {
    let found = complaints("min: 0, max: 200000, target_concurrency: -3, tolerance: 2, maximum: 3");
    assert_eq!(
        found,
        [
            "scaling.min: must be at least 1, got 0: the parent serves too \
             (give the fewest backends to keep, the parent included, e.g. 1)",
            "scaling.max: must be at most 100000, got 200000 \
             (give the most backends to have, the parent included, e.g. 8)",
            "scaling.tolerance: must be from 0 to 50%, got 2 \
             (give the share by which load may miss its target, e.g. 10%)",
            "scaling.target_concurrency: must be above 0, got -3 \
             (give the number of requests one backend should serve at once, e.g. 4)",
            "scaling.maximum: is not a known key (did you mean `max`?)",
        ]
    );
}

#[test]
fn every_rule_is_held_to() {
    for (body, problem) in [
        ("min: 5, max: 4", "scaling.max: must be at least min, which is 5, got 4"),
        ("surge: 0", "scaling.surge: must be at least 1"),
        ("panic_threshold: 100%", "scaling.panic_threshold: must be above 100%"),
        ("target_requests_per_second: 0", "scaling.target_requests_per_second: must be above 0"),
        ("target_p95_latency: 0s", "scaling.target_p95_latency: must be above 0s"),
        ("stable_window: 1s", "scaling.panic_window: must be at most stable_window, which is 1s, got 2s"),
        ("stable_window: 25h, panic_window: 10m", "scaling.stable_window: must be at most 24h, got 25h"),
        ("panic_window: 1ms", "scaling.panic_window: must be at least 100ms, got 1ms"),
        ("stable_window: 10m", "scaling.stable_window: must be at most 200 times panic_window"),
        ("scale_up: {window: 11s}", "scaling.scale_up.window: must be at most stable_window"),
        ("stale_after: 0s", "scaling.stale_after: must be at least 100ms, got 0s"),
        ("retry_refused_after: 48h", "scaling.retry_refused_after: must be at most 24h"),
        ("scale_down: {rate: {}}", "scaling.scale_down.rate: limits nothing"),
        ("scale_down: {rate: {share: 101%}}", "scaling.scale_down.rate.share: must be above 0 and at most"),
        ("scale_up: {rate: {backends: 0}}", "scaling.scale_up.rate.backends: must be at least 1"),
        ("scale_up: {rate: {share: -1}}", "scaling.scale_up.rate.share: must be above 0, got -1"),
        ("scale_up: {rate: {backends: 1, per: 0s}}", "scaling.scale_up.rate.per: must be at least 100ms"),
        ("scale_down: {rate: {backends: 1, select: most}}", "scaling.scale_down.rate.select: must be one of"),
        ("target_concurrency: .nan", "scaling.target_concurrency: must be a number, got .nan"),
    ] {
        let found = complaints(body);
        assert!(found.iter().any(|line| line.starts_with(problem)), "{body}: {found:#?}");
        assert!(found.iter().all(|line| !line.contains("see POLICY.md")), "{body}: {found:#?}");
    }
}

#[test]
fn a_policy_made_by_hand_is_held_to_the_same_rules() {
    let targets = Targets { concurrency: None, requests_per_second: None, p95_latency: None };
    let policy = Policy { targets, tolerance: f64::NAN, ..Policy::default() };
    let keys: Vec<String> = policy.complaints().into_iter().map(|complaint| complaint.key).collect();
    assert_eq!(keys, ["scaling.tolerance", "scaling.target_concurrency"]);
}

#[test]
fn the_document_describes_every_key_and_its_example_holds_the_defaults() {
    let document = include_str!("../../POLICY.md");
    for (key, _) in KEYS {
        assert!(document.contains(&format!("`{key}`")), "POLICY.md does not describe `{key}`");
    }
    let example = document.split("```yaml\n").nth(1).and_then(|rest| rest.split("```").next());
    assert_eq!(read(example.expect("POLICY.md has an example")), Ok(Policy::default()));
}
