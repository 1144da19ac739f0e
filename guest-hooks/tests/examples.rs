//! The examples do what they say, run as the agent runs hooks.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::thread::sleep;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(20);

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("examples").join(name)
}

fn program(folder: &Path, name: &str, body: &str) {
    let path = folder.join(name);
    fs::write(&path, format!("#!/bin/sh\n{body}\n")).expect("a script");
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("its mode");
}

/// A hook with the environment of clone 3.
fn hook(name: &str) -> Command {
    let mut command = Command::new(example(&format!("hooks.d/{name}")));
    command.env("FLURRY_CLONE_ID", "3").env("FLURRY_CLONES", "4");
    command.env("FLURRY_IPV4", "10.0.0.5").env("FLURRY_PARENT_IPV4", "10.0.0.2");
    command
}

fn succeeds(command: &mut Command) {
    let status = command.status().expect("it starts");
    assert!(status.success(), "{command:?}: {status}");
}

#[test]
fn every_example_is_a_program_that_a_shell_understands() {
    let mut seen = 0;
    for event in ["before-freeze", "after-birth", "before-exit"] {
        for entry in fs::read_dir(example("hooks.d").join(event)).expect("the examples").flatten() {
            let mode = entry.metadata().expect("its mode").permissions().mode();
            assert_eq!(mode & 0o111, 0o111, "{entry:?} is executable");
            succeeds(Command::new("sh").arg("-n").arg(entry.path()));
            seen += 1;
        }
    }
    assert!(seen >= 6);
}

#[test]
fn secrets_are_new_at_every_birth_and_nobody_elses_to_read() {
    let folder = tempfile::tempdir().expect("a folder");
    let keys = || {
        let mut rotate = hook("after-birth/30-rotate-session-secrets");
        succeeds(rotate.env("FLURRY_SECRETS", folder.path()).env("NGINX_PID", "/nonexistent"));
        ["tls-ticket.key", "cookie.key"].map(|name| {
            let path = folder.path().join(name);
            assert_eq!(fs::metadata(&path).expect("a key").permissions().mode() & 0o777, 0o600);
            fs::read(path).expect("a key")
        })
    };
    let (first, second) = (keys(), keys());
    assert_eq!(first.each_ref().map(Vec::len), [80, 32]);
    assert!(first[0] != second[0] && first[1] != second[1]);
}

#[test]
fn a_clone_detaches_and_mounts_its_nfs_directories_and_nothing_else() {
    let folder = tempfile::tempdir().expect("a folder");
    let (mounts, said) = (folder.path().join("mounts"), folder.path().join("said"));
    fs::write(&mounts, "/dev/vda / ext4 rw 0 0\nserver:/a /srv/a nfs4 rw 0 0\n").expect("a mount table");
    for tool in ["mount", "umount"] {
        program(folder.path(), tool, &format!("echo {tool} \"$@\" >>{}", said.display()));
    }
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    let mut remount = hook("after-birth/10-remount-nfs");
    succeeds(remount.env("PATH", path).env("FLURRY_MOUNTS", &mounts));
    assert_eq!(fs::read_to_string(said).expect("calls"), "umount -l -f /srv/a\nmount /srv/a\n");
}

#[test]
fn a_page_that_fails_to_warm_holds_up_no_fork() {
    let folder = tempfile::tempdir().expect("a folder");
    let list = folder.path().join("warm");
    fs::write(&list, "# pages\nhttp://127.0.0.1:1/\n").expect("a list");
    program(folder.path(), "curl", "exit 7");
    let path = format!("{}:/usr/bin:/bin", folder.path().display());
    succeeds(hook("before-freeze/10-warm-application").env("PATH", path).env("FLURRY_WARM_LIST", list));
}

#[test]
fn a_plain_init_keeps_the_agent_running_until_it_is_told_to_stop() {
    let folder = tempfile::tempdir().expect("a folder");
    let (starts, pid) = (folder.path().join("starts"), folder.path().join("pid"));
    program(folder.path(), "agent", &format!("echo x >>{}", starts.display()));
    let init = |word: &str| {
        let mut command = Command::new(example("init/flurry-agent"));
        command.arg(word).env("FLURRY_AGENT", folder.path().join("agent")).env("FLURRY_AGENT_PID", &pid);
        command.env("FLURRY_AGENT_LOG", folder.path().join("log"));
        command.status().expect("it starts").code()
    };
    assert_eq!(init("start"), Some(0));
    let until = Instant::now() + LONG;
    while fs::read_to_string(&starts).unwrap_or_default().lines().count() < 2 {
        assert!(Instant::now() < until, "the agent is started again after it has ended");
        sleep(Duration::from_millis(20));
    }
    assert_eq!(init("status"), Some(0));
    assert_eq!(init("stop"), Some(0));
    assert_eq!(init("status"), Some(1));
    assert_eq!(init("nonsense"), Some(2));
}
