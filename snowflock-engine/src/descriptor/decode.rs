//! Bytes to descriptor, trusting nothing. FORMAT.md has the layout and the order of the checks.

use std::ffi::OsString;
use std::net::Ipv4Addr;
use std::os::unix::ffi::OsStringExt;

use flate2::{Decompress, FlushDecompress, Status};

use super::container::Sections;
use super::error::{Check, DescriptorError, Fault, Faults};
use super::limits::{
    MAX_BLOCK, MAX_DEVICE_STATE, MAX_INFLATION, MAX_LAYERS, MAX_NAME, MAX_PARENT, MAX_PATH, MAX_REGIONS,
    MAX_VERSION,
};
use super::reader::Reader;
use super::section::Section;
use super::{
    Architecture, Checkpoint, Descriptor, DiskLayer, DiskLayers, Driver, FileRegion, MachineShape,
    NetworkIdentity, PageKey, meaning,
};
use crate::memory::protocol::CheckpointId;
use crate::network::identity::{AddressBlock, CloneId, MacAddress};

impl Descriptor {
    /// Reads the bytes of a descriptor file. Optional sections that are unknown here are passed over.
    ///
    /// # Errors
    /// [`DescriptorError::Refused`]. Nothing is allocated for what the bytes claim before the claim
    /// is within its limit.
    pub fn decode(bytes: &[u8]) -> Result<Self, DescriptorError> {
        let sections = Sections::find(bytes)?;
        let descriptor = read(&sections)?;
        let mut faults = meaning::faults(&descriptor);
        if faults.is_empty() {
            return Ok(descriptor);
        }
        for fault in &mut faults {
            fault.offset = sections.offset(fault.section);
        }
        Err(DescriptorError::Refused { path: None, faults: Faults(faults) })
    }
}

/// Small sections first: inflating is the only costly step.
fn read(sections: &Sections<'_>) -> Result<Descriptor, Fault> {
    Ok(Descriptor {
        checkpoint: whole(sections, Section::Checkpoint, checkpoint)?,
        machine: whole(sections, Section::Machine, machine)?,
        driver: whole(sections, Section::Driver, driver)?,
        memory: whole(sections, Section::Memory, memory)?,
        disk: whole(sections, Section::Disk, disk)?,
        network: whole(sections, Section::Network, network)?,
        device_state: whole(sections, Section::DeviceState, device_state)?,
    })
}

/// Reads a section to its very end.
fn whole<T>(
    sections: &Sections<'_>,
    section: Section,
    read: impl FnOnce(&mut Reader<'_>) -> Result<T, Fault>,
) -> Result<T, Fault> {
    let mut reader = sections.get(section)?;
    let value = read(&mut reader)?;
    reader.end().map(|()| value)
}

fn checkpoint(from: &mut Reader<'_>) -> Result<Checkpoint, Fault> {
    Ok(Checkpoint {
        id: CheckpointId(from.u32("the checkpoint's number")?),
        created_unix_ns: from.u64("the time of creation")?,
        page_key: PageKey(from.array("the page key")?),
    })
}

fn machine(from: &mut Reader<'_>) -> Result<MachineShape, Fault> {
    Ok(MachineShape {
        architecture: architecture(from)?,
        vcpus: from.u16("the number of vCPUs")?,
        page_bytes: from.u32("the page size")?,
        memory_bytes: from.u64("the size of memory")?,
    })
}

fn architecture(from: &mut Reader<'_>) -> Result<Architecture, Fault> {
    let start = *from;
    let number = from.u16("the architecture")?;
    Architecture::from_number(number).ok_or_else(|| {
        let known = Architecture::KNOWN.map(|known| format!("{} ({known})", known as u16)).join(" or ");
        start.fault(Check::Meaning, format!("the architecture {number}"), known)
    })
}

fn driver(from: &mut Reader<'_>) -> Result<Driver, Fault> {
    Ok(Driver {
        name: from.text(MAX_NAME, "the driver's name")?,
        version: from.text(MAX_VERSION, "the driver's version")?,
        accelerator: from.text(MAX_NAME, "the accelerator")?,
    })
}

fn memory(from: &mut Reader<'_>) -> Result<Vec<FileRegion>, Fault> {
    let count = from.count(MAX_REGIONS, "the list of regions")?;
    let region = |_| {
        let offset = from.u64("a region's place in the file")?;
        Ok(FileRegion { offset, len: from.u64("a region's length")? })
    };
    (0..count).map(region).collect()
}

fn disk(from: &mut Reader<'_>) -> Result<DiskLayers, Fault> {
    let bytes = from.u64("the size of the disk")?;
    let count = from.count(MAX_LAYERS, "the list of layers")?;
    let layers = (0..count).map(|_| layer(from)).collect::<Result<_, _>>()?;
    Ok(DiskLayers { bytes, layers })
}

fn layer(from: &mut Reader<'_>) -> Result<DiskLayer, Fault> {
    let len = from.count(MAX_PATH, "a layer's path")?;
    let path = OsString::from_vec(from.take(len, "a layer's path")?.to_vec()).into();
    Ok(DiskLayer { path, format: from.text(MAX_NAME, "a layer's format")? })
}

fn network(from: &mut Reader<'_>) -> Result<NetworkIdentity, Fault> {
    Ok(NetworkIdentity {
        parent: from.text(MAX_PARENT, "the parent's name")?,
        block: block(from)?,
        clone_id: CloneId(from.u32("the clone ID")?),
        mac: MacAddress(from.array("the MAC address")?),
        ipv4: Ipv4Addr::from(from.array::<4>("the IPv4 address")?),
    })
}

/// There is one way to write a block, so that equal descriptors have equal bytes.
fn block(from: &mut Reader<'_>) -> Result<AddressBlock, Fault> {
    let start = *from;
    let text = from.text(MAX_BLOCK, "the address block")?;
    match text.parse::<AddressBlock>() {
        Ok(block) if block.to_string() == text => Ok(block),
        Ok(block) => Err(start.fault(Check::Meaning, format!("the block {text:?}"), block.to_string())),
        Err(bad) => {
            let wanted = format!("a block of 8 to 29 bits such as 10.117.0.0/16 ({bad})");
            Err(start.fault(Check::Meaning, format!("the block {text:?}"), wanted))
        }
    }
}

fn device_state(from: &mut Reader<'_>) -> Result<Vec<u8>, Fault> {
    let start = *from;
    let raw_len = from.u32("the raw length of the state")? as usize;
    start.bound(raw_len, MAX_DEVICE_STATE, "the raw state")?;
    let stream = *from;
    let deflated = from.rest();
    start.bound(
        raw_len,
        deflated.len().saturating_mul(MAX_INFLATION),
        "the raw state, given how little is deflated",
    )?;
    inflate(deflated, raw_len).map_err(|found| {
        stream.fault(Check::Structure, found, format!("one zlib stream of {raw_len} bytes when inflated"))
    })
}

/// Inflates to exactly `raw_len` bytes, or says what is there instead.
fn inflate(deflated: &[u8], raw_len: usize) -> Result<Vec<u8>, String> {
    // One byte of room more tells a stream that is too long from one that just fits.
    let mut raw = vec![0; raw_len + 1];
    let mut zlib = Decompress::new(true);
    let status = zlib
        .decompress(deflated, &mut raw, FlushDecompress::Finish)
        .map_err(|error| format!("no zlib stream ({error})"))?;
    let (used, got) = (zlib.total_in() as usize, zlib.total_out() as usize);
    match status {
        Status::StreamEnd if got == raw_len && used == deflated.len() => {
            raw.truncate(raw_len);
            Ok(raw)
        }
        Status::StreamEnd if got == raw_len => {
            Err(format!("{} bytes after the stream", deflated.len() - used))
        }
        Status::StreamEnd => Err(format!("a stream of {got} bytes")),
        Status::Ok | Status::BufError if got > raw_len => {
            Err(format!("a stream of more than {raw_len} bytes"))
        }
        Status::Ok | Status::BufError => Err(format!("a stream cut off after {got} bytes")),
    }
}
