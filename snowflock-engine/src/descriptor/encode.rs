//! Descriptor to bytes. FORMAT.md has the layout.

use std::io::Write;
use std::os::unix::ffi::OsStrExt;

use flate2::Compression;
use flate2::write::ZlibEncoder;

use super::container::{self, CHECKSUM, HEADER, MAGIC};
use super::error::{DescriptorError, Faults};
use super::section::Section;
use super::{Descriptor, FORMAT_VERSION, meaning};

/// Within 3 % of the best size for a third of its time; FORMAT.md has the measurement.
const LEVEL: Compression = Compression::new(2);

impl Descriptor {
    /// The bytes of a descriptor file. Deterministic for one build.
    ///
    /// # Errors
    /// [`DescriptorError::Refused`] with all that [`Descriptor::decode`] would not take back.
    pub fn encode(&self) -> Result<Vec<u8>, DescriptorError> {
        let faults = meaning::faults(self);
        if !faults.is_empty() {
            return Err(DescriptorError::Refused { path: None, faults: Faults(faults) });
        }
        let mut out = Writer(Vec::with_capacity(HEADER + 4096 + self.device_state.len() / 2));
        out.0.extend(MAGIC);
        // Flags (none in this version), then the length, known at the end.
        out.u16(FORMAT_VERSION).u16(0).u32(0);
        for section in Section::ALL {
            out.section(section, |out| self.put(section, out));
        }
        Ok(out.seal())
    }

    fn put(&self, section: Section, out: &mut Writer) {
        match section {
            Section::Checkpoint => self.put_checkpoint(out),
            Section::Machine => self.put_machine(out),
            Section::Driver => self.put_driver(out),
            Section::Memory => self.put_memory(out),
            Section::Disk => self.put_disk(out),
            Section::Network => self.put_network(out),
            Section::DeviceState => self.put_device_state(out),
        }
    }

    fn put_checkpoint(&self, out: &mut Writer) {
        out.u32(self.checkpoint.id.0).u64(self.checkpoint.created_unix_ns);
        out.bytes(&self.checkpoint.page_key.0);
    }

    fn put_machine(&self, out: &mut Writer) {
        let machine = &self.machine;
        out.u16(machine.architecture as u16).u16(machine.vcpus);
        out.u32(machine.page_bytes).u64(machine.memory_bytes);
    }

    fn put_driver(&self, out: &mut Writer) {
        out.text(&self.driver.name).text(&self.driver.version).text(&self.driver.accelerator);
    }

    fn put_memory(&self, out: &mut Writer) {
        out.u16(self.memory.len() as u16);
        for region in &self.memory {
            out.u64(region.offset).u64(region.len);
        }
    }

    fn put_disk(&self, out: &mut Writer) {
        out.u64(self.disk.bytes).u16(self.disk.layers.len() as u16);
        for layer in &self.disk.layers {
            let path = layer.path.as_os_str().as_bytes();
            out.u16(path.len() as u16).bytes(path).text(&layer.format);
        }
    }

    fn put_network(&self, out: &mut Writer) {
        let network = &self.network;
        out.text(&network.parent).text(&network.block.to_string());
        out.u32(network.clone_id.0).bytes(&network.mac.0).bytes(&network.ipv4.octets());
    }

    fn put_device_state(&self, out: &mut Writer) {
        out.u32(self.device_state.len() as u32);
        let mut deflate = ZlibEncoder::new(&mut out.0, LEVEL);
        let written = deflate.write_all(&self.device_state).and_then(|()| deflate.finish().map(drop));
        written.expect("a Vec takes all bytes");
    }
}

/// Little-endian fields, one after another. Lengths were checked before, by `meaning`.
struct Writer(Vec<u8>);

impl Writer {
    fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn u16(&mut self, value: u16) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    fn u32(&mut self, value: u32) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    fn u64(&mut self, value: u64) -> &mut Self {
        self.bytes(&value.to_le_bytes())
    }

    /// A length byte, then the text.
    fn text(&mut self, text: &str) -> &mut Self {
        self.0.push(text.len() as u8);
        self.bytes(text.as_bytes())
    }

    fn section(&mut self, section: Section, content: impl FnOnce(&mut Self)) {
        self.u16(section.tag()).u32(0);
        let start = self.0.len();
        content(self);
        let len = (self.0.len() - start) as u32;
        self.0[start - 4..start].copy_from_slice(&len.to_le_bytes());
    }

    /// Length and checksum.
    fn seal(mut self) -> Vec<u8> {
        let len = (self.0.len() + CHECKSUM) as u32;
        self.0[container::LENGTH_AT].copy_from_slice(&len.to_le_bytes());
        let sum = crc32fast::hash(&self.0);
        self.u32(sum);
        self.0
    }
}
