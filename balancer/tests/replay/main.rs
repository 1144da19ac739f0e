//! `flurry replay` as a user runs it, against a tier and an admin listener
//! that live in the test. No VM, no privilege.

// A test may stop at whatever it did not expect.
#![allow(clippy::unwrap_used)]

mod tier;

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tier::{Behaviour, Tier};

const TRACE: &str = "second,requests\n0,10\n1,40\n2,20\n";

/// A folder with a trace in it.
fn folder(trace: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("trace.csv"), trace).unwrap();
    folder
}

fn command(tier: &Tier, folder: &Path, more: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_flurry"));
    command.arg("replay").args(["--url", &tier.url, "--admin", &tier.admin]);
    command.args(["--trace", "trace.csv", "--out", "out"]).args(more).current_dir(folder);
    command.stdin(Stdio::null());
    command
}

fn replay(tier: &Tier, folder: &Path, more: &[&str]) -> Output {
    command(tier, folder, more).output().unwrap()
}

fn complaint(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn summary(folder: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(folder.join("out/summary.json")).unwrap()).unwrap()
}

const SHORT: [&str; 6] = ["--peak", "80", "--duration", "2s", "--settle", "2s"];

#[test]
fn a_replay_leaves_summary_and_picture_and_ends_when_the_last_clone_is_gone() {
    let tier = Tier::start(Behaviour::Well);
    let folder = folder(TRACE);
    let items = ["--path", "/item/{n}", "--items", "5", "--settle", "20s"];
    let output = replay(&tier, folder.path(), &[&SHORT[..4], &items].concat());
    assert!(output.status.success(), "{}", complaint(&output));

    let summary = summary(folder.path());
    assert_eq!(summary["failed"], 0);
    assert!(summary["requests"].as_u64().unwrap() > 100);
    assert_eq!(summary["clones_max"], 1);
    assert_eq!(summary["clones_born"], 1);
    assert_eq!(summary["fork_to_first_response_ms"], 180.0);
    assert_eq!(summary["boot_to_first_response_ms"], 9000.0);
    assert_eq!(summary["accelerator"], "tcg");
    assert_eq!(summary["cache_hit_ratio"], 1.0);
    assert!(summary["decisions"].as_array().unwrap().iter().any(|d| d["action"] == "grow"));
    assert!(summary["p50_ms"].as_f64().unwrap() < 500.0);
    let by_clone = summary["requests_by_clone"].as_object().unwrap();
    assert_eq!(by_clone["parent"], summary["requests"]);

    let picture = std::fs::read_to_string(folder.path().join("out/timeline.svg")).unwrap();
    assert!(picture.contains("clone 7, first response after 180 ms"));
    let screen = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(screen.contains("fork to first response") && !screen.contains('\x1b'), "{screen}");
    let asked = tier.paths_asked();
    assert_eq!(asked, ["/item/1", "/item/2", "/item/3", "/item/4", "/item/5"]);
}

#[test]
fn connections_are_kept_alive() {
    let tier = Tier::start(Behaviour::Well);
    let folder = folder(TRACE);
    assert!(replay(&tier, folder.path(), &SHORT).status.success());
    let requests = summary(folder.path())["requests"].as_u64().unwrap();
    assert!(tier.connections() * 4 < requests, "{} for {requests}", tier.connections());
}

#[test]
fn server_errors_are_counted_and_fail_the_run_only_when_asked() {
    let tier = Tier::start(Behaviour::ServerError);
    let folder = folder(TRACE);
    assert!(replay(&tier, folder.path(), &SHORT).status.success());
    let output = replay(&tier, folder.path(), &[&SHORT[..], &["--fail-on-error"]].concat());
    assert_eq!(output.status.code(), Some(1));
    let summary = summary(folder.path());
    assert_eq!(summary["failed"], summary["requests"]);
    assert_eq!(summary["failures"]["server_error"], summary["failed"]);
    assert!(summary["p50_ms"].is_null(), "a failure has no latency");
}

#[test]
fn a_response_that_is_cut_off_is_a_failed_request_and_is_not_tried_again() {
    let tier = Tier::start(Behaviour::CutOff);
    let folder = folder(TRACE);
    let output = replay(&tier, folder.path(), &[&SHORT[..], &["--fail-on-error"]].concat());
    assert_eq!(output.status.code(), Some(1));
    let summary = summary(folder.path());
    assert_eq!(summary["failures"]["cut_off"], summary["requests"]);
    assert_eq!(tier.requests(), summary["requests"].as_u64().unwrap());
}

#[test]
fn latency_counts_from_when_a_request_was_due_even_if_the_tier_stalls() {
    let tier = Tier::start(Behaviour::StallFor(Duration::from_millis(1_500)));
    let folder = folder(TRACE);
    assert!(replay(&tier, folder.path(), &SHORT).status.success());
    let summary = summary(folder.path());
    assert!(summary["p50_ms"].as_f64().unwrap() > 300.0, "{summary}");
    assert!(
        summary["failed"] == 0 && summary["requests"].as_u64().unwrap() > 100,
        "an open loop does not wait"
    );
}

#[test]
fn an_interrupted_replay_keeps_what_it_has() {
    let tier = Tier::start(Behaviour::Well);
    let folder = folder(TRACE);
    let mut child = command(&tier, folder.path(), &["--peak", "20", "--duration", "60s"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(Duration::from_millis(1_500));
    let pid = nix::unistd::Pid::from_raw(child.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(130));
    let summary = summary(folder.path());
    assert_eq!(summary["interrupted"], true);
    assert!(summary["settle_seconds"].is_null());
}

#[test]
fn a_tier_that_is_not_there_is_named() {
    let mut tier = Tier::start(Behaviour::Well);
    tier.url = tier::nobody();
    let folder = folder(TRACE);
    let output = replay(&tier, folder.path(), &SHORT);
    assert_eq!(output.status.code(), Some(1));
    let complaint = complaint(&output);
    assert!(complaint.contains("--url: cannot reach http://127.0.0.1:"), "{complaint}");
    assert!(complaint.contains("is `flurry up` running?"), "{complaint}");
}

#[test]
fn an_admin_listener_that_is_not_there_or_is_something_else_is_named() {
    let folder = folder(TRACE);
    let mut tier = Tier::start(Behaviour::Well);
    tier.admin = tier::nobody();
    let output = replay(&tier, folder.path(), &SHORT);
    assert!(complaint(&output).contains("--admin: cannot reach"), "{}", complaint(&output));
    tier.admin = tier.url.clone();
    let output = replay(&tier, folder.path(), &SHORT);
    assert!(complaint(&output).contains("/v1/status is no status document"), "{}", complaint(&output));
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn a_tier_that_accepts_and_never_answers_is_given_up_after_five_seconds() {
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut tier = Tier::start(Behaviour::Well);
    tier.admin = format!("http://{}", silent.local_addr().unwrap());
    let folder = folder(TRACE);
    let output = replay(&tier, folder.path(), &SHORT);
    assert!(complaint(&output).contains("no answer within 5 s"), "{}", complaint(&output));
}

#[test]
fn wrong_input_ends_with_code_two_before_anything_is_sent() {
    let tier = Tier::start(Behaviour::Well);
    let cases: [(&str, &[&str], &[&str]); 6] = [
        ("", &[], &["the trace is empty"]),
        (
            "minute,requests\n13:30,ten\n13:31",
            &[],
            &["line 2: requests: must be", "line 3: must be two fields"],
        ),
        (TRACE, &["--from", "2", "--to", "1"], &["--from: must be earlier than --to"]),
        (TRACE, &["--to", "14:00"], &["--to: must be inside the trace"]),
        (
            TRACE,
            &["--path", "/item/{n}", "--duration", "0s"],
            &["--items: must say", "--duration: must be at least"],
        ),
        (TRACE, &["--trace", "none.csv"], &["--trace: cannot read none.csv: No such file"]),
    ];
    for (trace, args, complaints) in cases {
        let folder = folder(trace);
        let args: Vec<&str> =
            if args.contains(&"--duration") { args.to_vec() } else { [args, &SHORT[2..]].concat() };
        let mut command = Command::new(env!("CARGO_BIN_EXE_flurry"));
        command.args(["replay", "--url", &tier.url, "--admin", &tier.admin, "--peak", "10", "--out", "out"]);
        if !args.contains(&"--trace") {
            command.args(["--trace", "trace.csv"]);
        }
        let output = command.args(&args).current_dir(folder.path()).output().unwrap();
        for expected in complaints {
            assert!(complaint(&output).contains(expected), "{args:?}: {}", complaint(&output));
        }
        assert_eq!(output.status.code(), Some(2), "{args:?}");
    }
    assert_eq!(tier.requests(), 0);
}

#[test]
fn a_folder_that_cannot_be_written_is_named_before_the_replay() {
    let tier = Tier::start(Behaviour::Well);
    let folder = folder(TRACE);
    std::fs::write(folder.path().join("out"), "a file").unwrap();
    let output = replay(&tier, folder.path(), &SHORT);
    assert_eq!(output.status.code(), Some(1));
    assert!(complaint(&output).contains("--out: cannot write out:"), "{}", complaint(&output));
    assert_eq!(tier.requests(), 0);
}
