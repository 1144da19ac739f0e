//! The architectural VM descriptor: all of a frozen VM but the pages of its memory and disk.
//!
//! A checkpoint yields one, clones are created from it, here or on another host.
//! This module turns it into bytes and back, and reads and writes it as a file;
//! it starts nothing and knows no hypervisor. FORMAT.md beside this file has the
//! byte table.
//!
//! ```text
//! checkpoint -> Descriptor --encode--> bytes ~~ file, network ~~> --decode--> Descriptor --check_fits--> clones
//!                              magic, version, length, checksum, structure, meaning
//! ```
//!
//! - [`limits`]: every bound, with its reason
//! - [`error`]: what a refusal says
//! - `container`, `section`, `encode`, `reader`, `decode`: the bytes
//! - `meaning`: what bytes alone cannot promise
//! - `fits`: whether this host can make clones of it
//! - `file`: on disk, whole or not at all

mod container;
mod decode;
mod encode;
pub mod error;
mod file;
mod fits;
pub mod limits;
mod meaning;
mod reader;
mod section;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::Ipv4Addr;
use std::path::PathBuf;

pub use error::{Check, DescriptorError, Fault, Mismatch};
pub use fits::HostCapabilities;
pub use section::Section;

use crate::memory::protocol::CheckpointId;
use crate::network::identity::{AddressBlock, CloneId, MacAddress};

/// The version of the format that this code writes, and the only one that it reads.
pub const FORMAT_VERSION: u16 = 1;

/// A frozen VM without its pages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Which moment it describes.
    pub checkpoint: Checkpoint,
    /// The shape of the VM.
    pub machine: MachineShape,
    /// What made the device state, and alone can load it.
    pub driver: Driver,
    /// How guest memory lies in the RAM file, in the order of guest-physical addresses. The regions
    /// cover a file of `machine.memory_bytes` exactly. 1 to [`limits::MAX_REGIONS`].
    pub memory: Vec<FileRegion>,
    /// The frozen disk.
    pub disk: DiskLayers,
    /// Who the VM is in its private network.
    pub network: NetworkIdentity,
    /// vCPU and device state, opaque to all but the driver. At most [`limits::MAX_DEVICE_STATE`] bytes;
    /// deflated in the file.
    pub device_state: Vec<u8>,
}

/// A moment in the life of a VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Unique in the life of the engine that made it.
    pub id: CheckpointId,
    /// Wall clock at the freeze, nanoseconds since 1970-01-01 UTC.
    pub created_unix_ns: u64,
    /// Authenticates the checkpoint's pages between hosts.
    pub page_key: PageKey,
}

/// The key with which a checkpoint's pages are authenticated: 32 random bytes, chosen by whoever
/// makes the checkpoint. A secret: it is never printed, and the file is readable by its owner alone.
#[derive(Clone, PartialEq, Eq)]
pub struct PageKey(pub [u8; 32]);

impl fmt::Debug for PageKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PageKey(secret)")
    }
}

/// The shape of a VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MachineShape {
    /// What its vCPUs are.
    pub architecture: Architecture,
    /// How many vCPUs, 1 to [`limits::MAX_VCPUS`].
    pub vcpus: u16,
    /// Bytes of a page: a power of two from [`limits::MIN_PAGE_BYTES`] to [`limits::MAX_PAGE_BYTES`].
    pub page_bytes: u32,
    /// Guest memory, bytes: whole pages, at most [`limits::MAX_PAGES`] of them.
    pub memory_bytes: u64,
}

/// A processor architecture, by its number in the ELF header (`e_machine`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
#[repr(u16)]
pub enum Architecture {
    /// `EM_X86_64`.
    X86_64 = 62,
    /// `EM_AARCH64`.
    Aarch64 = 183,
}

impl Architecture {
    const KNOWN: [Self; 2] = [Self::X86_64, Self::Aarch64];

    /// The architecture of this host; `None` if no descriptor can name it.
    #[must_use]
    pub fn of_host() -> Option<Self> {
        Self::KNOWN.into_iter().find(|known| known.name() == std::env::consts::ARCH)
    }

    /// `x86_64` or `aarch64`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64",
            Self::Aarch64 => "aarch64",
        }
    }

    fn from_number(number: u16) -> Option<Self> {
        Self::KNOWN.into_iter().find(|known| *known as u16 == number)
    }
}

impl fmt::Display for Architecture {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What made the device state. Short names are of `a-z`, `0-9`, `.`, `_`, `-`, at most
/// [`limits::MAX_NAME`] bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Driver {
    /// Short name of the hypervisor driver: `qemu`, `xen` or `plain`.
    pub name: String,
    /// Version of the hypervisor in its own words: printable ASCII, at most
    /// [`limits::MAX_VERSION`] bytes.
    pub version: String,
    /// Short name for how guests run there, such as `kvm` or `tcg`.
    pub accelerator: String,
}

/// A part of a RAM file. Both numbers are multiples of the page size.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FileRegion {
    /// Where it begins in the file, bytes.
    pub offset: u64,
    /// Its length, bytes; not 0.
    pub len: u64,
}

/// A disk as files that nobody writes to any more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskLayers {
    /// Size that the guest sees, bytes. 0 for a VM without a disk.
    pub bytes: u64,
    /// Newest first; each holds what changed since the next. At most [`limits::MAX_LAYERS`].
    /// Empty if and only if `bytes` is 0.
    pub layers: Vec<DiskLayer>,
}

/// A file of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskLayer {
    /// Where it is on the host that made the checkpoint: absolute, at most [`limits::MAX_PATH`] bytes.
    pub path: PathBuf,
    /// Short name of its format: `raw` or `qcow2`.
    pub format: String,
}

/// Who a VM is in the private network of a parent and its clones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkIdentity {
    /// Name of the parent: 1 to [`limits::MAX_PARENT`] bytes without control characters.
    pub parent: String,
    /// Addresses of the parent and its clones.
    pub block: AddressBlock,
    /// Which of them the VM is.
    pub clone_id: CloneId,
    /// Its hardware address, as the guest believes it to be; never a multicast one.
    pub mac: MacAddress,
    /// Its address; a guest's place in `block`.
    pub ipv4: Ipv4Addr,
}
