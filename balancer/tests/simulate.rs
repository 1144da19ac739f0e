//! `flurry simulate` as its user meets it: tables, JSON, pictures, messages, exit codes.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests are named as sentences")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// A day of two levels, per minute, with a leap by ten at noon.
fn trace() -> String {
    let load = |minute: u32| if (720..780).contains(&minute) { 24_000 } else { 2_400 };
    let line = |minute: u32| format!("{:02}:{:02},{}\n", minute / 60, minute % 60, load(minute));
    "minute,requests\n".to_owned() + &(0..1440).map(line).collect::<String>()
}

struct Site {
    folder: TempDir,
}

impl Site {
    fn new(scaling: &str, trace: &str) -> Self {
        let site = Self { folder: tempfile::tempdir().unwrap() };
        let config =
            format!("listen: [127.0.0.1:8080]\nvm: {{image: /not/built/yet}}\nscaling: {{{scaling}}}\n");
        std::fs::write(site.path("flurry.yaml"), config).unwrap();
        std::fs::write(site.path("trace.csv"), trace).unwrap();
        site
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn simulate(&self, more: &[&str]) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flurry"));
        command.args(["simulate", "-c"]).arg(self.path("flurry.yaml"));
        command.arg("--load").arg(self.path("trace.csv")).args(more).output().unwrap()
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// The reports of a run with `--json`.
fn reports(output: &Output, key: &str) -> Vec<Value> {
    let outcome: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
        panic!("{error}: {} {}", text(&output.stdout), text(&output.stderr));
    });
    outcome[key].as_array().unwrap().clone()
}

const POLICY: &str = "max: 60, surge: 60, target_concurrency: 3";

#[test]
fn a_leap_costs_those_who_start_cold_more_at_the_same_hours() {
    let site = Site::new(POLICY, &trace());
    let output = site.simulate(&[
        "--json",
        "--compare",
        "kpa,hpa,static",
        "--service-time",
        "100ms",
        "--capacity",
        "4",
    ]);
    let (all, same) = (reports(&output, "reports"), reports(&output, "at_the_same_hours"));
    let names: Vec<&str> = all.iter().map(|report| report["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["flurry", "kpa", "hpa", "static"]);
    let violated = |report: &Value| report["slo_violation_seconds"].as_f64().unwrap();
    let ours = violated(&all[0]);
    assert!(ours <= 3.0, "{ours}");
    assert!(same.iter().all(|other| violated(other) >= 5.0 * ours.max(1.0)), "{same:?}");
    assert!(all[0]["timeline"].as_array().unwrap().len() > 1000);
    let decision = &all[0]["decisions"][0];
    assert!(decision["reason"].as_str().unwrap().contains("concurrency averaged"), "{decision}");
}

#[test]
fn the_table_names_what_was_assumed_and_each_contender() {
    let site = Site::new(POLICY, &trace());
    let output = site.simulate(&["--compare", "kpa", "--clone-time", "300ms", "--cold-start", "20s"]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let table = text(&output.stdout);
    assert!(table.contains("clones answer after 300ms, cold starts after 20s"), "{table}");
    for name in ["\nflurry ", "\nkpa ", "\nkpa, same hours ", "x foresight", "reversals"] {
        assert!(table.contains(name), "{name} in\n{table}");
    }
}

#[test]
fn the_picture_is_drawn_with_a_line_for_each() {
    let site = Site::new(POLICY, &trace());
    let plot = site.path("out.svg");
    let output = site.simulate(&["--compare", "kpa,static", "--plot", plot.to_str().unwrap()]);
    assert!(output.status.success(), "{}", text(&output.stderr));
    let picture = std::fs::read_to_string(&plot).unwrap();
    assert!(picture.starts_with("<svg ") && picture.trim_end().ends_with("</svg>"));
    for class in ["ours", "second", "third"] {
        assert!(picture.matches(&format!("<path class=\"{class}\"")).count() == 2, "{class}");
    }
    let nowhere = site.simulate(&["--plot", "/nonexistent/out.svg"]);
    assert_eq!(nowhere.status.code(), Some(1));
    assert!(text(&nowhere.stderr).contains("--plot: cannot write /nonexistent/out.svg"));
}

#[test]
fn every_bad_line_of_a_trace_is_named_with_file_and_number() {
    let site = Site::new(POLICY, "minute,requests\n00:00,5\n00:61,7\n00:02,many\n");
    let output = site.simulate(&[]);
    assert_eq!(output.status.code(), Some(2));
    let file = site.path("trace.csv").display().to_string();
    let message = text(&output.stderr);
    let lines: Vec<&str> = message.lines().collect();
    assert_eq!(lines.len(), 2, "{message}");
    assert!(
        lines[0].starts_with(&format!("{file}: line 3: is no time and count, got `00:61,7`")),
        "{message}"
    );
    assert!(lines[1].starts_with(&format!("{file}: line 4: ")), "{message}");
}

#[test]
fn wrong_input_is_told_by_option_or_key_and_exits_with_2() {
    let site = Site::new(POLICY, &trace());
    for (options, message) in [
        (["--capacity", "0"], "--capacity: must be from 1 to 10000, got 0"),
        (["--objective", "10ms"], "--objective: must be above the service time, got 10ms"),
        (["--peak", "-3"], "--peak: must be above 0, got -3"),
        (["--compare", "nobody"], "possible values: hpa, kpa, static"),
        (["--clone-time", "soon"], "invalid value 'soon'"),
    ] {
        let options = options.map(str::to_owned);
        let options = [format!("{}={}", options[0], options[1])];
        let output = site.simulate(&options.each_ref().map(String::as_str));
        assert_eq!(output.status.code(), Some(2), "{options:?}");
        assert!(text(&output.stderr).contains(message), "{}", text(&output.stderr));
    }
    let bad = Site::new("max: 0", &trace()).simulate(&[]);
    assert_eq!(bad.status.code(), Some(2));
    assert!(text(&bad.stderr).contains("flurry.yaml: scaling.max: must be at least min"));
}

#[test]
fn what_is_missing_is_named() {
    let site = Site::new(POLICY, "0,0\n1,0\n");
    let output = site.simulate(&["--peak", "5"]);
    assert!(text(&output.stderr).contains("--peak: cannot be reached: the trace has no request"));
    std::fs::remove_file(site.path("trace.csv")).unwrap();
    let output = site.simulate(&[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output.stderr).contains("trace.csv: cannot be read: No such file"));
    std::fs::write(site.path("flurry.yaml"), "listen: [127.0.0.1:80]\nbackends: [127.0.0.1:81]\n").unwrap();
    let output = site.simulate(&[]);
    assert!(text(&output.stderr).contains("flurry.yaml: vm: is missing"), "{}", text(&output.stderr));
    let nobody = site.simulate(&["--measured-by", "127.0.0.1:9"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(text(&nobody.stderr).contains("--measured-by: "), "{}", text(&nobody.stderr));
}

#[test]
fn the_recorded_day_runs_with_the_demos_policy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let output = Command::new(env!("CARGO_BIN_EXE_flurry"))
        .current_dir(&root)
        .args(["simulate", "-c", "deploy/examples/demo.yaml", "--load", "deploy/traces/wc98-0630.csv"])
        .args(["--peak", "300", "--service-time", "100ms", "--capacity", "4", "--json"])
        .output()
        .unwrap();
    let report = &reports(&output, "reports")[0];
    assert_eq!(report["seconds"].as_f64(), Some(86_400.0));
    assert_eq!(report["reversals"].as_u64(), Some(0));
}

#[test]
fn what_nothing_simulates_is_left_out_and_named() {
    let policy = "max: 9, target_concurrency: 3, target_p99_latency: 1s, signals: [{name: jobs, target: 5, \
                  prometheus: {url: 'http://127.0.0.1:9', query: x}}], schedule: [{cron: 0 8 * * *, zone: UTC, \
                  for: 2h, min: 7}]";
    let site = Site::new(policy, &trace());
    let output = site.simulate(&["--json"]);
    let outcome: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(outcome["left_out"], serde_json::json!(["p99_latency", "jobs", "schedule (give --starts)"]));
    assert!(outcome["reports"][0]["shrinks"].as_u64() >= Some(1), "a signal that never comes keeps nothing");
    let dated = site.simulate(&["--starts", "2026-01-13T00:00:00Z"]);
    let said = text(&dated.stdout);
    assert!(said.contains("left out, for nothing simulates it: p99_latency, jobs\n"), "{said}");
}

#[test]
fn the_benchmark_of_the_scaler_refuses_a_share_that_is_none_and_names_a_day_that_is_not_there() {
    let bench = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flurry"));
        command.args(["bench", "scaler"]).args(arguments).output().unwrap()
    };
    for share in ["0", "1.5", "NaN", "most"] {
        let refused = bench(&["--utilisation", share]);
        assert_eq!(refused.status.code(), Some(2), "{share}");
        assert!(text(&refused.stderr).contains("above 0 and at most 1"), "{refused:?}");
    }
    let refused = bench(&["--trace", "/not/there.csv"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(text(&refused.stderr).contains("/not/there.csv"), "{refused:?}");
}
