//! A clone sees its parent as it was, whatever the parent does.

use snowflock_engine::hypervisor::plain::content::ZERO;

use crate::world::{World, seed};

const PAGES: u32 = 2048;

#[test]
fn a_clone_reads_its_parents_memory_as_it_was_while_the_parent_overwrites_all() {
    let seed = seed();
    for round in 0..4 {
        let (old, new) = (seed + 2 * round, seed + 2 * round + 1);
        let world = World::new(PAGES);
        let mut parent = world.boot();
        parent.vcpu().write(0, PAGES, old, old).unwrap();
        let checkpoint = world.checkpoint(&mut parent);
        let clone = world.clone_of(&checkpoint);
        std::thread::scope(|scope| {
            scope.spawn(|| parent.vcpu().write(0, PAGES, new, new).unwrap());
            clone.assert_holds(0, PAGES, old ^ new, old);
        });
        parent.assert_holds(0, PAGES, 0, new);
        clone.assert_holds(0, PAGES, 0, old);
    }
}

#[test]
fn four_vcpus_of_a_clone_read_right_while_two_of_the_parent_write() {
    let seed = seed();
    for round in 0..4 {
        let (old, new, order) = (seed + round, seed + 1000 + round, seed + 2000 + round);
        let world = World::new(PAGES);
        let mut parent = world.boot();
        parent.vcpu().write(0, PAGES, 0, old).unwrap();
        let checkpoint = world.checkpoint(&mut parent);
        let clone = world.clone_of(&checkpoint);
        std::thread::scope(|scope| {
            let (parent, clone) = (&parent, &clone);
            for writer in 0..2 {
                scope.spawn(move || parent.vcpu().write(0, PAGES, order + writer, new).unwrap());
            }
            for reader in 0..4 {
                scope.spawn(move || clone.assert_holds(0, PAGES, order + 10 + reader, old));
            }
        });
        parent.assert_holds(0, PAGES, 0, new);
    }
}

#[test]
fn a_clone_goes_on_exactly_as_its_parent_does() {
    let seed = seed();
    let world = World::new(512);
    let mut parent = world.boot();
    parent.vcpu().write(0, 512, 0, seed).unwrap();
    parent.vcpu().run(5_000).unwrap();
    let checkpoint = world.checkpoint(&mut parent);
    let clone = world.clone_of(&checkpoint);
    assert_eq!(clone.vcpu().registers().unwrap().steps, 5_000);
    let registers = parent.vcpu().run(20_000).unwrap();
    assert_eq!(clone.vcpu().run(20_000).unwrap(), registers);
    assert_eq!(clone.vcpu().sum().unwrap(), parent.vcpu().sum().unwrap());
    parent.vcpu().run(1).unwrap();
    assert_ne!(clone.vcpu().registers().unwrap(), parent.vcpu().registers().unwrap());
}

#[test]
fn two_checkpoints_of_one_parent_each_see_their_own_time() {
    let (seed, world) = (seed(), World::new(PAGES));
    let mut parent = world.boot();
    let vcpu = parent.vcpu();
    vcpu.write(0, PAGES, 0, seed).unwrap();
    let first = world.checkpoint(&mut parent);
    // Half of memory changes between them, so both share the other half.
    vcpu.write(0, PAGES / 2, seed, seed + 1).unwrap();
    let second = world.checkpoint(&mut parent);
    let (early, late) = (world.clone_of(&first), world.clone_of(&second));
    std::thread::scope(|scope| {
        scope.spawn(|| parent.vcpu().write(0, PAGES, seed + 3, seed + 2).unwrap());
        scope.spawn(|| early.assert_holds(0, PAGES, seed + 4, seed));
        late.assert_holds(0, PAGES / 2, seed + 5, seed + 1);
        late.assert_holds(PAGES / 2, PAGES / 2, seed + 6, seed);
    });
    parent.assert_holds(0, PAGES, 0, seed + 2);
}

#[test]
fn a_thawed_checkpoint_costs_no_more_and_does_not_disturb_the_other() {
    let (seed, world) = (seed(), World::new(256));
    let mut parent = world.boot();
    parent.vcpu().write(0, 256, 0, seed).unwrap();
    let (first, second) = (world.checkpoint(&mut parent), world.checkpoint(&mut parent));
    parent.keeper.thaw(parent.id, first.id);
    parent.vcpu().write(0, 128, 0, seed + 1).unwrap();
    assert_eq!((first.image.count(), second.image.count()), (0, 128));
    world.clone_of(&second).assert_holds(0, 256, seed, seed);
    parent.keeper.thaw(parent.id, second.id);
    let before = second.image.count();
    parent.vcpu().write(0, 256, 0, seed + 2).unwrap();
    assert_eq!((second.image.count(), parent.keeper.stats().unwrap().saved), (before, 128));
}

#[test]
fn a_clone_of_a_clone_of_a_clone_sees_its_time_while_all_ancestors_overwrite() {
    let seed = seed();
    for round in 0..3 {
        let (at, world) = (|k: u64| seed + 100 * round + k, World::new(PAGES));
        let quarter = PAGES / 4;
        let mut parent = world.boot();
        parent.vcpu().write(0, PAGES, 0, at(0)).unwrap();
        let first = world.checkpoint(&mut parent);
        let mut child = world.clone_of(&first);
        child.vcpu().write(quarter, quarter, at(1), at(1)).unwrap();
        child.assert_holds(0, quarter / 2, at(2), at(0));
        let second = world.checkpoint(&mut child);
        let mut grandchild = world.clone_of(&second);
        grandchild.vcpu().write(2 * quarter, quarter, at(3), at(2)).unwrap();
        let third = world.checkpoint(&mut grandchild);
        let last = world.clone_of(&third);
        std::thread::scope(|scope| {
            scope.spawn(|| parent.vcpu().write(0, PAGES, at(4), at(11)).unwrap());
            scope.spawn(|| child.vcpu().write(0, PAGES, at(5), at(12)).unwrap());
            scope.spawn(|| grandchild.vcpu().write(0, PAGES, at(6), at(13)).unwrap());
            last.assert_holds(0, quarter, at(7), at(0));
            last.assert_holds(quarter, quarter, at(8), at(1));
            last.assert_holds(2 * quarter, quarter, at(9), at(2));
            last.assert_holds(3 * quarter, quarter, at(10), at(0));
        });
        // A second reader finds the same, now that everything has changed.
        let sibling = world.clone_of(&third);
        sibling.assert_holds(quarter, quarter, 0, at(1));
        sibling.assert_holds(2 * quarter, quarter, 0, at(2));
        parent.assert_holds(0, PAGES, 0, at(11));
        child.assert_holds(0, PAGES, 0, at(12));
        grandchild.assert_holds(0, PAGES, 0, at(13));
    }
}

#[test]
fn an_ancestor_may_end_once_its_checkpoint_is_complete() {
    let (seed, world) = (seed(), World::new(PAGES));
    let mut parent = world.boot();
    parent.vcpu().write(0, PAGES, 0, seed).unwrap();
    parent.vcpu().write(0, 64, 0, ZERO).unwrap();
    let first = world.checkpoint(&mut parent);
    let mut child = world.clone_of(&first);
    child.vcpu().write(PAGES / 2, 100, 0, seed + 1).unwrap();
    let second = world.checkpoint(&mut child);
    let grandchild = world.clone_of(&second);
    grandchild.assert_holds(64, 10, 0, seed);
    second.memtap.complete().unwrap();
    drop(child);
    drop(parent);
    grandchild.assert_holds(0, 64, seed, ZERO);
    grandchild.assert_holds(64, PAGES / 2 - 64, seed, seed);
    grandchild.assert_holds(PAGES / 2, 100, seed, seed + 1);
    grandchild.assert_holds(PAGES / 2 + 100, PAGES / 2 - 100, seed, seed);
}
