//! `flurry policy`, `flurry scale` and `flurry top` as their user meets them.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests are named as sentences")]

use std::path::PathBuf;
use std::process::{Command, Output};

use tempfile::TempDir;

struct Site {
    folder: TempDir,
}

impl Site {
    fn new(scaling: &str) -> Self {
        let site = Self { folder: tempfile::tempdir().unwrap() };
        let config = format!("listen: [127.0.0.1:80]\nvm: {{image: /not/built}}\nscaling: {{{scaling}}}\n");
        site.write("flurry.yaml", &config);
        site
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn test(&self, tests: &str) -> Output {
        let file = self.write("expectations.yaml", &format!("config: flurry.yaml\ntests:\n{tests}"));
        flurry(&["policy", "test", file.to_str().unwrap()])
    }
}

fn flurry(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_flurry")).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn the_example_of_expectations_passes() {
    let example = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples/policy/expectations.yaml");
    let ran = flurry(&["policy", "test", example]);
    assert_eq!(ran.status.code(), Some(0), "{}{}", text(&ran.stdout), text(&ran.stderr));
    assert!(text(&ran.stdout).ends_with("3 passed, 0 missed\n"), "{}", text(&ran.stdout));
}

#[test]
fn a_missed_expectation_is_told_with_the_decision_and_fails_the_check() {
    let ran = Site::new("max: 4, target_concurrency: 3").test(
        "  - name: room for a leap
    load: [{for: 20s, signals: {concurrency: 30}}]
    expect: [{at: 10s, at_least: 8, because: the moon}]
",
    );
    assert_eq!(ran.status.code(), Some(1));
    let said = text(&ran.stdout);
    assert!(said.contains("MISSED  room for a leap"), "{said}");
    assert!(said.contains("at 10s: at least 8 and a reason with `the moon`, and there were 4"), "{said}");
    assert!(said.contains("the decision then: ") && said.contains("max is 4"), "{said}");
}

#[test]
fn schedules_and_own_signals_can_be_tested() {
    let policy = "max: 9, target_concurrency: 3,
        schedule: [{cron: 0 8 * * mon-fri, zone: Europe/Berlin, for: 1h, min: 4}],
        signals: [{name: jobs, prometheus: {url: \"http://127.0.0.1:9090\", query: jobs}, target: 10}]";
    let ran = Site::new(policy).test(
        "  - name: the office opens
    starts: 2026-01-13T06:59:30Z
    load: [{for: 2m, signals: {concurrency: 1, jobs: 5}}]
    expect: [{at: 29s, at_most: 1}, {at: 31s, at_least: 4, because: the schedule asks for 4}]
  - name: jobs count too
    load: [{for: 1m, signals: {concurrency: 1, jobs: 65}}]
    expect: [{at: 1m, at_least: 7, at_most: 7, because: jobs averaged 65}]
",
    );
    assert_eq!(ran.status.code(), Some(0), "{}{}", text(&ran.stdout), text(&ran.stderr));
}

#[test]
fn wrong_files_are_told_with_every_complaint() {
    let site = Site::new("max: 4");
    let ran = site.test("  - {name: x, load: [{for: 1s, signals: {jobs: 1}}], reversals_at_most: 0}\n");
    assert_eq!(ran.status.code(), Some(2));
    assert!(text(&ran.stderr).contains("tests[0].load[0].signals.jobs: is no signal of the policy"));
    let ran = site.test("  - {name: x}\n");
    assert!(text(&ran.stderr).contains("expectations.yaml: tests[0].load: is missing"));
    let missing = flurry(&["policy", "test", "/nonexistent.yaml"]);
    assert_eq!(missing.status.code(), Some(1));
}

const JOURNAL: &str = r#"{"at_seconds":0.0,"event":"clock","unix_seconds":1000.0}
{"at_seconds":1.0,"event":"sample","sample":{"in_flight":20.0}}
{"at_seconds":1.0,"event":"decision","pool":{"ready":1,"starting":0,"retiring":0},"action":"grow","by":4,"to":5,"reason":"load"}
{"at_seconds":1.1,"event":"granted","asked":4,"granted":4}
{"at_seconds":1.2,"event":"clone","id":"clone-1","state":"joined"}
"#;

#[test]
fn a_journal_is_played_to_the_same_policy_and_to_another() {
    let same = Site::new("max: 8, target_concurrency: 4");
    let replay = |site: &Site, journal: &str| {
        let config = site.folder.path().join("flurry.yaml");
        let journal = site.write("shop.jsonl", journal);
        flurry(&["policy", "replay", "-c", config.to_str().unwrap(), journal.to_str().unwrap()])
    };
    let ran = replay(&same, JOURNAL);
    assert_eq!(text(&ran.stdout), "1 decisions, 0 differ\n", "{}", text(&ran.stderr));
    assert_eq!(ran.status.code(), Some(0));
    let cut = replay(&same, &format!("{JOURNAL}{{\"at_sec"));
    assert_eq!(cut.status.code(), Some(0), "a crash may cut the last line");
    let ran = replay(&Site::new("max: 3, target_concurrency: 4"), JOURNAL);
    assert_eq!(ran.status.code(), Some(1));
    let said = text(&ran.stdout);
    assert!(said.contains("line 3, 1.0 s\n  then: grow by 4 to 5: load\n  now:  grow from 1 to 3"), "{said}");
    let ran = replay(&same, "no json\n{\"at_seconds\":1,\"event\":\"other\"}\n");
    assert_eq!(ran.status.code(), Some(2));
    let said = text(&ran.stderr);
    assert!(
        said.contains("shop.jsonl: line 1: is no event") && said.contains("line 2: is no event"),
        "{said}"
    );
}

#[test]
fn scale_wants_one_thing_and_says_where_nobody_is() {
    for (args, why) in [
        (&["scale"][..], "required arguments were not provided"),
        (&["scale", "3", "--auto"], "cannot be used with"),
        (&["scale", "--auto", "--for", "10m"], "cannot be used with"),
        (&["scale", "--mode", "off"], "possible values: active, recommend, paused"),
        (&["scale", "3", "--for", "soon"], "invalid value 'soon'"),
    ] {
        let ran = flurry(args);
        assert_eq!(ran.status.code(), Some(2), "{args:?}");
        assert!(text(&ran.stderr).contains(why), "{args:?}: {}", text(&ran.stderr));
    }
    let nobody = flurry(&["scale", "3", "--admin", "127.0.0.1:9"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(text(&nobody.stderr).contains("flurry scale: no admin listener at 127.0.0.1:9"));
}

#[test]
fn top_says_where_nobody_is() {
    let nobody = flurry(&["top", "--count", "1", "--admin", "127.0.0.1:9"]);
    assert_eq!(nobody.status.code(), Some(1));
    assert!(text(&nobody.stderr).contains("flurry top: no admin listener at 127.0.0.1:9"));
}
