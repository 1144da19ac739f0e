//! Real guests on several machines: clones answer requests wherever they are, with memory and disk right.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::daemons::{Cluster, Plan};

const HOME: Plan = Plan { parent: true, max_clones: 0, fill: false };
const AWAY: Plan = Plan { parent: false, max_clones: 4, fill: false };
const BOOT_LIMIT: Duration = Duration::from_secs(120);

/// What a configuration says of the demo guest. tests/run builds its image.
fn demo() -> String {
    let built = || PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/images/demo"));
    let folder = std::env::var_os("FLURRY_TEST_IMAGE").map_or_else(built, PathBuf::from);
    let manifest =
        std::fs::read(folder.join("image.json")).expect("an image; `flurry image build` makes one");
    let manifest: Value = serde_json::from_slice(&manifest).unwrap();
    let file = |name: &Value| folder.join(name.as_str().unwrap()).display().to_string();
    let disk = &manifest["disk"];
    format!(
        "driver: qemu, memory_mib: 256, kernel: {}, initrd: {}, cmdline: {}, disk: {}, disk_format: {}, disk_bytes: {}",
        file(&manifest["kernel"]),
        file(&manifest["initrd"]),
        manifest["cmdline"],
        file(&disk["file"]),
        disk["format"],
        disk["bytes"]
    )
}

/// Waits until a guest answers.
fn answers(cluster: &Cluster, address: &str) {
    let until = Instant::now() + BOOT_LIMIT;
    while cluster.get(address, "/healthz").is_err() {
        assert!(Instant::now() < until, "{address} does not answer");
        std::thread::sleep(Duration::from_millis(50));
    }
}

fn content(cluster: &Cluster, address: &str) -> [String; 2] {
    ["/memory/checksum", "/disk/checksum"].map(|path| cluster.get(address, path).unwrap())
}

#[test]
fn clones_on_two_other_hosts_answer_with_memory_and_disk_as_they_were() {
    let cluster = Cluster::across_on(demo(), &[HOME, AWAY, AWAY]);
    let parent = cluster.address(2);
    answers(&cluster, &parent);
    cluster.get(&parent, "/memory/fill?mib=12&seed=1").unwrap();
    cluster.get(&parent, "/disk/write?mib=6&seed=1").unwrap();
    let frozen = content(&cluster, &parent);
    let ticket = cluster.ask(&["ticket", "2"]);
    let made = cluster.ask(&["clone", &ticket["ticket"].to_string()]);
    assert_eq!(made["joined"].as_array().unwrap().len(), 2, "{made}");
    let view = cluster.sees("both have addresses", |view| {
        view["clones"].as_array().unwrap().iter().filter(|clone| clone["ipv4"].is_string()).count() == 2
    });
    let clones = view["clones"].as_array().unwrap();
    assert_ne!(clones[0]["host"], clones[1]["host"], "{view}");
    cluster.get(&parent, "/memory/overwrite?seed=2").unwrap();
    cluster.get(&parent, "/disk/overwrite?seed=2").unwrap();
    let addresses: Vec<&str> = clones.iter().map(|clone| clone["ipv4"].as_str().unwrap()).collect();
    for address in &addresses {
        answers(&cluster, address);
        assert_eq!(content(&cluster, address), frozen, "{address}");
    }
    // What a clone writes is its own, on both.
    cluster.get(addresses[0], "/memory/overwrite?seed=3").unwrap();
    cluster.get(addresses[0], "/disk/overwrite?seed=3").unwrap();
    assert_eq!(content(&cluster, addresses[1]), frozen);
    assert_ne!(content(&cluster, addresses[0]), frozen);
    cluster.ask(&["kill", &ticket["ticket"].to_string()]);
    cluster.clear();
}
