//! A hollow QEMU that waits: machine and devices are built, memory is an empty
//! file, the disk an empty layer. Seeding takes a tenth of a cold start's time.

use std::fs::File;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;

use super::command_line::{DISK_NODE, Start};
use super::instance::{COMMAND_LIMIT, Instance};
use super::vm::{QemuVm, enable_capabilities};
use super::{Qemu, qmp::QmpError};
use crate::hypervisor::{FrozenDisk, HypervisorError, MemoryAccess, Place, Seed, Shell, Vm};
use crate::network::identity::CloneId;
use crate::sys::process::ProcessIdentity;

/// A shell.
#[derive(Debug)]
pub(super) struct QemuShell {
    instance: Instance,
    layer: PathBuf,
    disk_bytes: u64,
}

impl QemuShell {
    pub(super) fn start(qemu: &Qemu, place: Place) -> Result<Self, HypervisorError> {
        let layer = place.folder.join("layer-0.qcow2");
        std::fs::copy(&qemu.empty_overlay, &layer).map_err(|source| HypervisorError::System {
            what: format!("create the disk layer {}", layer.display()),
            source,
        })?;
        let mut instance = Instance::start(qemu, place, &layer, &Start::Hollow)?;
        enable_capabilities(&mut instance)?;
        Ok(Self { instance, layer, disk_bytes: qemu.disk_bytes })
    }

    /// Puts the frozen disk below the empty layer.
    fn attach_disk(&mut self, disk: &FrozenDisk) -> Result<(), HypervisorError> {
        let mut frozen = super::disk::chain(&disk.layers);
        frozen["node-name"] = "frozen".into();
        self.instance.command("blockdev-add", frozen)?;
        let reopened = json!({ "options": [{
            "driver": "qcow2", "node-name": DISK_NODE, "backing": "frozen", "cache": { "no-flush": true },
            "file": { "driver": "file", "filename": self.layer },
        }] });
        self.instance.command("blockdev-reopen", reopened).map(drop)
    }

    /// Loads vCPU and device state; the VM is paused afterwards.
    fn load(&mut self, device_state: &[u8]) -> Result<(), HypervisorError> {
        let (ours, theirs) = UnixStream::pair().map_err(|source| HypervisorError::System {
            what: "create a socket for the device state".into(),
            source,
        })?;
        let limit = COMMAND_LIMIT;
        let explain = |instance: &Instance, error| instance.explain("loading the device state", error);
        if let Err(error) = self.instance.qmp.give_fd("state", theirs.as_fd(), limit) {
            return Err(explain(&self.instance, error));
        }
        self.instance.command("migrate-incoming", json!({ "uri": "fd:state" }))?;
        drop(theirs);
        let loaded = feed(ours, device_state).and_then(|()| {
            let ended =
                |data: &serde_json::Value| data["status"] == "completed" || data["status"] == "failed";
            let event = self.instance.qmp.wait_event("MIGRATION", limit, ended)?;
            match event["data"]["status"] == "completed" {
                true => Ok(()),
                false => Err(QmpError::Refused("QEMU does not accept this device state".into())),
            }
        });
        loaded.map_err(|error| explain(&self.instance, error))
    }
}

fn feed(mut stream: UnixStream, device_state: &[u8]) -> Result<(), QmpError> {
    stream.set_write_timeout(Some(COMMAND_LIMIT))?;
    stream.write_all(device_state)?;
    Ok(())
}

impl Shell for QemuShell {
    fn id(&self) -> CloneId {
        self.instance.place.id
    }

    fn process(&self) -> ProcessIdentity {
        self.instance.identity
    }

    fn adopt(&mut self, image: &File) -> Result<Arc<dyn MemoryAccess>, HypervisorError> {
        self.instance.memory.adopt(image)?;
        Ok(self.instance.memory.clone())
    }

    fn seed(mut self: Box<Self>, seed: &Seed<'_>) -> Result<Box<dyn Vm>, HypervisorError> {
        self.attach_disk(seed.disk)?;
        self.load(seed.device_state)?;
        let Self { instance, layer, disk_bytes } = *self;
        Ok(Box::new(QemuVm::new(instance, layer, disk_bytes, seed.disk.layers.clone())))
    }
}
