//! Hosts whose pages do not come: for a while, or not any more.

use std::time::Duration;

use serde_json::Value;
use snowflock_engine::control::PAGE_LIMIT;

use crate::across::{AGENT_PAGE, AWAY, FROZEN, HOME, LATER, assert_right, checkpoint, ticket};
use crate::daemons::{Cluster, Plan, clones, failed};

/// What SFMD says of a clone.
fn described(cluster: &Cluster, clone: &str) -> Value {
    cluster.ask(&["describe", &clone.replace("clone-", "clone/")])
}

#[test]
fn clones_whose_pages_stop_coming_fail_with_the_reason_and_those_that_have_all_live_on() {
    let filled = Plan { fill: true, ..AWAY };
    let cluster = Cluster::across(&[HOME, AWAY, filled]);
    let (number, born) = ticket(&cluster, 2);
    let from = checkpoint(&cluster);
    cluster.ask(&["create-clones", &number, &from]);
    let on = |host| born.iter().find(|clone| clone.1 == host).expect("one on each");
    let (poor, rich) = (on(1), on(2));
    // Time for all of its 4 MiB.
    std::thread::sleep(Duration::from_secs(2));
    (1..3).for_each(|host| cluster.lose_pages(host, true));
    let vcpu = cluster.vcpu(1, &poor.0);
    let reads = std::thread::spawn(move || vcpu.check(0, AGENT_PAGE, 9, FROZEN));
    cluster.sees("it is given up", |view| failed(view) == 1);
    assert!(reads.join().unwrap().is_err(), "whoever waited for it is let go");
    let told = described(&cluster, &poor.0).to_string();
    assert!(told.contains("its pages stop coming: nothing was heard of their host"), "{told}");
    assert_eq!(described(&cluster, &rich.0)["state"], "joined");
    assert_right(&cluster, rich);
    // The way is free again: another clone of the same checkpoint takes its place.
    (1..3).for_each(|host| cluster.lose_pages(host, false));
    let (again, next) = ticket(&cluster, 3);
    let made = cluster.ask(&["create-clones", &again, &from]);
    assert_eq!(made["joined"].as_array().unwrap().len(), 3, "{made}");
    next.iter().for_each(|clone| assert_right(&cluster, clone));
    cluster.clear();
}

#[test]
fn pages_that_are_away_for_less_than_the_limit_cost_a_pause_only() {
    let cluster = Cluster::across(&[HOME, AWAY]);
    let (number, born) = ticket(&cluster, 1);
    let from = checkpoint(&cluster);
    cluster.ask(&["create-clones", &number, &from]);
    cluster.lose_pages(1, true);
    let vcpu = cluster.vcpu(1, &born[0].0);
    let reads = std::thread::spawn(move || vcpu.check(0, AGENT_PAGE, 9, FROZEN));
    std::thread::sleep(PAGE_LIMIT / 2);
    cluster.lose_pages(1, false);
    assert_eq!(reads.join().unwrap().unwrap().wrong, 0);
    std::thread::sleep(PAGE_LIMIT + Duration::from_secs(1));
    assert_eq!(described(&cluster, &born[0].0)["state"], "joined");
    cluster.clear();
}

#[test]
fn a_host_that_is_cut_off_for_a_while_keeps_its_clones_and_for_longer_than_its_lease_ends_them() {
    let cluster = Cluster::across(&[HOME, AWAY, AWAY]);
    let (number, born) = ticket(&cluster, 2);
    let from = checkpoint(&cluster);
    cluster.ask(&["create-clones", &number, &from]);
    born.iter().for_each(|clone| assert_right(&cluster, clone));
    let on = |host| born.iter().find(|clone| clone.1 == host).expect("one on each");
    let (cut, other) = (on(1), on(2));

    cluster.plug(1, false);
    std::thread::sleep(Duration::from_secs(3));
    cluster.plug(1, true);
    assert_eq!(described(&cluster, &cut.0)["state"], "joined");
    assert_right(&cluster, cut);

    cluster.plug(1, false);
    cluster.sees("it is given up", |view| view["hosts"][1]["state"] == "lost");
    assert!(described(&cluster, &cut.0)["state"]["failed"].is_string());
    // Others may have its place, under IDs of their own.
    let (more, next) = ticket(&cluster, 3);
    let made = cluster.ask(&["create-clones", &more, &from]);
    assert_eq!(made["joined"].as_array().unwrap().len(), 3, "{made}");
    assert!(next.iter().all(|clone| clone.1 == 2 && clone.0 != cut.0), "{next:?}");

    cluster.plug(1, true);
    cluster.sees("it is back", |view| view["hosts"][1]["state"] == "up");
    // It has ended what it was taken for dead with, before it may have anything new.
    assert!(!cluster.has(1, &cut.0), "{} has two owners", cut.0);
    assert_right(&cluster, other);
    next.iter().for_each(|clone| assert_right(&cluster, clone));
    cluster.clear();
}

/// Something else in each block.
fn disk(mib: usize) -> Vec<u8> {
    let words = 0..(mib << 20) as u64 / 8;
    words.flat_map(|word| (word.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1).to_le_bytes()).collect()
}

#[test]
fn memory_and_disk_are_right_over_wires_that_lose_repeat_and_reorder_datagrams() {
    let cluster = Cluster::across(&[HOME, AWAY, AWAY]);
    let wires = [1, 2].map(|host| cluster.spoil(host, 70 + host as u64));
    cluster.sees("the lines to SFMD hold", |view| view["hosts"][2]["state"] == "up");
    let disk = disk(3);
    cluster.write_disk(0, "parent", &disk);
    let (number, born) = ticket(&cluster, 4);
    let from = checkpoint(&cluster);
    let parent = cluster.vcpu(0, "parent");
    std::thread::scope(|scope| {
        scope.spawn(|| parent.write(0, AGENT_PAGE, 3, LATER).unwrap());
        let made = cluster.ask(&["create-clones", &number, &from]);
        assert_eq!(made["joined"].as_array().unwrap().len(), 4, "{made}");
        born.iter().for_each(|clone| assert_right(&cluster, clone));
    });
    for host in 1..3 {
        assert!(cluster.copied_disks(host).contains(&disk), "the disk on h{host}");
    }
    assert!(wires.iter().all(|wire| wire.harmed() > 100), "they were no bad wires");
    assert_eq!(cluster.sees("all live", |view| clones(view, "joined") == 4)["hosts"][1]["state"], "up");
    cluster.ask(&["kill", &number]);
    cluster.clear();
}

#[test]
fn a_disk_that_does_not_fit_fails_its_clones_with_the_reason_and_the_host_goes_on() {
    let cluster = Cluster::with_little_room(&[HOME, AWAY], 2);
    let large = disk(4);
    cluster.write_disk(0, "parent", &large);
    let (number, _) = ticket(&cluster, 1);
    let from = checkpoint(&cluster);
    let made = cluster.sf(&["create-clones", &number, &from]);
    let said = String::from_utf8_lossy(&[made.stdout, made.stderr].concat()).into_owned();
    assert!(said.contains("cannot be stored") && said.contains("No space left"), "{said}");
    cluster.ask(&["kill", &number]);
    // One with less on its disk fits.
    let small = disk(1);
    cluster.write_disk(0, "parent", &small);
    let (number, born) = ticket(&cluster, 1);
    let from = checkpoint(&cluster);
    cluster.ask(&["create-clones", &number, &from]);
    assert_right(&cluster, &born[0]);
    assert_eq!(cluster.copied_disks(1), [small], "and nothing is left of the other");
    cluster.ask(&["kill", &number]);
    cluster.clear();
}
