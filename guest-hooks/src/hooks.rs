//! The user's hooks: programs in `/etc/flurry/hooks.d/<event>/`, run in the order of their names.
//!
//! Each gets the guest's identity in its environment and a process group of its own. The deadline is
//! for all of them together; whatever runs past it is killed with its whole group and counts as failed.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use snowflock_engine::wire::{GuestMessage, HookEvent, Identity, Name, RequestId};

use crate::sys;

const DIRECTORY: &str = "/etc/flurry/hooks.d";

/// What became of an event's hooks.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Outcome {
    /// How many were started.
    pub(crate) ran: u16,
    /// How many of them failed, could not be started or were killed.
    pub(crate) failed: u16,
    first_failed: Option<String>,
}

impl Outcome {
    /// The answer to the host.
    pub(crate) fn message(&self, request: RequestId, event: HookEvent) -> GuestMessage {
        let first_failed = self.first_failed.as_deref().map_or(Name::EMPTY, Name::cut);
        GuestMessage::HooksDone { request, event, ran: self.ran, failed: self.failed, first_failed }
    }
}

/// Runs the hooks of `event`; without a directory for it there are none.
pub(crate) fn run(event: HookEvent, identity: Option<&Identity>, deadline: Duration) -> Outcome {
    run_in(Path::new(DIRECTORY), event, identity, deadline)
}

/// Looks for hooks once, so that looking again costs no reading from the disk.
pub(crate) fn look() {
    for event in [HookEvent::BeforeFreeze, HookEvent::AfterBirth, HookEvent::BeforeExit] {
        list(&Path::new(DIRECTORY).join(event.name()));
    }
}

fn run_in(root: &Path, event: HookEvent, identity: Option<&Identity>, deadline: Duration) -> Outcome {
    let ends = Instant::now() + deadline;
    let mut outcome = Outcome::default();
    for hook in list(&root.join(event.name())) {
        outcome.ran += 1;
        if let Err(why) = run_one(&hook, event, identity, ends) {
            eprintln!("flurry: hook {}: {why}", hook.display());
            outcome.failed += 1;
            let name = hook.file_name().map(|n| n.to_string_lossy().into_owned());
            outcome.first_failed = outcome.first_failed.or(name);
        }
    }
    outcome
}

/// The executable files of a directory, by name.
fn list(directory: &Path) -> Vec<PathBuf> {
    let executable =
        |path: &PathBuf| fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0);
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    let mut hooks: Vec<_> = entries.map(|e| e.path()).filter(executable).collect();
    hooks.sort();
    hooks
}

fn run_one(hook: &Path, event: HookEvent, identity: Option<&Identity>, ends: Instant) -> Result<(), String> {
    let mut command = Command::new(hook);
    // What it prints goes where the agent's own messages go.
    command.stdin(Stdio::null()).stdout(io::stderr()).process_group(0).env("FLURRY_EVENT", event.name());
    for (key, value) in identity.map(environment).into_iter().flatten() {
        command.env(key, value);
    }
    let mut child = command.spawn().map_err(|e| format!("cannot be started: {e}"))?;
    let ended = sys::wait_until(child.id(), ends).map_err(|e| format!("waiting for it: {e}"))?;
    if !ended {
        kill_group(&mut child);
        return Err("ran past the deadline and was killed".into());
    }
    let status = child.wait().map_err(|e| format!("waiting for it: {e}"))?;
    if status.success() { Ok(()) } else { Err(status.to_string()) }
}

fn kill_group(child: &mut Child) {
    if let Err(e) = sys::kill_group(child.id()) {
        eprintln!("flurry: killing hook {}: {e}", child.id());
    }
    // Reaps it; its status is known already.
    let _ = child.wait();
}

fn environment(i: &Identity) -> [(&'static str, String); 5] {
    [
        ("FLURRY_CLONE_ID", i.clone_id.to_string()),
        ("FLURRY_CLONES", i.clones.to_string()),
        ("FLURRY_IPV4", i.ipv4.to_string()),
        ("FLURRY_GATEWAY", i.gateway.to_string()),
        ("FLURRY_PARENT_IPV4", i.parent_ipv4.to_string()),
    ]
}

#[cfg(test)]
mod tests;
