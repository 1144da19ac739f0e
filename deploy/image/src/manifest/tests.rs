//! An image is opened only if its manifest and its files agree.

use super::*;
use serde_json::json;

const DISK_BYTES: u64 = 8192;

fn image() -> (tempfile::TempDir, serde_json::Value) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut kernel = vec![0; 4096];
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    let mut disk = vec![0; DISK_BYTES as usize];
    disk[510..512].copy_from_slice(&[0x55, 0xAA]);
    for (name, bytes) in [("vmlinuz", kernel), ("initrd", b"070701".to_vec()), ("disk.raw", disk)] {
        fs::write(dir.path().join(name), bytes).expect("written");
    }
    let manifest = json!({
        "version": 1, "name": "test", "kernel": "vmlinuz", "initrd": "initrd",
        "disk": { "file": "disk.raw", "format": "raw", "bytes": DISK_BYTES },
        "root_device": "/dev/vda1", "cmdline": "root=/dev/vda1 ro", "inputs": "sha256:00",
    });
    (dir, manifest)
}

fn open(dir: &tempfile::TempDir, manifest: &serde_json::Value) -> Result<Image, ImageError> {
    fs::write(dir.path().join(FILE), manifest.to_string()).expect("written");
    Image::open(dir.path())
}

fn complaints(dir: &tempfile::TempDir, manifest: &serde_json::Value) -> Vec<String> {
    match open(dir, manifest) {
        Err(ImageError::Invalid { complaints, .. }) => complaints,
        other => panic!("expected complaints, got {other:?}"),
    }
}

#[test]
fn a_whole_image_opens_and_tells_what_to_boot() {
    let (dir, manifest) = image();
    let image = open(&dir, &manifest).expect("usable");
    assert_eq!((image.cmdline(), image.root_device()), ("root=/dev/vda1 ro", "/dev/vda1"));
    assert_eq!((image.disk_format().name(), image.disk_bytes()), ("raw", DISK_BYTES));
    assert!(image.kernel().exists() && image.initrd().exists() && image.disk().exists());
}

#[test]
fn a_directory_without_a_manifest_is_no_image() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let said = Image::open(dir.path()).expect_err("missing").to_string();
    assert!(said.contains("flurry image build"), "{said}");
}

#[test]
fn a_manifest_of_another_version_is_refused_before_the_rest_is_read() {
    let (dir, _) = image();
    assert!(
        complaints(&dir, &json!({ "version": 2, "what": "ever" }))[0]
            .starts_with("version: must be 1, got 2")
    );
    assert!(complaints(&dir, &json!({ "name": "x" }))[0].contains("got none"));
}

#[test]
fn what_is_not_json_or_too_large_is_refused() {
    let (dir, _) = image();
    for text in ["{ \"version\": 1".to_string(), " ".repeat(MOST_BYTES as usize + 1)] {
        fs::write(dir.path().join(FILE), text).expect("written");
        assert!(matches!(Image::open(dir.path()), Err(ImageError::Invalid { .. })));
    }
}

#[test]
fn an_unknown_or_missing_key_is_named() {
    let (dir, mut manifest) = image();
    manifest["colour"] = json!("blue");
    assert!(complaints(&dir, &manifest)[0].contains("colour"));
    let (dir, mut manifest) = image();
    manifest.as_object_mut().expect("object").remove("kernel");
    assert!(complaints(&dir, &manifest)[0].contains("kernel"));
}

#[test]
fn files_outside_the_image_are_refused() {
    let (dir, mut manifest) = image();
    manifest["kernel"] = json!("../vmlinuz");
    manifest["disk"]["file"] = json!("/dev/sda");
    let said = complaints(&dir, &manifest);
    assert_eq!(said.len(), 2);
    assert!(said[0].starts_with("kernel: must be a file name") && said[1].starts_with("disk.file: must be"));
}

#[test]
fn every_file_that_is_missing_or_another_thing_is_named_at_once() {
    let (dir, mut manifest) = image();
    fs::remove_file(dir.path().join("vmlinuz")).expect("removed");
    fs::write(dir.path().join("initrd"), "hello").expect("written");
    manifest["disk"]["format"] = json!("qcow2");
    let said = complaints(&dir, &manifest);
    let keys: Vec<_> = said.iter().filter_map(|c| c.split(':').next()).collect();
    assert_eq!(keys, ["kernel", "initrd", "disk.format"]);
}

#[test]
fn a_disk_that_was_cut_short_is_noticed() {
    let (dir, manifest) = image();
    let disk = fs::OpenOptions::new().write(true).open(dir.path().join("disk.raw")).expect("disk");
    disk.set_len(DISK_BYTES / 2).expect("cut");
    assert_eq!(complaints(&dir, &manifest), ["disk.bytes: the manifest says 8192, the disk has 4096"]);
}
