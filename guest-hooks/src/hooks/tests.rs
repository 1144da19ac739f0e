//! Hooks as the user writes them: shell scripts in a directory.

use super::*;
use crate::identity::sample;

const SOON: Duration = Duration::from_secs(10);

/// A hooks.d with these scripts for `after-birth`.
fn hooks(scripts: &[(&str, &str, u32)]) -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("temporary directory");
    let dir = root.path().join("after-birth");
    fs::create_dir(&dir).expect("directory");
    for (name, body, mode) in scripts {
        fs::write(dir.join(name), format!("#!/bin/sh\n{body}\n")).expect("script");
        fs::set_permissions(dir.join(name), fs::Permissions::from_mode(*mode)).expect("mode");
    }
    root
}

fn run_hooks(root: &tempfile::TempDir, deadline: Duration) -> Outcome {
    run_in(root.path(), HookEvent::AfterBirth, Some(&sample(4)), deadline)
}

#[test]
fn hooks_run_in_the_order_of_their_names_with_the_identity_in_their_environment() {
    let line = "echo $FLURRY_EVENT $FLURRY_CLONE_ID of $FLURRY_CLONES $FLURRY_IPV4 $FLURRY_PARENT_IPV4";
    let out = tempfile::NamedTempFile::new().expect("file");
    let to = out.path().display();
    let root = hooks(&[
        ("20-second", &format!("echo second >> {to}"), 0o755),
        ("10-first", &format!("{line} >> {to}"), 0o755),
        ("30-not-executable", &format!("echo never >> {to}"), 0o644),
    ]);
    assert_eq!(run_hooks(&root, SOON), Outcome { ran: 2, failed: 0, first_failed: None });
    let said = fs::read_to_string(out.path()).expect("output");
    assert_eq!(said, "after-birth 4 of 4 10.0.0.14 10.0.0.10\nsecond\n");
}

#[test]
fn a_hook_that_fails_does_not_stop_the_next_one_and_is_named() {
    let root = hooks(&[("10-bad", "exit 3", 0o755), ("20-good", "exit 0", 0o755)]);
    let outcome = run_hooks(&root, SOON);
    assert_eq!(outcome, Outcome { ran: 2, failed: 1, first_failed: Some("10-bad".into()) });
    let GuestMessage::HooksDone { first_failed, .. } = outcome.message(RequestId(1), HookEvent::AfterBirth)
    else {
        panic!("another message");
    };
    assert_eq!(first_failed.as_str(), "10-bad");
}

#[test]
fn a_hook_past_its_deadline_is_killed_with_its_children() {
    let marker = tempfile::NamedTempFile::new().expect("file");
    let script = format!("(sleep 1; echo survived > {}) & wait", marker.path().display());
    let root = hooks(&[("10-slow", &script, 0o755)]);
    let began = Instant::now();
    assert_eq!(run_hooks(&root, Duration::from_millis(100)).failed, 1);
    assert!(began.elapsed() < Duration::from_millis(900));
    std::thread::sleep(Duration::from_millis(1200));
    assert_eq!(fs::read_to_string(marker.path()).expect("marker"), "");
}

#[test]
fn no_directory_means_no_hooks() {
    let root = tempfile::tempdir().expect("temporary directory");
    assert_eq!(run_hooks(&root, SOON), Outcome::default());
}
