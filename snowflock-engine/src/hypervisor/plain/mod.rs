//! A driver made of plain memory, for tests: all of a fork but QEMU.
//!
//! Each VM is a process (`flurry-plain-vm`) that maps its memory as QEMU does,
//! a RAM file shared or an image privately, and speaks the shim's protocol. In
//! place of vCPUs it has threads that read and write pages as they are told
//! over [`Vcpu`]; its registers are its device state; its agent answers as the
//! agent in a guest does, and touches memory for it.
//!
//! - [`content`]: what tests put into pages
//! - [`vm`]: the VM and its shell, seen from the host
//! - [`vcpu`]: the host's line to a vCPU
//! - `guest`: the program in the process
//! - `protocol`: what both say to each other

use std::path::PathBuf;

use super::{BootImage, Hypervisor, HypervisorError, Place, Shell, Vm};
use crate::descriptor::Driver;

mod agent;
pub mod content;
mod guest;
mod protocol;
pub mod vcpu;
mod vm;

pub use guest::run as run_guest;
pub use protocol::{Registers, Verdict};
pub use vcpu::Vcpu;

use vm::Start;

/// File beside the folders of the VMs: a line for each run of hooks, folder of the VM and event.
pub const HOOKS_FILE: &str = "hooks";
/// Beside it: for as long as this file exists, hooks take their time.
pub const HOOKS_HELD_FILE: &str = "hooks-held";

/// File in the folder of a VM: its disk, if a test has put one there. A checkpoint takes it away.
pub const DISK_FILE: &str = "disk";

/// The driver.
#[derive(Debug, Clone)]
pub struct Plain {
    /// The program `flurry-plain-vm`.
    pub program: PathBuf,
    /// Memory of each VM, bytes; a multiple of the page size.
    pub memory_bytes: u64,
    /// State folder of the engine, which marks the processes as its own.
    pub folder: PathBuf,
    /// User that the VMs run as; `None` for the own one. Without rights, a VM has no userfaultfd.
    pub user: Option<u32>,
}

/// What plain VMs boot from: nothing.
#[must_use]
pub fn no_image() -> BootImage {
    BootImage {
        kernel: PathBuf::new(),
        initrd: PathBuf::new(),
        cmdline: String::new(),
        disk: PathBuf::new(),
        disk_format: String::new(),
        disk_bytes: 0,
    }
}

impl Hypervisor for Plain {
    fn boot(&self, place: Place, _image: &BootImage) -> Result<Box<dyn Vm>, HypervisorError> {
        Ok(Box::new(vm::PlainVm::start(self, place, Start::Boot)?))
    }

    fn shell(&self, place: Place) -> Result<Box<dyn Shell>, HypervisorError> {
        Ok(Box::new(vm::PlainVm::start(self, place, Start::Hollow)?))
    }

    fn driver(&self) -> Driver {
        Driver { name: "plain".into(), version: env!("CARGO_PKG_VERSION").into(), accelerator: "none".into() }
    }
}
