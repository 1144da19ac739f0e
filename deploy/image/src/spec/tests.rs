//! Orders that make no sense are refused before any work, with all complaints at once.

use super::*;

fn packages() -> Packages {
    Packages {
        packages: vec![],
        copy: vec![],
        suite: None,
        agent: "/nonexistent/agent".into(),
        demo_app: None,
        disk_mib: 1024,
    }
}

fn complaints(source: Source, output: &str) -> Vec<String> {
    match (Spec { output: output.into(), source, fresh: false }).check() {
        Err(ImageError::BadSpec(complaints)) => complaints,
        other => panic!("expected complaints, got {other:?}"),
    }
}

#[test]
fn all_complaints_come_at_once_each_with_its_key() {
    let bad = Packages {
        packages: vec!["nginx-light".into(), "--hook=rm".into(), "Nginx".into()],
        copy: vec![Copied { from: "/nonexistent/file".into(), to: "etc/../x".into() }],
        suite: Some("book worm".into()),
        disk_mib: 100,
        ..packages()
    };
    let said = complaints(Source::Packages(bad), "/nonexistent/dir/image");
    let keys: Vec<_> = said.iter().filter_map(|c| c.split(':').next()).collect();
    assert_eq!(
        keys,
        ["output", "packages[1]", "packages[2]", "copy[0].from", "copy[0].to", "suite", "agent", "disk_mib"]
    );
    assert!(said[7].ends_with("must be 512..=16777216, got 100"), "{}", said[7]);
}

#[test]
fn an_own_disk_is_judged_in_all_its_four_parts() {
    let missing = PathBuf::from("/nonexistent/file");
    let own = OwnDisk {
        disk: missing.clone(),
        kernel: missing.clone(),
        initrd: missing,
        cmdline: "console=ttyS0".into(),
        placement: Placement::Copy,
    };
    let said = complaints(Source::Disk(own), "/tmp/image");
    let keys: Vec<_> = said.iter().filter_map(|c| c.split(':').next()).collect();
    assert_eq!(keys, ["disk", "kernel", "initrd", "cmdline"]);
    assert!(said[3].contains("root=/dev/vda1"));
}

#[test]
fn an_output_without_a_name_is_refused() {
    assert!(complaints(Source::Packages(packages()), "/")[0].starts_with("output: must name a directory"));
}

#[test]
fn a_command_line_at_the_kernels_limit_passes_and_one_byte_more_does_not() {
    let line = |length: usize| format!("root=/dev/vda {}", "x".repeat(length - 14));
    assert_eq!(cmdline_complaint(&line(MOST_CMDLINE)), None);
    assert!(cmdline_complaint(&line(MOST_CMDLINE + 1)).is_some());
    assert!(cmdline_complaint("root=/dev/vda\nx").is_some());
    assert!(cmdline_complaint("root=").is_some());
}

#[test]
fn the_last_root_device_counts_as_for_the_kernel() {
    assert_eq!(root_device("root=/dev/vda ro root=/dev/vdb1"), Some("/dev/vdb1"));
}

#[test]
fn names_that_an_option_parser_could_take_for_options_are_no_names() {
    assert!(is_package_name("libstdc++6") && is_package_name("7zip"));
    assert!(!is_package_name("-x") && !is_package_name("a,b") && !is_package_name("a"));
    assert!(is_suite_name("bookworm") && !is_suite_name("-bookworm") && !is_suite_name(""));
    assert!(is_guest_path(Path::new("/srv/site")) && !is_guest_path(Path::new("/")));
    assert!(!is_guest_path(Path::new("/srv/../etc")));
}
