//! The QEMU driver: stock QEMU, unpatched, with our shim loaded into it.
//!
//! - [`accelerator`]: KVM where it truly runs a guest, TCG elsewhere
//! - [`command_line`]: what a parent and its shells are started with
//! - [`qmp`]: the control socket
//! - [`disk`]: overlay files; [`collapse`]: long chains of them become short again
//! - [`vm`], [`shell`]: a running VM, and a hollow one that waits

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::descriptor::Driver;

use super::{BootImage, Hypervisor, HypervisorError, Machine, Place, Shell, Vm};

pub mod accelerator;
mod collapse;
mod command_line;
mod disk;
mod instance;
mod qmp;
mod shell;
pub(super) mod shim;
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
    version: String,
    /// State folder of the engine.
    folder: PathBuf,
}

impl Qemu {
    /// A driver for machines of this shape, with disks of `disk_bytes`. `folder` is the
    /// engine's state folder.
    ///
    /// # Errors
    /// QEMU does not run, or `qemu-img` cannot make an overlay.
    pub fn new(
        programs: Programs,
        machine: Machine,
        accelerator: Accelerator,
        disk_bytes: u64,
        folder: &Path,
    ) -> Result<Self, HypervisorError> {
        let version = version(&programs.qemu)?;
        let empty_overlay = folder.join("empty.qcow2");
        disk::create(&empty_overlay, disk_bytes, None)?;
        Ok(Self { programs, machine, accelerator, empty_overlay, disk_bytes, version, folder: folder.into() })
    }
}

/// The version in QEMU's own words, such as `7.2.22 (Debian 1:7.2+dfsg-7)`.
fn version(qemu: &Path) -> Result<String, HypervisorError> {
    let failed =
        |source| HypervisorError::System { what: format!("run {} --version", qemu.display()), source };
    let output = Command::new(qemu).arg("--version").output().map_err(failed)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().next().unwrap_or_default();
    line.strip_prefix("QEMU emulator version ")
        .map(str::to_owned)
        .ok_or_else(|| failed(std::io::Error::other(format!("it is no QEMU: it says {line:?}"))))
}

impl Hypervisor for Qemu {
    fn boot(&self, place: Place, image: &BootImage) -> Result<Box<dyn Vm>, HypervisorError> {
        Ok(Box::new(vm::QemuVm::boot(self, place, image)?))
    }

    fn shell(&self, place: Place) -> Result<Box<dyn Shell>, HypervisorError> {
        Ok(Box::new(shell::QemuShell::start(self, place)?))
    }

    fn driver(&self) -> Driver {
        Driver {
            name: "qemu".into(),
            version: self.version.clone(),
            accelerator: self.accelerator.name().into(),
        }
    }
}
