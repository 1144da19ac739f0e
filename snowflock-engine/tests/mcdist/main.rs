//! The page network with real processes on hosts that are network namespaces.
//! Needs root, for namespaces and userfaultfd.
#![cfg(feature = "host")]
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod hosts;
mod network;

use std::net::SocketAddrV4;
use std::time::Duration;

use hosts::{Cluster, expected, page};
use network::Network;
use snowflock_engine::mcdist::seal::Key;
use snowflock_engine::memory::bench::Walk;
use snowflock_engine::memory::layers::Layers;
use snowflock_engine::memory::{PAGE_BYTES, PageIndex};

const PAGES: u32 = 3_000;

/// Asserts that an image holds what the parent held when it was frozen.
fn assert_right(image: &snowflock_engine::memory::image::Image) {
    let mut found = [0; PAGE_BYTES];
    for index in (0..PAGES).map(PageIndex) {
        image.read(index, &mut found).unwrap();
        assert_eq!(found, page(index), "page {}", index.0);
    }
}

/// Two hosts touch every page while the parent overwrites its memory.
fn touch_everywhere(cluster: &Cluster) {
    std::thread::scope(|scope| {
        scope.spawn(|| cluster.parent.overwrite());
        for (tap, order) in cluster.taps.iter().zip([3, 4]) {
            scope.spawn(move || {
                let (_, stats) = tap.touch(Walk::Random(order));
                println!("{stats:?}");
                assert_eq!(stats.fetcher.unwrap().refused, 0);
                assert_right(&tap.image);
            });
        }
    });
}

#[test]
fn clones_on_two_other_hosts_see_their_parents_memory_while_it_changes() {
    let cluster = Cluster::new(9_000, PAGES, false, |_| {});
    touch_everywhere(&cluster);
    let stats = cluster.server.stats().unwrap().distribution;
    assert!(stats.multicast > 0 && stats.noticed > 0, "{stats:?}");
}

#[test]
fn a_fifth_of_all_datagrams_lost_is_made_good() {
    let cluster = Cluster::new(9_000, PAGES, true, |network| {
        (0..3).for_each(|host| network.filter(host, "meta l4proto udp numgen random mod 5 0 drop"));
    });
    touch_everywhere(&cluster);
}

#[test]
fn pages_in_thirds_cross_a_network_with_a_small_mtu() {
    let cluster = Cluster::new(1_500, PAGES, true, |network| {
        (1..3).for_each(|host| network.filter(host, "meta l4proto udp numgen random mod 20 0 drop"));
    });
    touch_everywhere(&cluster);
}

#[test]
fn where_multicast_is_filtered_pages_come_by_unicast() {
    let cluster = Cluster::new(9_000, PAGES, true, |network| {
        (1..3).for_each(|host| network.filter(host, "ip daddr 224.0.0.0/4 drop"));
    });
    touch_everywhere(&cluster);
    let stats = cluster.server.stats().unwrap().distribution;
    assert!(stats.unicast as f64 > 1.5 * f64::from(PAGES) * 0.8, "{stats:?}");
}

#[test]
fn a_working_set_comes_first_and_the_rest_when_all_is_wanted() {
    let cluster = Cluster::new(9_000, PAGES, false, |_| {});
    let tap = &cluster.taps[0];
    tap.open();
    let ahead: Vec<_> = (0..PAGES).rev().step_by(7).map(PageIndex).collect();
    assert_eq!(tap.process.prefetch(&ahead).unwrap(), ahead.len() as u32);
    let is_known =
        |page: &PageIndex| tap.image.state(*page) != snowflock_engine::memory::bitmap::PageState::Absent;
    for _ in 0..2_000 {
        if ahead.iter().all(is_known) {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(ahead.iter().all(is_known), "the working set came");
    let known = (0..PAGES).map(PageIndex).filter(is_known).count();
    assert_eq!(known, ahead.len(), "and nothing else");
    assert_eq!(tap.process.complete().unwrap(), PAGES - known as u32);
    assert_right(&tap.image);
}

#[test]
fn a_memtap_that_is_killed_has_a_successor_that_asks_only_for_what_is_missing() {
    let mut cluster = Cluster::new(9_000, PAGES, false, |_| {});
    let tap = &mut cluster.taps[0];
    tap.open();
    let half: Vec<_> = (0..PAGES / 2).map(PageIndex).collect();
    tap.process.prefetch(&half).unwrap();
    std::thread::sleep(Duration::from_millis(60));
    tap.replace();
    tap.process.open_remote(&tap.image, None, &tap.from, true).unwrap();
    tap.process.complete().unwrap();
    assert_right(&tap.image);
}

#[test]
fn a_memserver_that_is_killed_has_a_successor_that_receivers_find_again() {
    let mut cluster = Cluster::new(9_000, PAGES, false, |_| {});
    cluster.taps[0].open();
    cluster.taps[0].process.prefetch(&[PageIndex(1)]).unwrap();
    cluster.replace_server();
    cluster.taps[0].process.complete().unwrap();
    assert_right(&cluster.taps[0].image);
}

#[test]
fn who_has_the_wrong_key_gets_nothing_and_says_so() {
    let mut cluster = Cluster::new(9_000, PAGES, false, |_| {});
    let tap = &mut cluster.taps[0];
    tap.from.key = Key::random().unwrap();
    tap.open();
    let refused = std::thread::scope(|scope| {
        let completing = scope.spawn(|| tap.process.complete().unwrap_err().to_string());
        std::thread::sleep(Duration::from_millis(100));
        assert_eq!(tap.process.supply().unwrap().missing, PAGES, "others are answered meanwhile");
        assert!(!completing.is_finished());
        completing.join().unwrap()
    });
    assert!(refused.contains("3000 pages are still missing, and none has come for 10s"), "{refused}");
    assert_eq!(tap.image.count(), 0);
    assert!(cluster.server.stats().unwrap().distribution.refused > 0);
}

#[test]
fn what_cannot_be_distributed_or_fetched_is_refused_with_a_reason() {
    let mut cluster = Cluster::new(9_000, PAGES, false, |_| {});
    let mut to = cluster.to.clone();
    to.address = SocketAddrV4::new([192, 0, 2, 1].into(), 0);
    let refused =
        cluster.server.distribute(&cluster.parent.view, &Layers::default(), &to).unwrap_err().to_string();
    assert!(refused.contains("pages cannot be distributed: Cannot assign requested address"), "{refused}");
    let tap = &mut cluster.taps[0];
    tap.from.interface = [192, 0, 2, 1].into();
    let refused = tap.process.open_remote(&tap.image, None, &tap.from, false).unwrap_err().to_string();
    assert!(refused.contains("Cannot assign requested address"), "{refused}");
    let refused = tap.process.prefetch(&[PageIndex(0)]).unwrap_err().to_string();
    assert!(refused.contains("no checkpoint was opened"), "{refused}");
    cluster.server.end_distribution(cluster.to.distribution).unwrap();
    assert_eq!(cluster.server.stats().unwrap().distribution.datagrams, 0);
}

#[test]
fn the_first_word_tells_the_page() {
    assert_eq!(expected(PageIndex(0)), 0, "a page of zeros");
    assert_eq!(expected(PageIndex(8)), expected(PageIndex(1)), "a page like another");
    assert!(Network::group().ip().is_multicast());
}
