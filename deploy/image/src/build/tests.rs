//! Builds from a user's own disk, whole; what is around a build from packages. Real VMs: the tests crate.

use super::*;

/// A directory with a disk, a kernel and an initrd of the user's.
fn own() -> (tempfile::TempDir, Spec) {
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut disk = vec![0; 1 << 16];
    disk[510..512].copy_from_slice(&[0x55, 0xAA]);
    let mut kernel = vec![0; 4096];
    kernel[0x202..0x206].copy_from_slice(b"HdrS");
    for (name, bytes) in [("my.img", disk), ("my-kernel", kernel), ("my-initrd", b"070701".to_vec())] {
        fs::write(dir.path().join(name), bytes).expect("written");
    }
    let source = Source::Disk(OwnDisk {
        disk: dir.path().join("my.img"),
        kernel: dir.path().join("my-kernel"),
        initrd: dir.path().join("my-initrd"),
        cmdline: "root=/dev/vda1".into(),
        placement: Placement::Copy,
    });
    let spec = Spec { output: dir.path().join("image"), source, fresh: false };
    (dir, spec)
}

/// The names in a directory, sorted.
fn names(dir: &Path) -> Vec<String> {
    let entries = fs::read_dir(dir).expect("readable").map(|e| e.expect("entry").file_name());
    let mut names: Vec<_> = entries.map(|name| name.to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

#[test]
fn an_own_disk_becomes_an_image_and_nothing_else_is_left() {
    let (dir, spec) = own();
    let built = build(&spec).expect("built");
    assert!(!built.reused);
    assert_eq!((built.image.name(), built.image.root_device()), ("image", "/dev/vda1"));
    assert_eq!(names(dir.path()), ["image", "my-initrd", "my-kernel", "my.img"]);
    assert_eq!(names(&spec.output), ["disk.raw", "image.json", "initrd", "vmlinuz"]);
}

#[test]
fn unchanged_inputs_reuse_the_image_and_changed_ones_replace_it() {
    let (dir, spec) = own();
    let first = build(&spec).expect("built").image;
    assert!(build(&spec).expect("found").reused);
    fs::write(dir.path().join("my-initrd"), "070701 changed").expect("written");
    let second = build(&spec).expect("built");
    assert!(!second.reused && second.image.inputs() != first.inputs());
}

#[test]
fn a_damaged_image_is_built_again_even_if_its_inputs_are_the_same() {
    let (_dir, spec) = own();
    build(&spec).expect("built");
    fs::remove_file(spec.output.join("vmlinuz")).expect("removed");
    assert!(!build(&spec).expect("built again").reused);
}

#[test]
fn links_share_the_users_file() {
    use std::os::unix::fs::MetadataExt;
    let (dir, mut spec) = own();
    if let Source::Disk(own) = &mut spec.source {
        own.placement = Placement::Link;
    }
    let image = build(&spec).expect("built").image;
    let inode = |path: &Path| fs::metadata(path).expect("file").ino();
    assert_eq!(inode(&image.disk()), inode(&dir.path().join("my.img")));
}

#[test]
fn a_directory_of_other_files_is_never_replaced() {
    let (_dir, spec) = own();
    fs::create_dir(&spec.output).expect("directory");
    fs::write(spec.output.join("thesis.tex"), "").expect("written");
    let said = build(&spec).expect_err("refused").to_string();
    assert!(said.contains("exists and is no image"), "{said}");
    assert_eq!(names(&spec.output), ["thesis.tex"]);
}

#[test]
fn what_a_killed_build_left_is_swept_by_the_next() {
    let (dir, spec) = own();
    let left = dir.path().join(".flurry-image-999999/tree/etc");
    fs::create_dir_all(left).expect("directory");
    build(&spec).expect("built");
    assert_eq!(names(dir.path()), ["image", "my-initrd", "my-kernel", "my.img"]);
}

#[test]
fn too_little_room_is_told_in_numbers() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let Err(ImageError::NoRoom { needed_mib, free_mib, .. }) = room(dir.path(), u64::MAX) else {
        panic!("there is never that much room");
    };
    assert!(needed_mib == u64::MAX && free_mib < needed_mib);
}

#[test]
fn a_build_that_fails_leaves_the_older_image_and_nothing_unfinished() {
    let (dir, mut spec) = own();
    build(&spec).expect("built");
    let me = std::env::current_exe().expect("own path");
    spec.source = Source::Packages(Packages {
        packages: vec![],
        copy: vec![],
        suite: None,
        agent: me,
        demo_app: None,
        disk_mib: 1024,
    });
    build(&spec).expect_err("this test is no static agent");
    assert!(Image::open(&spec.output).is_ok());
    assert_eq!(names(dir.path()), ["image", "my-initrd", "my-kernel", "my.img"]);
}
