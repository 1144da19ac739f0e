//! The archive's bytes, and the order of modules.

use super::*;

/// A module directory in which virtio_console is built in and virtio_net is not alone.
fn modules() -> tempfile::TempDir {
    let dir = tempfile::tempdir().expect("temporary directory");
    let dep = "k/virtio/virtio_pci.ko: k/virtio/virtio.ko k/virtio/virtio_ring.ko\n\
               k/virtio/virtio.ko: k/virtio/virtio_ring.ko\n\
               k/virtio/virtio_ring.ko:\n\
               k/block/virtio_blk.ko: k/virtio/virtio.ko k/virtio/virtio_ring.ko\n\
               k/net/virtio-net.ko: k/net/net_failover.ko k/core/failover.ko k/virtio/virtio.ko k/virtio/virtio_ring.ko\n\
               k/virtio/virtio_balloon.ko: k/virtio/virtio.ko k/virtio/virtio_ring.ko\n";
    fs::write(dir.path().join("modules.dep"), dep).expect("written");
    fs::write(dir.path().join("modules.builtin"), "kernel/char/virtio_console.ko\n").expect("written");
    dir
}

fn names(order: &[PathBuf]) -> Vec<String> {
    order.iter().map(|file| module_name(file)).collect()
}

#[test]
fn a_module_comes_after_all_that_it_needs_and_only_once() {
    let dir = modules();
    let order = load_order(dir.path(), &GUEST_DRIVERS).expect("complete");
    assert_eq!(
        names(&order),
        [
            "virtio_ring",
            "virtio",
            "virtio_pci",
            "virtio_blk",
            "failover",
            "net_failover",
            "virtio_net",
            "virtio_balloon"
        ]
    );
}

#[test]
fn a_driver_that_the_kernel_has_not_is_named() {
    let dir = modules();
    fs::write(dir.path().join("modules.builtin"), "").expect("written");
    let said = load_order(dir.path(), &GUEST_DRIVERS).expect_err("no console").to_string();
    assert_eq!(said, "the package tree lacks the kernel module virtio_console");
}

#[test]
fn a_packed_modules_name_is_its_name_without_endings() {
    assert_eq!(module_name(Path::new("kernel/net/virtio-net.ko.xz")), "virtio_net");
}

#[test]
fn a_packed_module_is_unpacked() {
    let dir = tempfile::tempdir().expect("temporary directory");
    let plain = dir.path().join("m.ko");
    fs::write(&plain, "module").expect("written");
    commands::run("xz", |c| {
        c.arg("-k").arg(&plain);
    })
    .expect("packed");
    assert_eq!(module_bytes(&dir.path().join("m.ko.xz")).expect("unpacked"), b"module");
}

/// Reads the archive back: name, mode, data of each entry.
fn entries(mut bytes: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
    let mut found = Vec::new();
    loop {
        assert_eq!(&bytes[..6], b"070701");
        let field = |at: usize| {
            let text = std::str::from_utf8(&bytes[6 + at * 8..14 + at * 8]).expect("digits");
            u32::from_str_radix(text, 16).expect("hexadecimal") as usize
        };
        let (mode, size, name_size) = (field(1), field(6), field(11));
        let name = String::from_utf8(bytes[110..110 + name_size - 1].to_vec()).expect("text");
        let data_at = (110 + name_size).next_multiple_of(4);
        if name == "TRAILER!!!" {
            return found;
        }
        found.push((name, mode as u32, bytes[data_at..data_at + size].to_vec()));
        bytes = &bytes[(data_at + size).next_multiple_of(4)..];
    }
}

#[test]
fn the_archive_holds_the_agent_as_init_a_console_and_the_module_list() {
    let dir = modules();
    for module in load_order(dir.path(), &GUEST_DRIVERS).expect("complete") {
        let file = dir.path().join(module);
        fs::create_dir_all(file.parent().expect("parent")).expect("directory");
        fs::write(&file, "ko").expect("written");
    }
    let agent = dir.path().join("agent");
    fs::write(&agent, "the agent").expect("written");
    let archive = archive(&agent, dir.path(), &GUEST_DRIVERS).expect("made");
    let entries = entries(&archive);
    let get = |name: &str| entries.iter().find(|e| e.0 == name).expect(name).clone();
    assert_eq!(get("init"), ("init".into(), PROGRAM, b"the agent".to_vec()));
    assert_eq!(get("dev/console").1, CONSOLE);
    let order = String::from_utf8(get("modules/order").2).expect("text");
    assert!(order.starts_with("virtio_ring.ko\nvirtio.ko\n") && order.lines().count() == 8);
    assert_eq!(archive.len() % 512, 0);
}
