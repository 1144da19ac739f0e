//! The sections of a descriptor and their tags.

use std::fmt;

/// A tag with this bit is optional: who does not know it passes over the section.
pub(super) const OPTIONAL: u16 = 0x8000;

/// A section that every descriptor of this version has, by its tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u16)]
pub enum Section {
    /// Number, time and page key.
    Checkpoint = 1,
    /// Architecture, vCPUs, page size, memory.
    Machine = 2,
    /// Name, version and accelerator of the hypervisor.
    Driver = 3,
    /// Regions of the RAM file.
    Memory = 4,
    /// Size and layers of the disk.
    Disk = 5,
    /// Name, address block, clone ID, MAC and IPv4 address.
    Network = 6,
    /// vCPU and device state, deflated.
    DeviceState = 7,
}

impl Section {
    /// All, in the order in which they stand in a file.
    pub const ALL: [Self; 7] = [
        Self::Checkpoint,
        Self::Machine,
        Self::Driver,
        Self::Memory,
        Self::Disk,
        Self::Network,
        Self::DeviceState,
    ];

    /// Its tag in the file.
    #[must_use]
    pub fn tag(self) -> u16 {
        self as u16
    }

    pub(super) fn from_tag(tag: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|section| section.tag() == tag)
    }
}

impl fmt::Display for Section {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Checkpoint => "checkpoint",
            Self::Machine => "machine",
            Self::Driver => "driver",
            Self::Memory => "memory layout",
            Self::Disk => "disk",
            Self::Network => "network",
            Self::DeviceState => "device state",
        })
    }
}
