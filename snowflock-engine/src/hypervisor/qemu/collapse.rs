//! Long chains of disk layers become short again, while the VM runs.
//!
//! ```text
//!   base <- layer 0 <- 1 <- 2 <- 3 <- 4 (written to)      each checkpoint adds one
//!                      \____copied____/^                   in the background, at a bounded rate
//!   base <- layer 0 <---------------- 4                   1 to 3 are left to clones that still need them
//! ```
//!
//! Frozen files are read and never changed, so clones that look through them do not notice. A checkpoint
//! that comes meanwhile ends the copying, which begins anew after it; one that finds too many layers waits.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::command_line::DISK_NODE;
use super::instance::Instance;
use crate::hypervisor::HypervisorError;

const JOB: &str = "collapse";
/// A chain is shortened when so many layers lie between the first one and the one that is written to.
pub(super) const MANY: usize = 3;
/// With so many a checkpoint waits for the end of the copying, which goes as fast as it can then.
pub(super) const TOO_MANY: usize = 12;
/// So much is copied in a second, bytes.
const RATE: u64 = 64 << 20;
/// A checkpoint waits so long at most.
const WAIT_LIMIT: Duration = Duration::from_secs(60);
/// A job that is told to end does so within this.
const CANCEL_LIMIT: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(5);

/// Copying that is under way, and the layers that it makes superfluous: block node and file, newest first.
#[derive(Debug)]
pub(super) struct Collapse {
    between: Vec<(String, PathBuf)>,
}

/// How it ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// The VM looks through these files no more.
    Shed(Vec<PathBuf>),
    /// All is as before.
    Cancelled,
}

impl Collapse {
    /// Begins to copy what `between` hold into the node that is written to.
    pub(super) fn begin(
        instance: &mut Instance,
        node: &str,
        between: Vec<(String, PathBuf)>,
    ) -> Result<Self, HypervisorError> {
        let job = json!({
            "job-id": JOB, "device": node, "base-node": DISK_NODE, "speed": RATE, "auto-dismiss": false,
        });
        instance.command("block-stream", job)?;
        Ok(Self { between })
    }

    /// Ends it before the chain changes: waits for it if there are too many layers, else cancels it.
    pub(super) fn end(self, instance: &mut Instance) -> Result<Ended, HypervisorError> {
        let wait = if self.between.len() < TOO_MANY { Duration::ZERO } else { WAIT_LIMIT };
        if !wait.is_zero() && !concluded(instance)? {
            instance.command("block-job-set-speed", json!({ "device": JOB, "speed": 0 }))?;
        }
        if !concludes(instance, wait)? {
            instance.command("block-job-cancel", json!({ "device": JOB }))?;
            concludes(instance, CANCEL_LIMIT)?;
        }
        let failure = job(instance)?.and_then(|job| job.get("error").cloned());
        instance.command("job-dismiss", json!({ "id": JOB }))?;
        if let Some(error) = failure {
            tracing::debug!(vm = %instance.place.id, %error, "disk layers were not collapsed");
            return Ok(Ended::Cancelled);
        }
        for (node, _) in &self.between {
            if let Err(error) = instance.command("blockdev-del", json!({ "node-name": node })) {
                tracing::warn!(%error, node, "a disk layer that nothing needs stays open");
            }
        }
        Ok(Ended::Shed(self.between.into_iter().map(|(_, path)| path).collect()))
    }
}

/// Whether the job has ended within a limit.
fn concludes(instance: &mut Instance, limit: Duration) -> Result<bool, HypervisorError> {
    let until = Instant::now() + limit;
    loop {
        if concluded(instance)? {
            return Ok(true);
        }
        if Instant::now() >= until {
            return Ok(false);
        }
        std::thread::sleep(LOOK);
    }
}

fn concluded(instance: &mut Instance) -> Result<bool, HypervisorError> {
    Ok(job(instance)?.is_none_or(|job| job["status"] == "concluded"))
}

fn job(instance: &mut Instance) -> Result<Option<Value>, HypervisorError> {
    let jobs = instance.command("query-jobs", json!({}))?;
    Ok(jobs.as_array().into_iter().flatten().find(|job| job["id"] == JOB).cloned())
}
