//! Lies under a right checksum: each is refused by the check that it was made for.

use std::io::Write;

use super::super::container::{CHECKSUM, HEADER};
use super::super::limits::{MAX_INFLATION, MAX_LAYERS, MAX_NAME, MAX_PATH, MAX_REGIONS, MAX_VCPUS};
use super::*;

/// A descriptor in parts, to be put together wrongly.
#[derive(Clone)]
struct Crafted {
    flags: u16,
    sections: Vec<(u16, Vec<u8>)>,
    /// After the last section.
    tail: Vec<u8>,
}

impl Crafted {
    fn sample() -> Self {
        let bytes = sample().encode().unwrap();
        let mut rest = &bytes[HEADER..bytes.len() - CHECKSUM];
        let mut sections = vec![];
        while !rest.is_empty() {
            let len = u32::from_le_bytes(rest[2..6].try_into().unwrap()) as usize;
            sections.push((u16::from_le_bytes([rest[0], rest[1]]), rest[6..6 + len].to_vec()));
            rest = &rest[6 + len..];
        }
        Self { flags: 0, sections, tail: vec![] }
    }

    fn content(&mut self, section: Section) -> &mut Vec<u8> {
        &mut self.sections.iter_mut().find(|(tag, _)| *tag == section.tag()).unwrap().1
    }

    /// With length and checksum as they should be.
    fn assemble(&self) -> Vec<u8> {
        let mut body = vec![];
        for (tag, content) in &self.sections {
            body.extend(tag.to_le_bytes());
            body.extend((content.len() as u32).to_le_bytes());
            body.extend(content);
        }
        body.extend(&self.tail);
        let len = (HEADER + body.len() + CHECKSUM) as u32;
        let head = [&b"SFVD\x01\0"[..], &self.flags.to_le_bytes(), &len.to_le_bytes()].concat();
        let sum = crc32fast::hash(&[&head[..], &body].concat());
        [head, body, sum.to_le_bytes().into()].concat()
    }
}

/// Spoils the sample and expects the refusal to be of this kind, in this section, and to say this.
#[track_caller]
fn refused(check: Check, section: Option<Section>, says: &str, spoil: impl FnOnce(&mut Crafted)) {
    let mut crafted = Crafted::sample();
    spoil(&mut crafted);
    let bytes = crafted.assemble();
    let fault = refusal(&bytes);
    assert_eq!((fault.check, fault.section), (check, section), "{fault}");
    assert!(fault.offset.is_some_and(|at| at <= bytes.len()), "{fault}");
    assert!(fault.to_string().contains(says), "{fault}");
}

/// Overwrites bytes of a section's content.
fn put(section: Section, at: usize, bytes: &[u8]) -> impl FnOnce(&mut Crafted) {
    move |crafted| crafted.content(section)[at..at + bytes.len()].copy_from_slice(bytes)
}

fn deflated(raw: &[u8]) -> Vec<u8> {
    let mut zlib = flate2::write::ZlibEncoder::new(vec![], flate2::Compression::best());
    zlib.write_all(raw).unwrap();
    zlib.finish().unwrap()
}

/// A device state section with this claim and this stream.
fn state(raw_len: u32, stream: Vec<u8>) -> impl FnOnce(&mut Crafted) {
    move |crafted| *crafted.content(Section::DeviceState) = [raw_len.to_le_bytes().into(), stream].concat()
}

const STRUCTURE: Check = Check::Structure;
const MEANING: Check = Check::Meaning;

#[test]
fn the_parts_put_together_rightly_are_the_sample() {
    assert_eq!(Crafted::sample().assemble(), sample().encode().unwrap());
}

#[test]
fn another_version_is_named_before_anything_else_is_looked_at() {
    let mut bytes = sample().encode().unwrap();
    bytes.truncate(50);
    bytes[4] = 9;
    let fault = refusal(&bytes);
    assert_eq!(fault.check, Check::Version);
    assert!(fault.to_string().contains("found format version 9, expected version 1"), "{fault}");
}

#[test]
fn flags_are_refused_since_this_version_has_none() {
    refused(STRUCTURE, None, "flags 0x0100", |c| c.flags = 0x100);
}

#[test]
fn an_optional_section_is_passed_over_and_a_mandatory_one_is_not() {
    let mut crafted = Crafted::sample();
    crafted.sections.extend([(0x8000, vec![1, 2, 3]), (0xFFFF, vec![])]);
    assert_eq!(Descriptor::decode(&crafted.assemble()).unwrap(), sample());
    refused(STRUCTURE, None, "unknown tag 0x0008", |c| c.sections.push((8, vec![])));
    refused(STRUCTURE, None, "unknown tag 0x0000", |c| c.sections.insert(0, (0, vec![])));
}

#[test]
fn sections_come_once_in_order_and_all_of_them() {
    refused(STRUCTURE, Some(Section::Machine), "a second time", |c| {
        c.sections.insert(2, c.sections[1].clone())
    });
    refused(STRUCTURE, Some(Section::Checkpoint), "a second time", |c| {
        c.sections.push(c.sections[0].clone())
    });
    refused(STRUCTURE, None, "0x9000 a second time", |c| {
        c.sections.extend([(0x9000, vec![]), (0x9000, vec![])])
    });
    refused(STRUCTURE, None, "0x9000 after 0x9001", |c| {
        c.sections.extend([(0x9001, vec![]), (0x9000, vec![])])
    });
    refused(STRUCTURE, Some(Section::Disk), "0x0005 after 0x0006", |c| c.sections.swap(4, 5));
    for (at, section) in Section::ALL.into_iter().enumerate() {
        refused(STRUCTURE, Some(section), "without it", |c| drop(c.sections.remove(at)));
    }
    refused(STRUCTURE, Some(Section::Checkpoint), "without it", |c| c.sections.clear());
}

#[test]
fn a_section_longer_than_the_file_is_refused() {
    for len in [u32::MAX, 1 << 31, 5] {
        let tail = [&[0, 0x80][..], &len.to_le_bytes(), &[0; 4]].concat();
        refused(STRUCTURE, None, "4 bytes, expected", |c| c.tail = tail);
    }
    refused(STRUCTURE, None, "a section's tag", |c| c.tail = vec![0]);
    refused(STRUCTURE, None, "a section's length", |c| c.tail = vec![0, 0x80, 0]);
}

#[test]
fn every_section_cut_short_or_too_long_is_refused() {
    for section in Section::ALL {
        let whole = Crafted::sample().content(section).len();
        for len in 0..whole {
            let mut crafted = Crafted::sample();
            crafted.content(section).truncate(len);
            let fault = refusal(&crafted.assemble());
            assert_eq!((fault.check, fault.section), (STRUCTURE, Some(section)), "cut to {len}: {fault}");
        }
        refused(STRUCTURE, Some(section), "", |c| c.content(section).push(0));
    }
}

#[test]
fn counts_and_text_lengths_over_their_limits_are_refused_before_they_are_used() {
    let over = |limit: usize| (limit as u16 + 1).to_le_bytes();
    refused(STRUCTURE, Some(Section::Memory), "at most 64", put(Section::Memory, 0, &over(MAX_REGIONS)));
    refused(STRUCTURE, Some(Section::Disk), "at most 64", put(Section::Disk, 8, &over(MAX_LAYERS)));
    refused(STRUCTURE, Some(Section::Disk), "at most 4095", put(Section::Disk, 10, &over(MAX_PATH)));
    refused(STRUCTURE, Some(Section::Driver), "at most 32", put(Section::Driver, 0, &[MAX_NAME as u8 + 1]));
    refused(STRUCTURE, Some(Section::Driver), "no text", put(Section::Driver, 1, &[0xFF]));
}

#[test]
fn a_device_state_that_is_not_what_it_claims_is_refused() {
    const STATE: Option<Section> = Some(Section::DeviceState);
    let (raw, most) = (b"some device state", MAX_DEVICE_STATE as u32);
    refused(STRUCTURE, STATE, "at most 16777216", state(u32::MAX, deflated(raw)));
    refused(STRUCTURE, STATE, "at most 16777216", state(most + 1, deflated(raw)));
    // A claim that no deflated stream of that length can keep.
    let largest = deflated(raw).len() * MAX_INFLATION;
    refused(STRUCTURE, STATE, "how little is deflated", state(largest as u32 + 1, deflated(raw)));
    // Bombs: far more in the stream than claimed.
    refused(STRUCTURE, STATE, "more than 1000 bytes", state(1000, deflated(&vec![0; 64 << 20])));
    refused(STRUCTURE, STATE, "more than 0 bytes", state(0, deflated(&vec![0; 64 << 20])));
    refused(STRUCTURE, STATE, "a stream of 17 bytes", state(18, deflated(raw)));
    refused(STRUCTURE, STATE, "17 bytes", state(16, deflated(raw)));
    refused(STRUCTURE, STATE, "1 bytes after the stream", state(17, [deflated(raw), vec![0]].concat()));
    refused(STRUCTURE, STATE, "cut off", state(17, deflated(raw)[..12].into()));
    refused(STRUCTURE, STATE, "no zlib stream", state(17, b"this is not zlib at all".into()));
}

#[test]
fn a_machine_that_cannot_be_is_refused() {
    const MACHINE: Option<Section> = Some(Section::Machine);
    refused(
        MEANING,
        MACHINE,
        "architecture 243, expected 62 (x86_64) or 183",
        put(Section::Machine, 0, &[243, 0]),
    );
    refused(MEANING, MACHINE, "found 0 vCPUs, expected 1 to 255", put(Section::Machine, 2, &[0, 0]));
    let too_many = (MAX_VCPUS + 1).to_le_bytes();
    refused(MEANING, MACHINE, "found 256 vCPUs", put(Section::Machine, 2, &too_many));
    for page in [0u32, 1, 2048, 5000, 1 << 17, u32::MAX] {
        let mut crafted = Crafted::sample();
        put(Section::Machine, 4, &page.to_le_bytes())(&mut crafted);
        let error = Descriptor::decode(&crafted.assemble()).unwrap_err();
        let first = &error.faults()[0];
        assert_eq!((first.check, first.section), (MEANING, MACHINE), "{error}");
        assert!(error.to_string().contains(&format!("pages of {page} bytes")), "{error}");
    }
}

#[test]
fn memory_that_the_regions_do_not_cover_is_refused() {
    let layout = Some(Section::Memory);
    refused(
        MEANING,
        layout,
        "cover 268435456 bytes, expected each of the memory's 536870912",
        put(Section::Machine, 8, &(512u64 << 20).to_le_bytes()),
    );
    let region = |offset: u64, len: u64| [offset.to_le_bytes(), len.to_le_bytes()].concat();
    let list = |regions: &[Vec<u8>]| {
        let count = (regions.len() as u16).to_le_bytes();
        let bytes = [&count[..], &regions.concat()].concat();
        move |c: &mut Crafted| *c.content(Section::Memory) = bytes
    };
    let half = 128u64 << 20;
    for (wrong, says) in [
        (vec![region(0, half), region(half - 4096, half + 4096)], "overlap or leave gaps"),
        (vec![region(0, half), region(half + 4096, half - 4096)], "overlap or leave gaps"),
        (vec![region(4096, 2 * half)], "overlap or leave gaps"),
        (vec![region(0, u64::MAX - 4095), region(u64::MAX - 4095, 4096)], "overlap or leave gaps"),
        (vec![region(0, half)], "cover 134217728 bytes"),
        (vec![region(0, 2 * half), region(2 * half, 0)], "a region of 0 bytes"),
    ] {
        refused(MEANING, layout, says, list(&wrong));
    }
    let mut crafted = Crafted::sample();
    list(&[region(0, half + 1), region(half + 1, half - 1)])(&mut crafted);
    let error = Descriptor::decode(&crafted.assemble()).unwrap_err();
    assert_eq!(error.faults().len(), 2, "both regions are told: {error}");
}

#[test]
fn a_network_identity_that_is_none_is_refused() {
    const NETWORK: Option<Section> = Some(Section::Network);
    // Length and name, length and block, clone ID, MAC, IPv4.
    let (name, block, mac) = (1, 1 + 4 + 1, 1 + 4 + 1 + 13 + 4);
    refused(MEANING, NETWORK, "10.117.0.0/33", put(Section::Network, block, b"10.117.0.0/33"));
    // The same block in other words.
    refused(MEANING, NETWORK, "expected 10.0.0.0/8", put(Section::Network, block, b"10.0.0.0/0008"));
    refused(MEANING, NETWORK, "even first byte", put(Section::Network, mac, &[1]));
    refused(MEANING, NETWORK, "00:00:00:00:00:00", put(Section::Network, mac, &[0; 6]));
    for outside in [[10, 118, 0, 2], [10, 117, 0, 0], [10, 117, 0, 1], [10, 117, 255, 255], [0; 4]] {
        refused(
            MEANING,
            NETWORK,
            "a guest's place in 10.117.0.0/16",
            put(Section::Network, mac + 6, &outside),
        );
    }
    for parent in [b"../x", b".abc", b"a/bc", b"a\nbc"] {
        refused(MEANING, NETWORK, "the parent's name", put(Section::Network, name, parent));
    }
}

#[test]
fn a_driver_or_disk_with_odd_words_is_refused() {
    refused(MEANING, Some(Section::Driver), "the driver \"QEMU\"", put(Section::Driver, 1, b"QEMU"));
    refused(MEANING, Some(Section::Driver), "the version \"7.2\\u{1b}", put(Section::Driver, 6 + 3, b"\x1b"));
    refused(MEANING, Some(Section::Disk), "a disk of 0 bytes in 2 layers", put(Section::Disk, 0, &[0; 8]));
    refused(MEANING, Some(Section::Disk), "an absolute path", put(Section::Disk, 12, b"r"));
    refused(MEANING, Some(Section::Disk), "an absolute path", put(Section::Disk, 14, b"\0"));
}

#[test]
fn a_descriptor_that_would_be_refused_is_not_encoded_and_all_reasons_are_given() {
    let mut bad = sample();
    bad.machine.vcpus = 0;
    bad.driver.name = "q".repeat(300);
    bad.memory = vec![FileRegion { offset: 0, len: 4096 }; MAX_REGIONS + 1];
    bad.disk.layers = vec![bad.disk.layers[0].clone(); MAX_LAYERS + 1];
    bad.network.parent.clear();
    bad.device_state = vec![0; MAX_DEVICE_STATE + 1];
    let error = bad.encode().unwrap_err();
    assert!(error.faults().iter().all(|fault| fault.check == MEANING && fault.offset.is_none()));
    for says in ["0 vCPUs", "(300 bytes)", "65 regions", "65 layers", "parent's name \"\"", "16777217 bytes"]
    {
        assert!(error.to_string().contains(says), "{says}: {error}");
    }
}
