//! Descriptors come back as they were written, and nothing else comes back at all.

use std::net::Ipv4Addr;

use super::limits::MAX_DEVICE_STATE;
use super::*;

mod files;
mod golden;
mod hostile;
mod round_trip;

/// A descriptor with something in every field.
fn sample() -> Descriptor {
    let layer = |path: &str, format: &str| DiskLayer { path: path.into(), format: format.into() };
    Descriptor {
        checkpoint: Checkpoint {
            id: CheckpointId(7),
            created_unix_ns: 1_700_000_000_123_456_789,
            page_key: PageKey(std::array::from_fn(|i| i as u8)),
        },
        machine: MachineShape {
            architecture: Architecture::X86_64,
            vcpus: 2,
            page_bytes: 4096,
            memory_bytes: 256 << 20,
        },
        driver: Driver {
            name: "qemu".into(),
            version: "7.2.22 (Debian 1:7.2+dfsg-7)".into(),
            accelerator: "tcg".into(),
        },
        memory: vec![FileRegion { offset: 0, len: 256 << 20 }],
        disk: DiskLayers {
            bytes: 1 << 30,
            layers: vec![layer("/run/flurry/shop/layer-0.qcow2", "qcow2"), layer("/images/demo.raw", "raw")],
        },
        network: NetworkIdentity {
            parent: "shop".into(),
            block: "10.117.0.0/16".parse().unwrap(),
            clone_id: CloneId::PARENT,
            mac: MacAddress([0x02, 0xAB, 0xCD, 0, 0, 0]),
            ipv4: Ipv4Addr::new(10, 117, 0, 2),
        },
        device_state: b"QEVM\0\0\0\x03 registers and queues ".repeat(4),
    }
}

/// A host on which clones of the sample can run.
fn matching_host() -> HostCapabilities {
    HostCapabilities {
        architecture: Architecture::X86_64,
        driver: "qemu".into(),
        driver_version: "7.2.22 (Debian 1:7.2+dfsg-7)".into(),
        accelerator: "tcg".into(),
        page_size: 4096,
    }
}

/// The one thing that is wrong with these bytes.
fn refusal(bytes: &[u8]) -> Fault {
    let error = Descriptor::decode(bytes).expect_err("these bytes must be refused");
    let [fault] = error.faults() else { panic!("one fault expected: {error}") };
    fault.clone()
}

/// Bytes that do not compress.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9E37_79B9_7F4A_7C15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn a_host_like_the_one_that_made_it_can_run_clones() {
    sample().check_fits(&matching_host()).unwrap();
}

#[test]
fn all_that_differs_on_a_host_is_told_at_once() {
    let host = HostCapabilities {
        architecture: Architecture::Aarch64,
        driver: "xen".into(),
        driver_version: "4.17".into(),
        accelerator: "kvm".into(),
        page_size: 65536,
    };
    let error = sample().check_fits(&host).unwrap_err();
    let DescriptorError::DoesNotFit(mismatches) = &error else { panic!("{error}") };
    let names: Vec<_> = mismatches.iter().map(|m| m.property).collect();
    assert_eq!(
        names,
        ["architecture", "hypervisor driver", "hypervisor version", "accelerator", "page size"]
    );
    assert!(error.to_string().contains("accelerator: the descriptor needs tcg, the host has kvm"), "{error}");
    assert!(error.faults().is_empty());
}

#[test]
fn a_descriptor_made_under_one_accelerator_does_not_load_under_the_other() {
    for (made, here) in [("kvm", "tcg"), ("tcg", "kvm")] {
        let mut descriptor = sample();
        descriptor.driver.accelerator = made.into();
        let host = HostCapabilities { accelerator: here.into(), ..matching_host() };
        let error = descriptor.check_fits(&host).unwrap_err();
        assert!(matches!(&error, DescriptorError::DoesNotFit(all) if all.len() == 1), "{error}");
    }
}

#[test]
fn the_page_key_is_never_printed() {
    let mut descriptor = sample();
    descriptor.checkpoint.page_key = PageKey([0xA5; 32]);
    let printed = format!("{descriptor:?}");
    assert!(printed.contains("PageKey(secret)") && !printed.contains("165"), "{printed}");
}

#[test]
fn this_host_has_an_architecture_or_none_that_can_be_named() {
    let named = Architecture::of_host().map(Architecture::name);
    assert!(named.is_none_or(|name| name == std::env::consts::ARCH));
}

/// Every field at its limit. The state is zeros or bytes that do not compress.
fn largest(device_state: Vec<u8>) -> Descriptor {
    let page = u64::from(limits::MAX_PAGE_BYTES);
    let last = limits::MAX_REGIONS as u64 - 1;
    let region = |at| match at {
        0 => FileRegion { offset: last * page, len: (limits::MAX_PAGES - last) * page },
        at => FileRegion { offset: (at - 1) * page, len: page },
    };
    let path = format!("/{}", "p".repeat(limits::MAX_PATH - 1));
    let name = "n".repeat(limits::MAX_NAME);
    let mut network = sample().network;
    network.parent = "p".repeat(limits::MAX_PARENT);
    network.block = "223.255.255.248/29".parse().unwrap();
    network.ipv4 = Ipv4Addr::new(223, 255, 255, 254);
    Descriptor {
        machine: MachineShape {
            architecture: Architecture::Aarch64,
            vcpus: limits::MAX_VCPUS,
            page_bytes: limits::MAX_PAGE_BYTES,
            memory_bytes: limits::MAX_PAGES * page,
        },
        driver: Driver {
            name: name.clone(),
            version: "v".repeat(limits::MAX_VERSION),
            accelerator: name.clone(),
        },
        memory: (0..=last).map(region).collect(),
        disk: DiskLayers {
            bytes: u64::MAX,
            layers: vec![DiskLayer { path: path.into(), format: name }; limits::MAX_LAYERS],
        },
        network,
        device_state,
        ..sample()
    }
}

#[test]
fn the_largest_descriptor_passes_even_if_its_state_does_not_compress() {
    for state in [noise(MAX_DEVICE_STATE), vec![0; MAX_DEVICE_STATE]] {
        let descriptor = largest(state);
        let bytes = descriptor.encode().unwrap();
        assert!(bytes.len() <= limits::MAX_FILE);
        assert!(Descriptor::decode(&bytes).unwrap() == descriptor);
    }
}

#[test]
fn one_over_each_limit_is_refused() {
    type Exceed = fn(&mut Descriptor);
    let exceed: [(Exceed, &str); 11] = [
        (|d| d.machine.vcpus += 1, "256 vCPUs"),
        (|d| d.machine.page_bytes *= 2, "pages of 131072 bytes"),
        (|d| d.machine.page_bytes = limits::MIN_PAGE_BYTES / 2, "pages of 2048 bytes"),
        (|d| d.machine.memory_bytes += u64::from(d.machine.page_bytes), "a memory of 281474976710656 bytes"),
        (|d| d.driver.name.push('x'), "the driver \"nnnn"),
        (|d| d.driver.version.push('x'), "(129 bytes)"),
        (|d| d.memory.push(d.memory[0]), "65 regions"),
        (|d| d.disk.layers.push(d.disk.layers[0].clone()), "65 layers"),
        (|d| d.disk.layers[63].path.as_mut_os_string().push("x"), "(4096 bytes)"),
        (|d| d.network.parent.push('x'), "(256 bytes)"),
        (|d| d.device_state = vec![0; MAX_DEVICE_STATE + 1], "16777217 bytes"),
    ];
    for (exceed, says) in exceed {
        let mut descriptor = largest(vec![]);
        exceed(&mut descriptor);
        let error = descriptor.encode().expect_err(says).to_string();
        assert!(error.contains(says), "{says}: {error}");
    }
}
