//! A QEMU with a guest in it: root parent or clone.

use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::{Value, json};

use super::collapse::{Collapse, Ended, MANY};
use super::command_line::{DISK_NODE, Start};
use super::instance::{COMMAND_LIMIT, Instance};
use super::qmp::QmpError;
use super::{Qemu, disk};
use crate::descriptor::DiskLayer;
use crate::descriptor::limits::MAX_DEVICE_STATE;
use crate::hypervisor::{BootImage, FrozenDisk, HypervisorError, MemoryAccess, Place, Vm};
use crate::network::Port;
use crate::network::identity::CloneId;
use crate::sys::process::ProcessIdentity;

/// A VM.
#[derive(Debug)]
pub(super) struct QemuVm {
    instance: Instance,
    /// The layer that the guest writes to now.
    layer: PathBuf,
    /// Layers of its own so far.
    layers: u32,
    /// What lies below that layer, newest first.
    below: Vec<DiskLayer>,
    /// Those among them that lie above the first of its own: block nodes, newest first.
    between: Vec<String>,
    collapse: Option<Collapse>,
    /// Files that it looks through no more and has not told of.
    shed: Vec<PathBuf>,
    disk_bytes: u64,
    /// The next layer, opened by QEMU ahead of the pause that needs it.
    prepared: bool,
}

impl QemuVm {
    pub(super) fn boot(qemu: &Qemu, place: Place, image: &BootImage) -> Result<Self, HypervisorError> {
        let layer = place.folder.join("layer-0.qcow2");
        disk::create(&layer, image.disk_bytes, Some((&image.disk, &image.disk_format)))?;
        let mut instance = Instance::start(qemu, place, &layer, &Start::Boot(image))?;
        enable_capabilities(&mut instance)?;
        let base = DiskLayer { path: image.disk.clone(), format: image.disk_format.clone() };
        let mut vm = Self::new(instance, layer, image.disk_bytes, vec![base]);
        vm.prepare_layer()?;
        Ok(vm)
    }

    /// A VM over these layers, newest first, which writes to `layer`.
    pub(super) fn new(instance: Instance, layer: PathBuf, disk_bytes: u64, below: Vec<DiskLayer>) -> Self {
        let (between, shed) = (Vec::new(), Vec::new());
        Self { instance, layer, layers: 1, below, between, collapse: None, shed, disk_bytes, prepared: false }
    }

    fn layer_path(&self, number: u32) -> PathBuf {
        self.instance.place.folder.join(format!("layer-{number}.qcow2"))
    }

    /// Creates and opens the layer that the next freeze will switch to, outside of the pause.
    fn prepare_layer(&mut self) -> Result<(), HypervisorError> {
        if self.prepared {
            return Ok(());
        }
        let path = self.layer_path(self.layers);
        disk::create(&path, self.disk_bytes, None)?;
        let node = json!({
            "driver": "qcow2", "node-name": layer_node(self.layers), "backing": null,
            "cache": { "no-flush": true }, "file": { "driver": "file", "filename": path },
        });
        self.instance.command("blockdev-add", node)?;
        self.prepared = true;
        Ok(())
    }

    /// The chain is about to change.
    fn end_collapse(&mut self) -> Result<(), HypervisorError> {
        let Some(collapse) = self.collapse.take() else { return Ok(()) };
        if let Ended::Shed(files) = collapse.end(&mut self.instance)? {
            self.between.clear();
            self.below.drain(..files.len());
            self.shed.extend(files);
        }
        Ok(())
    }

    fn current_node(&self) -> String {
        if self.layers == 1 { DISK_NODE.into() } else { layer_node(self.layers - 1) }
    }

    fn migrate_out(&mut self) -> Result<Vec<u8>, QmpError> {
        let (ours, theirs) = UnixStream::pair()?;
        ours.set_read_timeout(Some(COMMAND_LIMIT))?;
        self.instance.qmp.give_fd("state", theirs.as_fd(), COMMAND_LIMIT)?;
        drop(theirs);
        let reader = std::thread::Builder::new().name("descriptor".into()).spawn(move || {
            let mut state = Vec::with_capacity(512 << 10);
            ours.take(MAX_DEVICE_STATE as u64 + 1).read_to_end(&mut state).map(|_| state)
        })?;
        self.instance.qmp.execute("migrate", json!({ "uri": "fd:state" }), COMMAND_LIMIT)?;
        let ended = |data: &Value| data["status"] == "completed" || data["status"] == "failed";
        let event = self.instance.qmp.wait_event("MIGRATION", COMMAND_LIMIT, ended)?;
        let state = reader.join().map_err(|_| QmpError::Refused("reader of the state ended".into()))??;
        match (&event["data"]["status"], state.len() as u64) {
            (_, len) if len > MAX_DEVICE_STATE as u64 => {
                Err(QmpError::Refused(format!("state of over {MAX_DEVICE_STATE} bytes")))
            }
            (status, _) if status == "completed" => Ok(state),
            _ => Err(QmpError::Refused("QEMU could not describe its state".into())),
        }
    }
}

fn layer_node(number: u32) -> String {
    format!("layer{number}")
}

/// Both ends of a fork must have these on: pages of shared memory stay out of the stream, and its end
/// is told by an event. Nobody needs to hear that a clone has moved in: the bridge learns nothing.
pub(super) fn enable_capabilities(instance: &mut Instance) -> Result<(), HypervisorError> {
    let on = |name: &str| json!({ "capability": name, "state": true });
    let all = json!({ "capabilities": [on("x-ignore-shared"), on("events")] });
    instance.command("migrate-set-capabilities", all)?;
    instance.command("migrate-set-parameters", json!({ "announce-rounds": 0 })).map(drop)
}

impl Vm for QemuVm {
    fn id(&self) -> CloneId {
        self.instance.place.id
    }

    fn port(&self) -> &Port {
        &self.instance.place.port
    }

    fn process(&self) -> ProcessIdentity {
        self.instance.identity
    }

    fn memory(&self) -> Arc<dyn MemoryAccess> {
        self.instance.memory.clone()
    }

    fn take_agent(&mut self) -> Option<UnixStream> {
        self.instance.agent.take()
    }

    fn prepare_pause(&mut self) -> Result<(), HypervisorError> {
        self.end_collapse()?;
        self.prepare_layer()
    }

    fn tidy_disk(&mut self) -> Result<Vec<PathBuf>, HypervisorError> {
        if self.collapse.is_none() && self.between.len() >= MANY {
            let files = self.below.iter().map(|layer| layer.path.clone());
            let between = self.between.iter().cloned().zip(files).collect();
            let node = self.current_node();
            self.collapse = Some(Collapse::begin(&mut self.instance, &node, between)?);
        }
        Ok(std::mem::take(&mut self.shed))
    }

    fn pause(&mut self) -> Result<(), HypervisorError> {
        self.instance.command("stop", json!({})).map(drop)
    }

    fn freeze_disk(&mut self) -> Result<FrozenDisk, HypervisorError> {
        self.prepare_layer()?;
        let frozen = self.current_node();
        let switch = json!({ "node": self.current_node(), "overlay": layer_node(self.layers) });
        self.instance.command("blockdev-snapshot", switch)?;
        let next = self.layer_path(self.layers);
        let path = std::mem::replace(&mut self.layer, next);
        self.below.insert(0, DiskLayer { path, format: "qcow2".into() });
        if frozen != DISK_NODE {
            self.between.insert(0, frozen);
        }
        self.layers += 1;
        self.prepared = false;
        Ok(FrozenDisk { layers: self.below.clone(), bytes: self.disk_bytes })
    }

    fn describe(&mut self) -> Result<Vec<u8>, HypervisorError> {
        self.migrate_out().map_err(|error| self.instance.explain("describing the VM", error))
    }

    fn resume(&mut self) -> Result<(), HypervisorError> {
        self.instance.command("cont", json!({})).map(drop)
    }
}
