//! What clones of one checkpoint share, and what they do not.

use snowflock_engine::hypervisor::plain::content::ZERO;

use crate::world::{World, seed};

const PAGES: u32 = 2048;

#[test]
fn eight_siblings_fetch_each_page_once() {
    let (seed, world) = (seed(), World::new(PAGES));
    let mut parent = world.boot();
    parent.vcpu().write(0, PAGES, 0, seed).unwrap();
    let checkpoint = world.checkpoint(&mut parent);
    let siblings: Vec<_> = (0..8).map(|_| world.clone_of(&checkpoint)).collect();
    let touched = 1000;
    std::thread::scope(|scope| {
        for (number, sibling) in siblings.iter().enumerate() {
            // Half of them go the same way at the same time, so that their faults meet.
            let order = seed + (number as u64 % 4);
            scope.spawn(move || sibling.assert_holds(500, touched, order, seed));
        }
    });
    let stats = checkpoint.pager();
    assert_eq!((stats.fetched, stats.repeated, stats.present), (u64::from(touched), 0, touched), "{stats:?}");
    assert!(stats.faults >= stats.fetched);
}

#[test]
fn siblings_do_not_see_each_others_writes_nor_does_the_image() {
    let (seed, world) = (seed(), World::new(512));
    let mut parent = world.boot();
    parent.vcpu().write(0, 512, 0, seed).unwrap();
    let checkpoint = world.checkpoint(&mut parent);
    let siblings: Vec<_> = (0..4).map(|_| world.clone_of(&checkpoint)).collect();
    std::thread::scope(|scope| {
        for (number, sibling) in (1..).zip(&siblings) {
            scope.spawn(move || sibling.vcpu().write(0, 400, seed + number, seed + number).unwrap());
        }
    });
    for (number, sibling) in (1..).zip(&siblings) {
        sibling.assert_holds(0, 400, 0, seed + number);
        sibling.assert_holds(400, 112, 0, seed);
    }
    world.clone_of(&checkpoint).assert_holds(0, 512, 0, seed);
    parent.assert_holds(0, 512, 0, seed);
}

#[test]
fn a_clone_costs_the_pages_that_it_writes() {
    let (seed, world) = (seed(), World::new(512));
    let mut parent = world.boot();
    parent.vcpu().write(0, 512, 0, seed).unwrap();
    let checkpoint = world.checkpoint(&mut parent);
    let clone = world.clone_of(&checkpoint);
    let private = || clone.vm.lock().unwrap().memory().private_pages();
    clone.assert_holds(0, 512, seed, seed);
    let memory = clone.vm.lock().unwrap().memory();
    memory.hand_over().unwrap();
    assert_eq!(memory.private_pages(), Some(0), "it only read");
    clone.vcpu().write(10, 30, 0, seed + 1).unwrap();
    assert_eq!(private(), Some(30));
}

#[test]
fn zero_pages_cost_no_image_page() {
    let (seed, world) = (seed(), World::new(PAGES));
    let mut parent = world.boot();
    parent.vcpu().write(0, 100, 0, seed).unwrap();
    // Written with zeros, so the RAM file holds them, unlike those beyond.
    parent.vcpu().write(100, 100, 0, ZERO).unwrap();
    let checkpoint = world.checkpoint(&mut parent);
    let (first, second) = (world.clone_of(&checkpoint), world.clone_of(&checkpoint));
    first.assert_holds(100, PAGES - 100, seed, ZERO);
    assert_eq!(checkpoint.image.count(), 0);
    let stats = checkpoint.pager();
    assert_eq!((stats.zero, stats.fetched), (u64::from(PAGES) - 100, 0));
    // A fault by a write, and a write to a zero page that was read before.
    second.vcpu().write(100, 50, seed, seed + 1).unwrap();
    first.vcpu().write(150, 50, seed, seed + 2).unwrap();
    first.assert_holds(150, 50, 0, seed + 2);
    first.assert_holds(100, 50, 0, ZERO);
    second.assert_holds(100, 50, 0, seed + 1);
    second.assert_holds(150, 50, 0, ZERO);
    assert_eq!(checkpoint.image.count(), 0);
}

#[test]
fn zero_pages_that_the_parent_overwrites_stay_zero_and_free_for_its_clones() {
    let (seed, world) = (seed(), World::new(PAGES));
    let mut parent = world.boot();
    parent.vcpu().write(0, 100, 0, ZERO).unwrap();
    let checkpoint = world.checkpoint(&mut parent);
    parent.vcpu().write(0, PAGES, seed, seed).unwrap();
    let saved = parent.keeper.stats().unwrap().saved;
    assert_eq!(
        (saved, checkpoint.image.count()),
        (100, 0),
        "what it had never touched is not even protected"
    );
    world.clone_of(&checkpoint).assert_holds(0, PAGES, seed, ZERO);
}

#[test]
fn a_frozen_clone_gets_zero_pages_that_its_own_clones_see_as_they_were() {
    let (seed, world) = (seed(), World::new(256));
    let mut parent = world.boot();
    parent.vcpu().write(0, 16, 0, seed).unwrap();
    let first = world.checkpoint(&mut parent);
    let mut child = world.clone_of(&first);
    child.assert_holds(0, 16, 0, seed);
    child.assert_holds(16, 48, 0, ZERO);
    let second = world.checkpoint(&mut child);
    // Read and then written, or written at once, after the freeze.
    child.assert_holds(100, 50, 0, ZERO);
    child.vcpu().write(16, 240, seed, seed + 1).unwrap();
    world.clone_of(&second).assert_holds(16, 240, seed, ZERO);
    child.assert_holds(16, 240, 0, seed + 1);
}

#[test]
fn a_recorded_working_set_saves_the_next_checkpoints_clone_its_faults() {
    let (seed, world) = (seed(), World::new(PAGES));
    let mut parent = world.boot();
    parent.vcpu().write(0, PAGES / 2, 0, seed).unwrap();
    let first = world.checkpoint(&mut parent);
    let clone = world.clone_of(&first);
    clone.assert_holds(300, 200, seed, seed);
    clone.assert_holds(PAGES / 2, 100, seed, ZERO);
    let record = first.memtap.take_record().unwrap();
    assert_eq!(record.len(), 300, "first touches only");
    assert_eq!(record[200..].iter().min().unwrap().0, PAGES / 2, "in their order");

    parent.vcpu().write(300, 50, 0, seed + 1).unwrap();
    let second = world.checkpoint(&mut parent);
    assert_eq!(second.memtap.prefetch(&record).unwrap(), 300);
    assert_eq!(second.memtap.prefetch(&record).unwrap(), 0, "it has them");
    let clone = world.clone_of(&second);
    clone.assert_holds(300, 50, seed, seed + 1);
    clone.assert_holds(350, 150, seed, seed);
    clone.assert_holds(PAGES / 2, 100, seed, ZERO);
    let stats = second.pager();
    assert_eq!((stats.faults, stats.prefetched), (0, 300), "{stats:?}");
    assert!(second.memtap.take_record().unwrap().is_empty());
    assert!(second.memtap.take_record().unwrap().is_empty(), "the record ended with the first call");
}

#[test]
fn faults_are_timed() {
    let (seed, world) = (seed(), World::new(256));
    let mut parent = world.boot();
    parent.vcpu().write(0, 256, 0, seed).unwrap();
    let checkpoint = world.checkpoint(&mut parent);
    assert_eq!(checkpoint.pager().service_p50_us, None, "nothing happened yet");
    world.clone_of(&checkpoint).assert_holds(0, 256, 0, seed);
    let stats = checkpoint.pager();
    assert!(stats.service_p50_us >= Some(1) && stats.service_p99_us >= stats.service_p50_us, "{stats:?}");
}
