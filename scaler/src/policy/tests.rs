//! Policies from YAML, their defaults, and their document.

use std::time::Duration;

use super::keys::KEYS;
use super::*;
use crate::formula::Formula;
use crate::name::Name;
use crate::schedule::{parse_cron, parse_zone};
use crate::signal::Measure;
use crate::step::{Change, Threshold};
use crate::yaml::{self, Complaints};

fn read(text: &str) -> Result<Policy, Complaints> {
    yaml::read(text, |root| Some(root.section("scaling", |s| Policy::read(s, Policy::ASSUMED_CLONE_TIME))))
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
  mode: recommend
  min: 2
  max: 20
  target_concurrency: 3.5
  target_requests_per_second: 40
  target_cpu: 70%
  target_p50_latency: 50ms
  target_p95_latency: 250ms
  target_p99_latency: 1s
  target_queue_wait: 100ms
  target_error_share: 1%
  activation: {concurrency: 2}
  signals:
    - name: jobs
      prometheus: {url: http://127.0.0.1:9090, query: sum(jobs), every: 10s, timeout: 1s}
      target: 5
      activation: 3
    - {name: blend, formula: concurrency + 0.1 * jobs, measure: per_backend}
  steps:
    - {signal: cpu, above: 80%, add: 2}
    - {signal: p95_latency, above: 400ms, add: 50%}
    - {signal: jobs, below: 3, remove: 1}
  schedule:
    - {cron: 0 8 * * mon-fri, zone: Europe/Berlin, for: 10h, min: 4}
  predict: {season: 7d, bin: 10m, buffer: 15m, act: true, file: /var/lib/flurry/shop.json}
  fallback: {after: 40s, backends: 5}
  when_missing: ignore
  journal: /var/log/shop.jsonl
  stable_window: 20s
  panic_window: 3s
  panic_threshold: 150%
  drain_queue_within: 500ms
  tolerance: 5%
  surge: 4
  stale_after: 5s
  retry_refused_after: 7s
  from_zero_cap: 3
  scale_up:
    enabled: false
    window: 4s
    stabilisation: 2s
    tolerance: 3%
    cool_down: 1s
    rate: {backends: 4, share: 100%, per: 15s, select: min}
  scale_down: {enabled: false, stabilisation: 1m, tolerance: 20%, cool_down: 9s, rate: {limited: false}}
";
    let s = Duration::from_secs;
    let rate = Rate { backends: Some(4), share: Some(1.0), per: s(15), select: Select::Min };
    let ms = Duration::from_millis;
    let name = |text: &str| Name::new(text).expect("a name");
    let query = Origin::Prometheus {
        url: "http://127.0.0.1:9090".to_owned(),
        query: "sum(jobs)".to_owned(),
        every: s(10),
        timeout: s(1),
    };
    let jobs = CustomSignal {
        name: name("jobs"),
        origin: query,
        target: Some(5.0),
        measure: Measure::Total,
        activation: Some(3.0),
    };
    let formula = Formula::new("concurrency + 0.1 * jobs").expect("a formula");
    let blend = CustomSignal {
        name: name("blend"),
        origin: Origin::Formula(formula),
        target: None,
        measure: Measure::PerBackend,
        activation: None,
    };
    let step = |signal, when, change| Step { signal, when, change };
    let (cron, zone) = (parse_cron("0 8 * * mon-fri"), parse_zone("Europe/Berlin"));
    let office = Schedule::new(cron.expect("cron"), zone.expect("zone"), s(36_000), 4);
    let expected = Policy {
        mode: Mode::Recommend,
        min: 2,
        max: 20,
        targets: Targets {
            concurrency: Some(3.5),
            requests_per_second: Some(40.0),
            cpu: Some(0.7),
            p50_latency: Some(ms(50)),
            p95_latency: Some(ms(250)),
            p99_latency: Some(s(1)),
            queue_wait: Some(ms(100)),
            error_share: Some(0.01),
        },
        activation: vec![(Signal::Concurrency, 2.0)],
        signals: vec![jobs, blend],
        steps: vec![
            step(Signal::Cpu, Threshold::Above(0.8), Change::Backends(2)),
            step(Signal::P95Latency, Threshold::Above(0.4), Change::Share(0.5)),
            step(Signal::Custom(name("jobs")), Threshold::Below(3.0), Change::Backends(1)),
        ],
        schedule: vec![office],
        predict: Some(Predict { season: s(7 * 86_400), bin: s(600), buffer: s(900), acts: true }),
        predict_file: Some("/var/lib/flurry/shop.json".into()),
        journal: Some("/var/log/shop.jsonl".into()),
        fallback: Some(Fallback { after: s(40), backends: 5 }),
        when_missing: WhenMissing::Ignore,
        stable_window: s(20),
        panic_window: s(3),
        panic_threshold: 1.5,
        drain_queue_within: ms(500),
        tolerance: 0.05,
        surge: 4,
        stale_after: s(5),
        from_zero_cap: 3,
        retry_refused_after: s(7),
        scale_up: ScaleUp {
            enabled: false,
            window: s(4),
            stabilisation: s(2),
            tolerance: Some(0.03),
            cool_down: s(1),
            rate: Some(rate),
        },
        scale_down: ScaleDown {
            enabled: false,
            stabilisation: s(60),
            tolerance: Some(0.2),
            cool_down: s(9),
            rate: None,
        },
        given: GivenTimes {
            stable_window: true,
            panic_window: true,
            drain_queue_within: true,
            growth_window: true,
            stabilisation: true,
            shrink_rate: true,
        },
    };
    assert_eq!(read(text), Ok(expected));
}

#[test]
fn windows_that_are_not_given_follow_the_ones_that_are() {
    let policy = read("scaling: {stable_window: 30s, panic_window: 3s}").expect("fine");
    assert_eq!(policy.scale_up.window, Duration::from_secs(6));
    assert_eq!(policy.drain_queue_within, Duration::from_secs(3));
    assert_eq!(policy.scale_down.stabilisation, Duration::from_secs(90));
    assert_eq!(policy.scale_down.rate.map(|rate| rate.per), Some(Duration::from_secs(30)));
}

#[test]
fn a_target_of_requests_per_second_alone_drops_the_default_concurrency() {
    let policy = read("scaling: {target_requests_per_second: 50}").expect("fine");
    assert_eq!(policy.targets.concurrency, None);
    for other in [
        "target_cpu: 50%",
        "signals: [{name: x, formula: cpu, target: 1}]",
        "steps: [{signal: cpu, above: 1, add: 1}]",
    ] {
        let policy = read(&format!("scaling: {{{other}}}")).expect(other);
        assert_eq!(policy.targets.concurrency, None, "{other}");
    }
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
        (
            "stable_window: 500ms",
            "scaling.panic_window: must be at most stable_window, which is 500ms, got 1s",
        ),
        ("stable_window: 25h, panic_window: 10m", "scaling.stable_window: must be at most 24h, got 25h"),
        ("panic_window: 1ms", "scaling.panic_window: must be at least 100ms, got 1ms"),
        ("stable_window: 10m", "scaling.stable_window: must be at most 200 times panic_window"),
        ("scale_up: {window: 11s}", "scaling.scale_up.window: must be at most stable_window"),
        ("stale_after: 0s", "scaling.stale_after: must be at least 100ms, got 0s"),
        ("drain_queue_within: 0s", "scaling.drain_queue_within: must be at least 100ms, got 0s"),
        ("retry_refused_after: 48h", "scaling.retry_refused_after: must be at most 24h"),
        ("scale_down: {rate: {}}", "scaling.scale_down.rate: limits nothing"),
        ("scale_down: {rate: {share: 101%}}", "scaling.scale_down.rate.share: must be above 0 and at most"),
        ("scale_up: {rate: {backends: 0}}", "scaling.scale_up.rate.backends: must be at least 1"),
        ("scale_up: {rate: {share: -1}}", "scaling.scale_up.rate.share: must be above 0, got -1"),
        ("scale_up: {rate: {backends: 1, per: 0s}}", "scaling.scale_up.rate.per: must be at least 100ms"),
        ("scale_down: {rate: {backends: 1, select: most}}", "scaling.scale_down.rate.select: must be one of"),
        ("target_cpu: 120%", "scaling.target_cpu: must be at most 100%"),
        ("target_error_share: 0", "scaling.target_error_share: must be above 0, got 0"),
        ("target_queue_wait: 0s", "scaling.target_queue_wait: must be above 0s"),
        ("mode: off", "scaling.mode: must be one of active, recommend, paused"),
        ("when_missing: panic", "scaling.when_missing: must be one of keep, ignore"),
        ("from_zero_cap: 0", "scaling.from_zero_cap: must be at least 1"),
        ("activation: {cpu: 10}", "scaling.activation.cpu: is of a signal without target"),
        ("activation: {jobs: 10}", "scaling.activation.jobs: is not a known key"),
        ("scale_up: {tolerance: 60%}", "scaling.scale_up.tolerance: must be from 0 to 50%"),
        ("scale_down: {cool_down: 30h}", "scaling.scale_down.cool_down: must be at most 24h"),
        ("signals: [{name: jobs}]", "scaling.signals[0]: must have either `prometheus` or `formula`"),
        ("signals: [{name: cpu, formula: memory}]", "scaling.signals[0].name: is the name of a built-in"),
        ("signals: [{name: x, formula: y + 1}]", "scaling.signals[0].formula: holds `y`, which is no signal"),
        ("signals: [{name: x, formula: 1 +}]", "scaling.signals[0].formula: is no formula"),
        (
            "signals: [{name: x, formula: cpu}, {name: y, formula: x}]",
            "scaling.signals[1].formula: holds `x`",
        ),
        ("signals: [{name: x, formula: cpu}, {name: x, formula: cpu}]", "scaling.signals[1].name: is given"),
        (
            "signals: [{name: x, prometheus: {url: \"ftp://a\", query: q}}]",
            "scaling.signals[0].prometheus.url",
        ),
        ("signals: [{name: x, prometheus: {url: \"http://a\"}}]", "scaling.signals[0].prometheus.query: is"),
        ("signals: [{name: x, formula: cpu}]", "scaling.target_concurrency: is missing, and so is every"),
        ("steps: [{signal: cpu, above: 80%}]", "scaling.steps[0]: must have either above and add"),
        ("steps: [{signal: cpu, above: 80%, add: 0}]", "scaling.steps[0].add: must be at least 1, got 0"),
        ("steps: [{signal: jobs, above: 8, add: 1}]", "scaling.steps[0].signal: is no signal, got `jobs`"),
        ("steps: [{signal: cpu, above: much, add: 1}]", "scaling.steps[0].above: must be a share"),
        ("schedule: [{cron: x, zone: UTC, for: 1h, min: 2}]", "scaling.schedule[0].cron: is no cron pattern"),
        (
            "schedule: [{cron: 0 8 * * *, zone: Mars, for: 1h, min: 2}]",
            "scaling.schedule[0].zone: is no IANA",
        ),
        ("schedule: [{cron: 0 8 * * *, zone: UTC, for: 1s, min: 2}]", "scaling.schedule[0].for: must be at"),
        (
            "schedule: [{cron: 0 8 * * *, zone: UTC, for: 1h, min: 9}]",
            "scaling.schedule[0].min: must be at most",
        ),
        ("predict: {bin: 7m}", "scaling.predict.bin: must fit into the season without rest"),
        ("predict: {season: 28d, bin: 1m}", "scaling.predict.bin: must cut the season into 10080 at most"),
        (
            "steps: [{signal: cpu, above: 80%, add: 1}], predict: {}",
            "scaling.predict: foresees what a target asked for",
        ),
        ("predict: {file: shop.json}", "scaling.predict.file: must be absolute, got `shop.json`"),
        ("journal: here", "scaling.journal: must be absolute, got `here`"),
        ("fallback: {after: 1m}", "scaling.fallback.backends: is missing"),
        ("fallback: {backends: 9}", "scaling.fallback.backends: must be at most max, which is 8, got 9"),
        ("target_concurrency: .nan", "scaling.target_concurrency: must be a number, got .nan"),
    ] {
        let found = complaints(body);
        assert!(found.iter().any(|line| line.starts_with(problem)), "{body}: {found:#?}");
        assert!(found.iter().all(|line| !line.contains("see POLICY.md")), "{body}: {found:#?}");
    }
}

#[test]
fn a_policy_made_by_hand_is_held_to_the_same_rules() {
    let targets = Targets::default();
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
    let written = read(example.expect("POLICY.md has an example")).expect("it is valid");
    assert_eq!(Policy { given: GivenTimes::default(), ..written }, Policy::default());
    let longer = document.split("```yaml\n").nth(2).and_then(|rest| rest.split("```").next());
    let policy = read(longer.expect("POLICY.md has a longer example")).expect("it is valid");
    assert_eq!((policy.signals.len(), policy.schedule.len()), (2, 1));
}
