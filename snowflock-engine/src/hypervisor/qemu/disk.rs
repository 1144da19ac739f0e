//! Disk layers as qcow2 files, made by `qemu-img`.
//!
//!   base image <- layer 0 <- layer 1 ... <- the parent writes here
//!                   ^ frozen at the first fork; each clone has a transient layer on top of it

use std::path::Path;
use std::process::Command;

use crate::hypervisor::HypervisorError;

/// Creates a layer of `bytes`, over `(file, format)` if given, which must exist.
pub(super) fn create(path: &Path, bytes: u64, over: Option<(&Path, &str)>) -> Result<(), HypervisorError> {
    let what = || format!("create the disk layer {} with qemu-img", path.display());
    let mut command = Command::new("qemu-img");
    command.args(["create", "-q", "-f", "qcow2"]);
    if let Some((base, format)) = over {
        command.arg("-b").arg(base).args(["-F", format]);
    }
    let output = command
        .arg(path)
        .arg(bytes.to_string())
        .output()
        .map_err(|source| HypervisorError::System { what: what(), source })?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    Err(HypervisorError::System { what: what(), source: std::io::Error::other(said) })
}
