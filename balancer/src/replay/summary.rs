//! The end of a replay in figures: `summary.json` and the table on the screen.
//!
//! A figure that was not measured is `null` and a dash, never a zero.

use std::collections::BTreeMap;

use serde::Serialize;

use super::client::Failure;
use super::player::Played;
use super::recorder::median;
use super::schedule::{Arrivals, Plan};
use super::view::duration;

/// What `summary.json` holds. Times are medians unless the name says otherwise.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Summary {
    /// Version of the program that played.
    pub flurry_version: String,
    /// Requests that were due.
    pub requests: u64,
    /// Requests that failed, whatever the reason.
    pub failed: u64,
    /// Requests that failed, by reason.
    pub failures: BTreeMap<&'static str, u64>,
    /// The first failures in words.
    pub first_failures: Vec<String>,
    /// Median latency from when a request was due to its last byte, milliseconds.
    pub p50_ms: Option<f64>,
    /// 95th percentile of it.
    pub p95_ms: Option<f64>,
    /// 99th percentile of it.
    pub p99_ms: Option<f64>,
    /// Responses by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Share of the responses with `X-Cache` that said hit.
    pub cache_hit_ratio: Option<f64>,
    /// Responses by `X-Flurry-Clone`.
    pub requests_by_clone: BTreeMap<String, u64>,
    /// The most responses in one second.
    pub peak_requests_per_second: u32,
    /// How long the load took, seconds.
    pub duration_seconds: f64,
    /// How long the tier was watched after it, seconds; `None` when interrupted before.
    pub settle_seconds: Option<f64>,
    /// Whether the user ended the replay early.
    pub interrupted: bool,
    /// The most clones that were ready at once.
    pub clones_max: Option<u32>,
    /// Clones born during the replay.
    pub clones_born: Option<u64>,
    /// The most backends that were ready at once, parent or fixed ones included.
    pub backends_max: Option<u32>,
    /// How long the parent stood still for a checkpoint, milliseconds.
    pub parent_pause_ms: Option<f64>,
    /// Size of the newest VM descriptor as stored, bytes.
    pub descriptor_bytes: Option<u64>,
    /// From `sf_create_clones` to the first HTTP response, milliseconds.
    pub fork_to_first_response_ms: Option<f64>,
    /// The same for every clone born during the replay.
    pub fork_to_first_response_all_ms: Vec<f64>,
    /// From the start of the parent's VM to its first HTTP response, milliseconds.
    pub boot_to_first_response_ms: Option<f64>,
    /// Guest pages fetched during the replay.
    pub pages_fetched: Option<u64>,
    /// `kvm` or `tcg`.
    pub accelerator: Option<String>,
    /// Why that accelerator was taken.
    pub accelerator_reason: Option<String>,
    /// What was played.
    pub trace: TracePlayed,
    /// Status documents that could not be had.
    pub samples_missed: u64,
    /// What the scaler decided.
    pub decisions: Vec<DecisionMade>,
}

/// What was played, enough to play it again.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TracePlayed {
    /// Name of the trace's file.
    pub name: String,
    /// Start of the window.
    pub from: String,
    /// End of the window.
    pub to: String,
    /// Requests due in the busiest second.
    pub peak: f64,
    /// `poisson` or `even`.
    pub arrivals: &'static str,
    /// Where all chance came from.
    pub seed: u64,
}

/// One decision of the scaler.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DecisionMade {
    /// Seconds since the start of the replay.
    pub at_seconds: f64,
    /// `grow`, `shrink` or `hold`.
    pub action: String,
    /// Backends before.
    pub from: u32,
    /// Backends wanted.
    pub to: u32,
    /// Inputs, and the rule that bound the answer.
    pub reason: String,
}

/// Sums up a replay of the trace called `name`.
pub fn summarize(name: &str, plan: &Plan, played: &Played) -> Summary {
    let Played { recorder, watch, .. } = played;
    let latencies = recorder.latencies();
    let engine = watch.engine.as_ref();
    let forks = watch.first_responses_ms();
    let cached = recorder.cache_hits + recorder.cache_misses;
    let load = played.load_ended.unwrap_or(played.elapsed);
    Summary {
        flurry_version: env!("CARGO_PKG_VERSION").to_owned(),
        requests: recorder.offered,
        failed: recorder.failed(),
        failures: recorder.failures.iter().map(|(why, count)| (key(*why), *count)).collect(),
        first_failures: recorder.first_failures.clone(),
        p50_ms: latencies.quantile_ms(0.50),
        p95_ms: latencies.quantile_ms(0.95),
        p99_ms: latencies.quantile_ms(0.99),
        statuses: recorder.statuses.clone(),
        cache_hit_ratio: (cached > 0).then(|| recorder.cache_hits as f64 / cached as f64),
        requests_by_clone: recorder.clones.clone(),
        peak_requests_per_second: recorder.seconds.iter().map(|second| second.served).max().unwrap_or(0),
        duration_seconds: rounded(load.as_secs_f64()),
        settle_seconds: played.load_ended.map(|ended| rounded((played.elapsed - ended).as_secs_f64())),
        interrupted: played.interrupted,
        clones_max: watch.clones_max(),
        clones_born: engine.map(|_| watch.births.len() as u64),
        backends_max: watch.samples.iter().map(|sample| sample.ready).max(),
        parent_pause_ms: engine.and_then(|e| e.parent_pause_ms),
        descriptor_bytes: engine.and_then(|e| e.descriptor_bytes),
        fork_to_first_response_ms: median(&forks).or(engine.and_then(|e| e.fork_to_first_response_ms)),
        fork_to_first_response_all_ms: forks,
        boot_to_first_response_ms: engine.and_then(|e| e.boot_to_first_response_ms),
        pages_fetched: engine.map(|e| e.pages_fetched),
        accelerator: engine.map(|e| e.accelerator.clone()),
        accelerator_reason: engine.map(|e| e.accelerator_reason.clone()),
        trace: trace_played(name, plan),
        samples_missed: watch.missed,
        decisions: watch.decisions.iter().map(decision_made).collect(),
    }
}

fn trace_played(name: &str, plan: &Plan) -> TracePlayed {
    TracePlayed {
        name: name.to_owned(),
        from: plan.curve.from.to_string(),
        to: plan.curve.to.to_string(),
        peak: plan.peak,
        arrivals: match plan.arrivals {
            Arrivals::Poisson => "poisson",
            Arrivals::Even => "even",
        },
        seed: plan.seed,
    }
}

fn decision_made(mark: &super::watch::Mark) -> DecisionMade {
    let decision = &mark.decision;
    DecisionMade {
        at_seconds: rounded(mark.at),
        action: decision.action.clone(),
        from: decision.from,
        to: decision.to,
        reason: decision.reason.clone(),
    }
}

fn key(failure: Failure) -> &'static str {
    match failure {
        Failure::Connect => "connect",
        Failure::CutOff => "cut_off",
        Failure::Timeout => "timeout",
        Failure::ServerError => "server_error",
        Failure::ShedByPlayer => "shed_by_player",
    }
}

/// To whole milliseconds: what a sampled time is worth.
fn rounded(seconds: f64) -> f64 {
    (seconds * 1_000.0).round() / 1_000.0
}

/// The table that ends a replay.
pub fn table(summary: &Summary) -> String {
    let mut rows = load_rows(summary);
    rows.extend(tier_rows(summary));
    let widest = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in rows {
        text += &format!("  {name:<widest$}  {value}\n");
    }
    for why in &summary.first_failures {
        text += &format!("  ! {why}\n");
    }
    text
}

type Row = (&'static str, String);

fn load_rows(s: &Summary) -> Vec<Row> {
    let ms = |value: Option<f64>| value.map_or("-".to_owned(), duration);
    let trace = &s.trace;
    let early = if s.interrupted { ", interrupted" } else { "" };
    vec![
        (
            "trace",
            format!("{} {} to {} in {:.0} s{early}", trace.name, trace.from, trace.to, s.duration_seconds),
        ),
        ("requests", format!("{}, at most {}/s", s.requests, s.peak_requests_per_second)),
        ("failed", s.failed.to_string() + &reasons(s)),
        ("latency p50 / p95 / p99", format!("{} / {} / {}", ms(s.p50_ms), ms(s.p95_ms), ms(s.p99_ms))),
        ("cache hits", s.cache_hit_ratio.map_or("-".into(), |ratio| format!("{:.1} %", ratio * 100.0))),
    ]
}

fn reasons(s: &Summary) -> String {
    let all: Vec<String> = s.failures.iter().map(|(why, count)| format!("{why} {count}")).collect();
    if all.is_empty() { String::new() } else { format!(" ({})", all.join(", ")) }
}

fn tier_rows(s: &Summary) -> Vec<Row> {
    let ms = |value: Option<f64>| value.map_or("-".to_owned(), duration);
    let count = |value: Option<u64>| value.map_or("-".to_owned(), |count| count.to_string());
    let acted = s.decisions.iter().filter(|decision| decision.action != "hold").count();
    let forks = s.fork_to_first_response_all_ms.len();
    let accelerator = match (&s.accelerator, &s.accelerator_reason) {
        (Some(name), Some(why)) if !why.is_empty() => format!("{name} ({why})"),
        (Some(name), _) => name.clone(),
        (None, _) => "- (fixed backends)".to_owned(),
    };
    vec![
        ("decisions", format!("{acted} to grow or shrink, {} to hold", s.decisions.len() - acted)),
        (
            "clones at most / born",
            format!("{} / {}", count(s.clones_max.map(u64::from)), count(s.clones_born)),
        ),
        ("fork to first response", format!("{} (median of {forks})", ms(s.fork_to_first_response_ms))),
        ("boot to first response", ms(s.boot_to_first_response_ms)),
        ("pause of the parent", ms(s.parent_pause_ms)),
        (
            "VM descriptor",
            s.descriptor_bytes.map_or("-".into(), |bytes| format!("{} KB", bytes.div_ceil(1000))),
        ),
        ("pages fetched", count(s.pages_fetched)),
        ("accelerator", accelerator),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::status::Status;
    use crate::replay::example;
    use crate::replay::watch::Watch;

    #[test]
    fn the_table_holds_every_figure_of_a_run() {
        insta::assert_snapshot!(table(&summarize("wc98-0630.csv", &example::plan(), &example::played(95))));
    }

    #[test]
    fn the_document_has_the_keys_that_readers_rely_on() {
        let summary = summarize("wc98-0630.csv", &example::plan(), &example::played(95));
        let json = serde_json::to_value(&summary).unwrap();
        for key in [
            "requests",
            "failed",
            "clones_max",
            "parent_pause_ms",
            "descriptor_bytes",
            "fork_to_first_response_ms",
            "boot_to_first_response_ms",
            "pages_fetched",
            "accelerator",
            "decisions",
            "p50_ms",
            "p95_ms",
            "p99_ms",
            "cache_hit_ratio",
            "duration_seconds",
        ] {
            assert!(!json[key].is_null(), "{key}");
        }
        assert!(json["decisions"][0]["reason"].is_string());
    }

    #[test]
    fn what_was_not_measured_is_null_and_a_dash() {
        let mut played = example::played(0);
        played.watch = Watch::default();
        played.watch.observe(0.0, &Status::default());
        let summary = summarize("t.csv", &example::plan(), &played);
        let json = serde_json::to_value(&summary).unwrap();
        for key in ["p50_ms", "clones_max", "parent_pause_ms", "boot_to_first_response_ms", "pages_fetched"] {
            assert!(json[key].is_null(), "{key}");
        }
        assert!(table(&summary).contains("fixed backends"));
    }

    #[test]
    fn failures_are_told_by_reason_and_in_words() {
        let mut played = example::played(40);
        let ending = crate::replay::recorder::Ending::Failed(Failure::CutOff, "GET /item/1: reset".into());
        let at = std::time::Duration::from_secs(4);
        played.recorder.end(crate::replay::recorder::Outcome { due: at, done: at, ending });
        let table = table(&summarize("t.csv", &example::plan(), &played));
        assert!(
            table.contains("1 (cut_off 1)") && table.contains("! at 4.0 s: cut off: GET /item/1: reset"),
            "{table}"
        );
    }
}
