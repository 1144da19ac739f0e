//! Disk layers as qcow2 files, made by `qemu-img`.
//!
//!   base image <- layer 0 <- layer 1 ... <- the parent writes here
//!                   ^ frozen at the first fork; each clone has a transient layer on top of it

use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::descriptor::DiskLayer;
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

/// Layers, newest first, as a read-only block node of QEMU. The layers below are named one by one:
/// a layer that was attached while its VM ran does not name them itself.
pub(super) fn chain(layers: &[DiskLayer]) -> Value {
    let Some((newest, older)) = layers.split_first() else { return Value::Null };
    let mut node = json!({
        "driver": newest.format, "read-only": true,
        "file": { "driver": "file", "filename": newest.path, "read-only": true },
    });
    if newest.format == "qcow2" {
        node["backing"] = chain(older);
    }
    node
}

#[cfg(test)]
mod tests {
    use super::*;

    fn layer(path: &str, format: &str) -> DiskLayer {
        DiskLayer { path: path.into(), format: format.into() }
    }

    #[test]
    fn every_layer_is_named_down_to_the_base() {
        let node = chain(&[layer("/l1", "qcow2"), layer("/l0", "qcow2"), layer("/base", "raw")]);
        assert_eq!(node["file"]["filename"], "/l1");
        assert_eq!(node["backing"]["file"]["filename"], "/l0");
        assert_eq!(node["backing"]["backing"]["file"]["filename"], "/base");
        assert_eq!(node["backing"]["backing"].get("backing"), None, "a raw file has nothing below it");
    }

    #[test]
    fn a_base_in_qcow2_is_not_asked_for_a_backing_file_of_its_own() {
        assert_eq!(chain(&[layer("/base", "qcow2")])["backing"], Value::Null);
    }

    #[test]
    fn a_layer_that_cannot_be_created_is_named() {
        let error = create(Path::new("/nonexistent/layer"), 1 << 20, None).unwrap_err();
        assert!(error.to_string().contains("/nonexistent/layer"), "{error}");
    }
}
