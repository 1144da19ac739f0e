//! A memory process is killed while guests need it: its successor takes over,
//! and the guests notice a pause at most.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use snowflock_engine::control::MemoryServer;
use snowflock_engine::sys::process::ProcessIdentity;

use crate::world::{World, eventually, seed};

const PAGES: u32 = 4096;
const KILLS: u64 = 4;

fn kill(server: &MemoryServer) {
    let identity = ProcessIdentity::of(server.pid()).unwrap();
    assert!(identity.kill(Duration::from_secs(5)));
}

/// Kills the process of a server again and again until `done`; at least once.
fn keep_killing(server: &Arc<MemoryServer>, done: &AtomicBool) {
    for round in 0..KILLS {
        std::thread::sleep(Duration::from_millis(3 + 2 * round));
        if round > 0 && done.load(Ordering::Relaxed) {
            return;
        }
        let before = server.replaced();
        kill(server);
        eventually("a successor", || server.replaced() > before);
    }
}

#[test]
fn a_clone_reads_on_when_memtap_is_killed() {
    let seed = seed();
    for round in 0..3 {
        let world = World::new(PAGES);
        let mut parent = world.boot();
        parent.vcpu().write(0, PAGES, 0, seed).unwrap();
        parent.vcpu().write(0, PAGES / 8, 0, 0).unwrap();
        let checkpoint = world.checkpoint(&mut parent);
        let clones = [world.clone_of(&checkpoint), world.clone_of(&checkpoint)];
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| keep_killing(&checkpoint.memtap, &done));
            scope.spawn(|| parent.vcpu().write(0, PAGES, seed + round, seed + 1).unwrap());
            let readers: Vec<_> = clones
                .iter()
                .flat_map(|clone| [(clone, 1), (clone, 2)])
                .map(|(clone, vcpu)| {
                    scope.spawn(move || {
                        clone.assert_holds(0, PAGES / 8, seed + vcpu, 0);
                        clone.assert_holds(PAGES / 8, PAGES / 8 * 7, seed + vcpu, seed);
                    })
                })
                .collect();
            readers.into_iter().for_each(|reader| reader.join().unwrap());
            done.store(true, Ordering::Relaxed);
        });
        assert!(checkpoint.memtap.replaced() >= 1);
        assert_eq!(checkpoint.memtap.stats().unwrap().saved, 0, "the successor answers");
    }
}

#[test]
fn the_frozen_view_stays_right_when_the_memserver_is_killed() {
    let seed = seed();
    for round in 0..3 {
        let world = World::new(PAGES);
        let mut parent = world.boot();
        parent.vcpu().write(0, PAGES, 0, seed).unwrap();
        let first = world.checkpoint(&mut parent);
        parent.vcpu().write(0, 100, 0, seed + 1).unwrap();
        let second = world.checkpoint(&mut parent);
        let (early, late) = (world.clone_of(&first), world.clone_of(&second));
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let (parent, early, late) = (&parent, &early, &late);
            scope.spawn(|| keep_killing(&parent.keeper, &done));
            scope.spawn(move || early.assert_holds(0, PAGES, seed + 9, seed));
            scope.spawn(move || late.assert_holds(100, PAGES - 100, seed + 10, seed));
            let writers: Vec<_> = (0..2)
                .map(|vcpu| scope.spawn(move || parent.vcpu().write(0, PAGES, seed + round + vcpu, seed + 2)))
                .collect();
            writers.into_iter().for_each(|writer| writer.join().unwrap().unwrap());
            done.store(true, Ordering::Relaxed);
        });
        assert!(parent.keeper.replaced() >= 1);
        early.assert_holds(0, PAGES, 0, seed);
        late.assert_holds(0, 100, 0, seed + 1);
        late.assert_holds(100, PAGES - 100, 0, seed);
        parent.assert_holds(0, PAGES, 0, seed + 2);
    }
}

#[test]
fn a_forked_clone_and_its_clone_go_on_when_the_memtap_between_them_is_killed() {
    let (seed, world) = (seed(), World::new(PAGES));
    let mut parent = world.boot();
    parent.vcpu().write(0, PAGES, 0, seed).unwrap();
    let first = world.checkpoint(&mut parent);
    let mut child = world.clone_of(&first);
    child.vcpu().write(0, PAGES / 2, seed, seed + 1).unwrap();
    let second = world.checkpoint(&mut child);
    let grandchild = world.clone_of(&second);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        // It serves the child's absent pages, and saves the child's frozen ones.
        scope.spawn(|| keep_killing(&first.memtap, &done));
        scope.spawn(|| parent.vcpu().write(0, PAGES, seed + 3, seed + 2).unwrap());
        let writer = scope.spawn(|| child.vcpu().write(0, PAGES, seed + 4, seed + 3).unwrap());
        grandchild.assert_holds(0, PAGES / 2, seed + 5, seed + 1);
        grandchild.assert_holds(PAGES / 2, PAGES / 2, seed + 6, seed);
        writer.join().unwrap();
        done.store(true, Ordering::Relaxed);
    });
    assert!(first.memtap.replaced() >= 1);
    child.assert_holds(0, PAGES, 0, seed + 3);
    world.clone_of(&second).assert_holds(0, PAGES / 2, seed, seed + 1);
}

#[test]
fn a_checkpoint_taken_just_after_a_crash_is_served_by_the_successor() {
    let (seed, world) = (seed(), World::new(256));
    let mut parent = world.boot();
    parent.vcpu().write(0, 256, 0, seed).unwrap();
    kill(&parent.keeper);
    let checkpoint = world.checkpoint(&mut parent);
    kill(&checkpoint.memtap);
    let clone = world.clone_of(&checkpoint);
    parent.vcpu().write(0, 256, seed, seed + 1).unwrap();
    clone.assert_holds(0, 256, 0, seed);
    assert!(parent.keeper.replaced() == 1 && checkpoint.memtap.replaced() == 1);
}
