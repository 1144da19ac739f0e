//! A file is there as a whole or not at all.

use std::error::Error;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use super::*;

fn names(folder: &std::path::Path) -> Vec<String> {
    fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_written_file_reads_back_and_only_its_owner_may_read_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint-7.sfvd");
    sample().write(&path).unwrap();
    assert_eq!(Descriptor::read(&path).unwrap(), sample());
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(names(folder.path()), ["checkpoint-7.sfvd"]);
}

#[test]
fn a_file_is_replaced_by_the_newer_one() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("latest.sfvd");
    fs::write(&path, "what was here before").unwrap();
    sample().write(&path).unwrap();
    assert_eq!(Descriptor::read(&path).unwrap(), sample());
    assert_eq!(names(folder.path()), ["latest.sfvd"]);
}

#[test]
fn a_write_that_fails_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("taken");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("by a file"), "").unwrap();
    let error = sample().write(&path).unwrap_err();
    assert!(matches!(error, DescriptorError::File { tried: "write", .. }), "{error}");
    assert!(error.to_string().contains("taken") && error.source().is_some());
    assert_eq!(names(folder.path()), ["taken"]);
    let nowhere = folder.path().join("no such folder").join("a.sfvd");
    assert!(matches!(sample().write(&nowhere), Err(DescriptorError::File { .. })));
    assert!(matches!(sample().write("/".as_ref()), Err(DescriptorError::File { .. })));
}

#[test]
fn what_cannot_be_read_again_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("bad.sfvd");
    let mut bad = sample();
    bad.memory.clear();
    let error = bad.write(&path).unwrap_err();
    assert!(error.to_string().contains("bad.sfvd") && error.to_string().contains("0 regions"), "{error}");
    assert!(names(folder.path()).is_empty());
}

#[test]
fn a_damaged_file_is_refused_by_its_path_and_place() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.sfvd");
    let mut bytes = sample().encode().unwrap();
    bytes[40] ^= 1;
    fs::write(&path, &bytes).unwrap();
    let error = Descriptor::read(&path).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("damaged.sfvd is refused: at byte "), "{message}");
    assert!(message.contains("found the checksum 0x") && message.contains("expected 0x"), "{message}");
}

#[test]
fn what_is_no_file_or_too_long_is_refused_without_reading_it_all() {
    let folder = tempfile::tempdir().unwrap();
    let missing = Descriptor::read(&folder.path().join("missing")).unwrap_err();
    assert!(matches!(missing, DescriptorError::File { tried: "read", .. }), "{missing}");
    let directory = Descriptor::read(folder.path()).unwrap_err();
    assert!(directory.source().unwrap().to_string().contains("not a regular file"));

    // A terabyte, all of it a hole.
    let path = folder.path().join("huge");
    let huge = fs::File::create(&path).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&huge, b"SFVD\x01\0", 0).unwrap();
    huge.set_len(1 << 40).unwrap();
    let error = Descriptor::read(&path).unwrap_err();
    assert_eq!(error.faults()[0].check, Check::Length, "{error}");
}
