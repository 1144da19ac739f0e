//! What the bytes alone cannot promise: that a descriptor describes a VM that can be.
//!
//! The encoder asks before it writes, the decoder after it read, so whatever
//! one of them accepts the other does too. All complaints come at once.

use std::fmt::Display;
use std::os::unix::ffi::OsStrExt;

use super::error::{Check, Fault};
use super::limits::{
    MAX_DEVICE_STATE, MAX_LAYERS, MAX_NAME, MAX_PAGE_BYTES, MAX_PAGES, MAX_PARENT, MAX_PATH, MAX_REGIONS,
    MAX_VCPUS, MAX_VERSION, MIN_PAGE_BYTES,
};
use super::section::Section;
use super::{Descriptor, DiskLayer, DiskLayers, Driver, FileRegion, MachineShape, NetworkIdentity};

/// All that is wrong with what it says; without offsets.
pub(super) fn faults(descriptor: &Descriptor) -> Vec<Fault> {
    let mut complaints = Complaints::default();
    complaints.machine(&descriptor.machine);
    complaints.driver(&descriptor.driver);
    complaints.memory(&descriptor.memory, &descriptor.machine);
    complaints.disk(&descriptor.disk);
    complaints.network(&descriptor.network);
    complaints.check(
        Section::DeviceState,
        descriptor.device_state.len() <= MAX_DEVICE_STATE,
        || format!("{} bytes", descriptor.device_state.len()),
        format_args!("at most {MAX_DEVICE_STATE}, since more holds guest memory"),
    );
    complaints.0
}

#[derive(Default)]
struct Complaints(Vec<Fault>);

impl Complaints {
    fn check(&mut self, section: Section, right: bool, found: impl FnOnce() -> String, wanted: impl Display) {
        if !right {
            let (found, wanted) = (found(), wanted.to_string());
            self.0.push(Fault { check: Check::Meaning, section: Some(section), offset: None, found, wanted });
        }
    }

    fn machine(&mut self, machine: &MachineShape) {
        let MachineShape { architecture: _, vcpus, page_bytes, memory_bytes } = *machine;
        self.check(
            Section::Machine,
            (1..=MAX_VCPUS).contains(&vcpus),
            || format!("{vcpus} vCPUs"),
            format_args!("1 to {MAX_VCPUS}"),
        );
        let page_is_right =
            page_bytes.is_power_of_two() && (MIN_PAGE_BYTES..=MAX_PAGE_BYTES).contains(&page_bytes);
        self.check(
            Section::Machine,
            page_is_right,
            || format!("pages of {page_bytes} bytes"),
            format_args!("a power of two from {MIN_PAGE_BYTES} to {MAX_PAGE_BYTES}"),
        );
        let page = u64::from(page_bytes.max(1));
        self.check(
            Section::Machine,
            memory_bytes % page == 0 && (1..=MAX_PAGES).contains(&(memory_bytes / page)),
            || format!("a memory of {memory_bytes} bytes"),
            format_args!("1 to {MAX_PAGES} whole pages"),
        );
    }

    fn driver(&mut self, driver: &Driver) {
        let Driver { name, version, accelerator } = driver;
        self.name(Section::Driver, "driver", name);
        self.name(Section::Driver, "accelerator", accelerator);
        self.check(
            Section::Driver,
            (1..=MAX_VERSION).contains(&version.len())
                && version.bytes().all(|b| b.is_ascii_graphic() || b == b' '),
            || format!("the version {}", shown(version)),
            format_args!("1 to {MAX_VERSION} printable ASCII characters"),
        );
    }

    fn memory(&mut self, regions: &[FileRegion], machine: &MachineShape) {
        let count = regions.len();
        self.check(
            Section::Memory,
            (1..=MAX_REGIONS).contains(&count),
            || format!("{count} regions"),
            format_args!("1 to {MAX_REGIONS}"),
        );
        let page = u64::from(machine.page_bytes.max(1));
        for FileRegion { offset, len } in regions.iter().take(MAX_REGIONS) {
            self.check(
                Section::Memory,
                offset % page == 0 && len % page == 0 && *len > 0,
                || format!("a region of {len} bytes at {offset}"),
                format_args!("whole pages of {page} bytes"),
            );
        }
        let covered = covered(regions);
        self.check(
            Section::Memory,
            covered == Some(machine.memory_bytes),
            || match covered {
                Some(bytes) => format!("regions that cover {bytes} bytes"),
                None => "regions that overlap or leave gaps".into(),
            },
            format_args!("each of the memory's {} bytes in one region", machine.memory_bytes),
        );
    }

    fn disk(&mut self, disk: &DiskLayers) {
        let (bytes, count) = (disk.bytes, disk.layers.len());
        self.check(
            Section::Disk,
            count <= MAX_LAYERS && (count == 0) == (bytes == 0),
            || format!("a disk of {bytes} bytes in {count} layers"),
            format_args!("at most {MAX_LAYERS} layers, and none if and only if there is no disk (0 bytes)"),
        );
        for DiskLayer { path, format } in disk.layers.iter().take(MAX_LAYERS) {
            let bytes = path.as_os_str().as_bytes();
            self.check(
                Section::Disk,
                path.is_absolute() && bytes.len() <= MAX_PATH && !bytes.contains(&0),
                || format!("a layer {}", shown(&path.to_string_lossy())),
                format_args!("an absolute path of at most {MAX_PATH} bytes, none of them zero"),
            );
            self.name(Section::Disk, "format", format);
        }
    }

    fn network(&mut self, network: &NetworkIdentity) {
        let NetworkIdentity { parent, block, clone_id: _, mac, ipv4 } = network;
        let parent_is_right = (1..=MAX_PARENT).contains(&parent.len())
            && !parent.starts_with('.')
            && !parent.contains(|c: char| c.is_control() || c == '/');
        self.check(
            Section::Network,
            parent_is_right,
            || format!("the parent's name {}", shown(parent)),
            format_args!("1 to {MAX_PARENT} bytes without slash, control character or a dot in front"),
        );
        self.check(
            Section::Network,
            mac.0[0] & 1 == 0 && mac.0 != [0; 6],
            || format!("the MAC address {mac}"),
            "that of one interface: an even first byte, and not all zero",
        );
        let place = u32::from(*ipv4).wrapping_sub(u32::from(block.gateway()));
        self.check(
            Section::Network,
            (1..=block.capacity()).contains(&place),
            || format!("the address {ipv4}"),
            format_args!("a guest's place in {block}"),
        );
    }

    fn name(&mut self, section: Section, of_what: &str, name: &str) {
        let letter = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._-".contains(&b);
        self.check(
            section,
            (1..=MAX_NAME).contains(&name.len()) && name.bytes().all(letter),
            || format!("the {of_what} {}", shown(name)),
            format_args!("1 to {MAX_NAME} characters of a-z, 0-9, dot, underscore, hyphen"),
        );
    }
}

/// Length of the file that the regions cover without gap or overlap; `None` if they do not.
fn covered(regions: &[FileRegion]) -> Option<u64> {
    let mut sorted = regions.to_vec();
    sorted.sort_unstable_by_key(|region| region.offset);
    sorted.iter().try_fold(
        0u64,
        |end, region| {
            if region.offset == end { end.checked_add(region.len) } else { None }
        },
    )
}

/// A text of any length and content, fit for a message.
fn shown(text: &str) -> String {
    /// Enough to recognise it by.
    const SHOWN: usize = 48;
    match text.char_indices().nth(SHOWN) {
        Some((cut, _)) => format!("{:?}... ({} bytes)", &text[..cut], text.len()),
        None => format!("{text:?}"),
    }
}
