//! The QEMU driver: stock QEMU, unpatched, with our shim loaded into it.
//!
//! - [`accelerator`]: KVM where it truly runs a guest, TCG elsewhere
//! - [`command_line`]: what a parent and its shells are started with
//! - [`qmp`]: the control socket
//! - [`disk`]: overlay files
//! - [`vm`], [`shell`]: a running VM, and a hollow one that waits

use std::path::PathBuf;

use super::{BootImage, Hypervisor, HypervisorError, Machine, Place, Shell, Vm};

pub mod accelerator;
mod command_line;
mod disk;
mod instance;
mod qmp;
mod shell;
mod shim;
mod vm;

pub use accelerator::{Accelerator, Choice, Wish};

/// Programs that the driver uses.
#[derive(Debug, Clone)]
pub struct Programs {
    /// QEMU.
    pub qemu: PathBuf,
    /// The library that is loaded into it.
    pub shim: PathBuf,
}

/// The driver.
#[derive(Debug, Clone)]
pub struct Qemu {
    programs: Programs,
    machine: Machine,
    accelerator: Accelerator,
    /// An empty overlay, which every shell gets a copy of.
    empty_overlay: PathBuf,
    disk_bytes: u64,
    /// State folder of the engine.
    folder: PathBuf,
}

impl Qemu {
    /// A driver for machines of this shape, with disks of `disk_bytes`. `folder` is the
    /// engine's state folder.
    ///
    /// # Errors
    /// `qemu-img` cannot make an overlay.
    pub fn new(
        programs: Programs,
        machine: Machine,
        accelerator: Accelerator,
        disk_bytes: u64,
        folder: &std::path::Path,
    ) -> Result<Self, HypervisorError> {
        let empty_overlay = folder.join("empty.qcow2");
        disk::create(&empty_overlay, disk_bytes, None)?;
        Ok(Self { programs, machine, accelerator, empty_overlay, disk_bytes, folder: folder.into() })
    }
}

impl Hypervisor for Qemu {
    fn boot(&self, place: Place, image: &BootImage) -> Result<Box<dyn Vm>, HypervisorError> {
        Ok(Box::new(vm::QemuVm::boot(self, place, image)?))
    }

    fn shell(&self, place: Place) -> Result<Box<dyn Shell>, HypervisorError> {
        Ok(Box::new(shell::QemuShell::start(self, place)?))
    }

    fn accelerator(&self) -> &str {
        self.accelerator.name()
    }
}
