//! What is written comes back; damage never does.

use proptest::prelude::*;

use super::super::limits::{MAX_LAYERS, MAX_PAGE_BYTES, MAX_REGIONS, MIN_PAGE_BYTES};
use super::*;
use crate::network::identity::mac_address;

#[test]
fn the_sample_comes_back_as_it_was() {
    let bytes = sample().encode().unwrap();
    assert_eq!(Descriptor::decode(&bytes).unwrap(), sample());
    assert_eq!(sample().encode().unwrap(), bytes, "the same descriptor gives the same bytes");
}

#[test]
fn a_vm_without_disk_and_without_device_state_comes_back() {
    let none = DiskLayers { bytes: 0, layers: vec![] };
    let descriptor = Descriptor { disk: none, device_state: vec![], ..sample() };
    assert_eq!(Descriptor::decode(&descriptor.encode().unwrap()).unwrap(), descriptor);
}

#[test]
fn every_changed_byte_is_noticed() {
    let good = sample().encode().unwrap();
    for at in 0..good.len() {
        for change in [1, 2, 4, 8, 16, 32, 64, 128, 255] {
            let mut bad = good.clone();
            bad[at] ^= change;
            let check = refusal(&bad).check;
            let first = match at {
                0..4 => Check::Magic,
                4..6 => Check::Version,
                8..12 => Check::Length,
                _ => Check::Checksum,
            };
            assert_eq!(check, first, "byte {at} changed by {change:#x}");
        }
    }
}

#[test]
fn every_truncation_is_noticed_and_so_is_every_byte_more() {
    let good = sample().encode().unwrap();
    for len in 0..good.len() {
        let check = refusal(&good[..len]).check;
        assert_eq!(check, if len < 4 { Check::Magic } else { Check::Length }, "cut to {len} bytes");
    }
    assert_eq!(refusal(&[&good[..], &[0]].concat()).check, Check::Length);
}

fn checkpoint() -> impl Strategy<Value = Checkpoint> {
    any::<(u32, u64, [u8; 32])>().prop_map(|(id, created_unix_ns, key)| Checkpoint {
        id: CheckpointId(id),
        created_unix_ns,
        page_key: PageKey(key),
    })
}

/// A machine and regions that cover its memory, in any order.
fn machine() -> impl Strategy<Value = (MachineShape, Vec<FileRegion>)> {
    let bits = MIN_PAGE_BYTES.trailing_zeros()..=MAX_PAGE_BYTES.trailing_zeros();
    let pages = prop::collection::vec(1u64..1 << 20, 1..=MAX_REGIONS);
    let architecture = prop::sample::select(Architecture::KNOWN.to_vec());
    (architecture, 1u16..=255, bits, pages).prop_flat_map(|(architecture, vcpus, bits, pages)| {
        let mut memory_bytes = 0;
        let mut region = |pages: u64| {
            let offset = memory_bytes;
            memory_bytes += pages << bits;
            FileRegion { offset, len: pages << bits }
        };
        let regions: Vec<_> = pages.into_iter().map(&mut region).collect();
        let shape = MachineShape { architecture, vcpus, page_bytes: 1 << bits, memory_bytes };
        (Just(shape), Just(regions).prop_shuffle())
    })
}

fn driver() -> impl Strategy<Value = Driver> {
    ("[a-z0-9._-]{1,32}", "[ -~]{1,128}", "[a-z0-9._-]{1,32}")
        .prop_map(|(name, version, accelerator)| Driver { name, version, accelerator })
}

fn disk() -> impl Strategy<Value = DiskLayers> {
    // Any bytes but 0 are a path on Linux.
    let path = prop::collection::vec(1u8..=255, 0..300).prop_map(|tail| {
        use std::os::unix::ffi::OsStringExt;
        PathBuf::from(std::ffi::OsString::from_vec([b"/".as_slice(), &tail].concat()))
    });
    let layer = (path, "[a-z0-9._-]{1,32}").prop_map(|(path, format)| DiskLayer { path, format });
    prop_oneof![
        Just(DiskLayers { bytes: 0, layers: vec![] }),
        (1u64.., prop::collection::vec(layer, 1..=MAX_LAYERS))
            .prop_map(|(bytes, layers)| DiskLayers { bytes, layers }),
    ]
}

fn network() -> impl Strategy<Value = NetworkIdentity> {
    ("[^\\pC./][^\\pC/]{0,60}", any::<u32>(), 8u32..=29, any::<u32>()).prop_map(
        |(parent, address, bits, id)| {
            let base = Ipv4Addr::from(address & (u32::MAX << (32 - bits)));
            let block: AddressBlock = format!("{base}/{bits}").parse().unwrap();
            let (clone_id, mac) = (CloneId(id), mac_address(&parent, CloneId(id)));
            NetworkIdentity { parent, block, clone_id, mac, ipv4: block.address(clone_id) }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_descriptor_comes_back_as_it_was(
        checkpoint in checkpoint(),
        (machine, memory) in machine(),
        driver in driver(),
        disk in disk(),
        network in network(),
        device_state in prop::collection::vec(any::<u8>(), 0..5000),
    ) {
        let descriptor = Descriptor { checkpoint, machine, driver, memory, disk, network, device_state };
        let bytes = descriptor.encode().map_err(|error| TestCaseError::fail(error.to_string()))?;
        prop_assert!(bytes.len() <= limits::MAX_FILE);
        prop_assert_eq!(Descriptor::decode(&bytes).unwrap(), descriptor);
    }

    #[test]
    fn any_bytes_at_all_are_refused_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(Descriptor::decode(&bytes).is_err());
    }
}
