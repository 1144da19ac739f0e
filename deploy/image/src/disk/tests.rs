//! Disks, kernels and initial RAM disks as they come: right, foreign, cut short, empty.

use super::*;
use std::fs;

fn file(bytes: &[u8]) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::new().expect("file");
    fs::write(file.path(), bytes).expect("written");
    file
}

fn qcow2(version: u32, backing: u64, bytes: u64, encryption: u32) -> Vec<u8> {
    let mut head = b"QFI\xfb".to_vec();
    head.extend(version.to_be_bytes());
    head.extend(backing.to_be_bytes());
    head.extend([0; 8]);
    head.extend(bytes.to_be_bytes());
    head.extend(encryption.to_be_bytes());
    head.resize(1024, 0);
    head
}

fn refusal(bytes: &[u8]) -> String {
    probe(file(bytes).path()).expect_err("refused")
}

fn with_magic(length: usize, offset: usize, magic: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; length];
    bytes[offset..offset + magic.len()].copy_from_slice(magic);
    bytes
}

#[test]
fn a_complete_qcow2_disk_is_known_with_the_size_that_the_guest_sees() {
    let disk = file(&qcow2(3, 0, 5 << 30, 0));
    assert_eq!(probe(disk.path()), Ok((DiskFormat::Qcow2, 5 << 30)));
}

#[test]
fn a_qcow2_disk_that_is_not_complete_or_not_sane_is_refused_with_the_remedy() {
    assert!(refusal(&qcow2(3, 512, 1 << 30, 0)).contains("backing file"));
    assert!(refusal(&qcow2(3, 0, 1 << 30, 2)).contains("encrypted"));
    assert!(refusal(&qcow2(1, 0, 1 << 30, 0)).contains("version 1"));
    assert!(refusal(&qcow2(3, 0, MOST_BYTES + 1, 0)).contains("claims"));
    for end in 4..36 {
        assert!(refusal(&qcow2(3, 0, 1 << 30, 0)[..end]).contains("cut short"), "{end} bytes");
    }
}

#[test]
fn raw_disks_are_known_by_a_partition_table_or_a_file_system() {
    for (offset, magic) in
        [(510, &b"\x55\xAA"[..]), (0x438, b"\x53\xEF"), (0, b"XFSB"), (0x10040, b"_BHRfS_M")]
    {
        let disk = file(&with_magic(0x11000, offset, magic));
        assert_eq!(probe(disk.path()), Ok((DiskFormat::Raw, 0x11000)));
    }
}

#[test]
fn disks_of_other_programs_are_named_with_the_command_that_converts_them() {
    for (offset, magic, name) in
        [(0, &b"KDMV"[..], "VMDK"), (0, b"vhdxfile", "VHDX"), (0x40, &[0x7f, 0x10, 0xda, 0xbe], "VDI")]
    {
        let said = refusal(&with_magic(4096, offset, magic));
        assert!(said.contains(name) && said.contains("qemu-img convert"), "{said}");
    }
}

#[test]
fn an_empty_odd_or_blank_file_is_no_disk() {
    assert!(refusal(b"").contains("sectors"));
    assert!(refusal(&[0; 1000]).contains("sectors"));
    assert!(refusal(&[0; 4096]).contains("neither"));
}

#[test]
fn kernels_and_initial_ram_disks_are_known_by_their_magic() {
    let kernel = file(&with_magic(4096, 0x202, b"HdrS"));
    assert_eq!(kernel_complaint(kernel.path()), None);
    let initrd = file(b"070701000");
    assert_eq!(initrd_complaint(initrd.path()), None);
    assert!(kernel_complaint(initrd.path()).is_some(), "too short");
    assert!(initrd_complaint(file(b"hello").path()).is_some_and(|why| why.contains("cpio")));
    assert!(kernel_complaint(file(&[0; 4096]).path()).is_some_and(|why| why.contains("bzImage")));
}
