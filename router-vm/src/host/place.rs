//! Doing something in another network namespace, by a thread that goes there, or by a tool.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, setns};

use super::{RouterError, system};

/// Runs `job` on a thread in this namespace.
pub(super) fn inside<T: Send>(namespace: &str, job: impl FnOnce() -> T + Send) -> Result<T, RouterError> {
    let path = Path::new("/run/netns").join(namespace);
    let entered = File::open(&path).map_err(system(format!("open the namespace {}", path.display())))?;
    let enter = || setns(&entered, CloneFlags::CLONE_NEWNET).map_err(std::io::Error::from);
    let thread = std::thread::scope(|scope| scope.spawn(|| enter().map(|()| job())).join());
    match thread {
        Ok(done) => done.map_err(system(format!("enter the namespace {namespace}"))),
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// Runs `job` in this namespace, or here.
pub(super) fn perhaps_inside<T: Send>(
    namespace: Option<&str>,
    job: impl FnOnce() -> T + Send,
) -> Result<T, RouterError> {
    match namespace {
        Some(namespace) => inside(namespace, job),
        None => Ok(job()),
    }
}

/// Has `ip` carry out these lines in a namespace, or here.
pub(super) fn ip(namespace: Option<&str>, lines: &str) -> Result<(), RouterError> {
    let mut command = Command::new("ip");
    if let Some(namespace) = namespace {
        command.args(["-n", namespace]);
    }
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let failed =
        |said: String| RouterError::Tool { command: format!("ip -batch in {namespace:?}: {lines:?}"), said };
    let mut child = command.spawn().map_err(|e| failed(format!("cannot be started: {e}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A tool that ends early says why on its standard error.
        let _ = stdin.write_all(lines.as_bytes());
    }
    let output = child.wait_with_output().map_err(|e| failed(e.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
