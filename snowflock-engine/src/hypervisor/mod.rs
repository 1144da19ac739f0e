//! What the engine needs of a hypervisor, and nothing of how one does it.
//!
//!   boot ----------------------------------> Vm (running)
//!   shell (hollow, waits) --seed--> Vm (paused) --resume--> Vm (running)
//!   Vm: pause -> freeze_disk -> describe -> [engine freezes memory] -> resume
//!
//! `qemu` is the embedded default, `plain` is a driver made of plain memory for
//! tests. Xen has domains where QEMU has processes, and a snapshot domain where
//! QEMU has a RAM file: memory and identity of a VM are therefore values that
//! the driver names, and all calls may block.

use std::fs::File;
use std::io;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::descriptor::{DiskLayer, Driver};
use crate::memory::remote::GuestMemory;
use crate::network::Port;
use crate::network::identity::CloneId;
use crate::sys::process::ProcessIdentity;

pub mod plain;
pub mod qemu;

/// What every VM of a parent and its clones has alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Machine {
    /// Memory, MiB.
    pub memory_mib: u32,
    /// Virtual CPUs.
    pub vcpus: u8,
}

impl Machine {
    /// Memory in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        u64::from(self.memory_mib) << 20
    }
}

/// What a root parent boots from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BootImage {
    /// Kernel.
    pub kernel: PathBuf,
    /// Initial RAM disk.
    pub initrd: PathBuf,
    /// Kernel command line.
    pub cmdline: String,
    /// Disk image; never written to.
    pub disk: PathBuf,
    /// `raw` or `qcow2`.
    pub disk_format: String,
    /// Size that the guest sees, bytes.
    pub disk_bytes: u64,
}

/// Where a VM runs: its folder, its place in the network.
#[derive(Debug)]
pub struct Place {
    /// Which VM it is or will be.
    pub id: CloneId,
    /// A folder of its own, which exists.
    pub folder: PathBuf,
    /// Its tap and addresses.
    pub port: Port,
}

/// The disk of a checkpoint: files that nobody writes to any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FrozenDisk {
    /// Newest first; each holds what changed since the next. The last one holds all.
    pub layers: Vec<DiskLayer>,
    /// Size that the guest sees, bytes.
    pub bytes: u64,
}

/// All that a hollow shell needs to become a clone.
#[derive(Debug)]
pub struct Seed<'a> {
    /// vCPU and device state, as the driver's own `describe` gave it.
    pub device_state: &'a [u8],
    /// The disk as it was.
    pub disk: &'a FrozenDisk,
}

/// Why a hypervisor did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum HypervisorError {
    /// A program or file could not be used.
    #[error("cannot {what}")]
    System {
        /// What was tried, with its values.
        what: String,
        /// The system's reason.
        source: io::Error,
    },
    /// The VM said no.
    #[error("{vm}: {what}: {said}")]
    Refused {
        /// Which VM.
        vm: CloneId,
        /// What was tried.
        what: String,
        /// Its words.
        said: String,
    },
    /// The VM did not answer in time, or ended meanwhile.
    #[error("{vm}: {what} took longer than {limit:?}, or the VM ended; its log: {log}")]
    Silent {
        /// Which VM.
        vm: CloneId,
        /// What was tried.
        what: String,
        /// The limit.
        limit: Duration,
        /// Last lines of its log.
        log: String,
    },
}

/// The way to a VM's memory. It outlives whoever works on the VM just now, since a memory process
/// that died must be replaced while the VM waits for a page.
pub trait MemoryAccess: Send + Sync {
    /// What a memory process needs to serve the VM's faults.
    ///
    /// # Errors
    /// See [`HypervisorError`].
    fn hand_over(&self) -> Result<GuestMemory, HypervisorError>;

    /// Pages that only this VM holds; `None` where the hypervisor cannot tell.
    fn private_pages(&self) -> Option<u64>;
}

/// Makes VMs.
pub trait Hypervisor: Send + Sync {
    /// Boots a root parent. It runs when this returns.
    ///
    /// # Errors
    /// See [`HypervisorError`]; nothing is left running then.
    fn boot(&self, place: Place, image: &BootImage) -> Result<Box<dyn Vm>, HypervisorError>;

    /// Starts a hollow shell, which waits to be seeded.
    ///
    /// # Errors
    /// See [`HypervisorError`]; nothing is left running then.
    fn shell(&self, place: Place) -> Result<Box<dyn Shell>, HypervisorError>;

    /// What its device state can be loaded by.
    fn driver(&self) -> Driver;
}

/// A hollow VM: all there but memory, device state and the content of its disk.
pub trait Shell: Send {
    /// Which clone it will be.
    fn id(&self) -> CloneId;

    /// The process that runs it.
    fn process(&self) -> ProcessIdentity;

    /// Maps the image of a checkpoint as its memory. What the answer leads to must be served before
    /// the shell is seeded: loading device state already touches guest memory.
    ///
    /// # Errors
    /// See [`HypervisorError`].
    fn adopt(&mut self, image: &File) -> Result<Arc<dyn MemoryAccess>, HypervisorError>;

    /// Makes it a paused clone of a checkpoint.
    ///
    /// # Errors
    /// See [`HypervisorError`]; the shell is gone then.
    fn seed(self: Box<Self>, seed: &Seed<'_>) -> Result<Box<dyn Vm>, HypervisorError>;
}

/// A VM with content. Dropping it kills it.
pub trait Vm: Send {
    /// Which VM it is.
    fn id(&self) -> CloneId;

    /// Its place in the network.
    fn port(&self) -> &Port;

    /// The process that runs it.
    fn process(&self) -> ProcessIdentity;

    /// The way to its memory.
    fn memory(&self) -> Arc<dyn MemoryAccess>;

    /// The line to the agent in the guest; given out once.
    fn take_agent(&mut self) -> Option<UnixStream>;

    /// Does ahead of a pause what need not happen within it.
    ///
    /// # Errors
    /// See [`HypervisorError`].
    fn prepare_pause(&mut self) -> Result<(), HypervisorError>;

    /// Shortens a long chain of disk layers in the background; returns files that the VM looks through no
    /// more since it was asked last. Clones and checkpoints may.
    ///
    /// # Errors
    /// See [`HypervisorError`]; all is as it was then.
    fn tidy_disk(&mut self) -> Result<Vec<PathBuf>, HypervisorError>;

    /// Stops all vCPUs and lets I/O under way end.
    ///
    /// # Errors
    /// See [`HypervisorError`].
    fn pause(&mut self) -> Result<(), HypervisorError>;

    /// Freezes the disk of a paused VM; it goes on in a layer of its own.
    ///
    /// # Errors
    /// See [`HypervisorError`].
    fn freeze_disk(&mut self) -> Result<FrozenDisk, HypervisorError>;

    /// vCPU and device state of a paused VM, without its memory. Opaque but to this driver.
    ///
    /// # Errors
    /// See [`HypervisorError`].
    fn describe(&mut self) -> Result<Vec<u8>, HypervisorError>;

    /// Lets a paused VM go on.
    ///
    /// # Errors
    /// See [`HypervisorError`].
    fn resume(&mut self) -> Result<(), HypervisorError>;
}
