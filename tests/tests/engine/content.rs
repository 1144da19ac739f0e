//! Memory and disk of clones, summed up inside the guests while others overwrite theirs.

use std::collections::BTreeSet;

use flurry_tests::engine::{Shape, TestEngine};
use flurry_tests::wait::{LONG, until_true};

const MEMORY_MIB: u32 = 12;
const DISK_MIB: u32 = 6;
/// Takes a guest long enough to overwrite that a fork falls into it.
const LARGE_MIB: u32 = 48;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clones_hold_what_their_parent_held_whoever_overwrites_it_meanwhile() {
    let engine = TestEngine::boot("content", Shape::default()).await;
    let parent = engine.parent();
    let first = parent.fill(MEMORY_MIB, DISK_MIB, 1).await;
    let checkpoint = engine.sf_checkpoint_parent().await.unwrap();

    // The parent overwrites all of it while two clones are made and read theirs.
    let overwriting = parent.keep_overwriting(100);
    let (_, one) = engine.clone_of(checkpoint).await;
    let (_, other) = engine.clone_of(checkpoint).await;
    assert_eq!(one.content().await, first, "a clone beside a parent that writes");

    // A sibling overwrites, too.
    let (ours, theirs) = tokio::join!(one.overwrite(2), other.content());
    assert_eq!(theirs, first, "a clone beside a sibling that writes");
    let (last, rounds) = overwriting.stop().await;
    assert!(rounds > 0);
    assert_eq!(one.content().await, ours, "what a clone has written is its own");
    assert_eq!(other.content().await, first);
    assert_eq!(parent.content().await, last, "no clone writes to its parent");
    assert_eq!(BTreeSet::from([&first.memory, &ours.memory, &last.memory]).len(), 3);
    assert_eq!(BTreeSet::from([&first.disk, &ours.disk, &last.disk]).len(), 3);

    // A second checkpoint is of the parent as it is now; the first one stays what it was.
    let second = engine.sf_checkpoint_parent().await.unwrap();
    let overwriting = parent.keep_overwriting(200);
    let (_, newer) = engine.clone_of(second).await;
    let (_, older) = engine.clone_of(checkpoint).await;
    assert_eq!(newer.content().await, last);
    assert_eq!(older.content().await, first);
    overwriting.stop().await;
    engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_of_a_clone_holds_the_clones_own_changes_even_after_its_end() {
    let engine = TestEngine::boot("grandchild", Shape::default()).await;
    let parent = engine.parent();
    parent.fill(MEMORY_MIB, DISK_MIB, 1).await;
    let checkpoint = engine.sf_checkpoint_parent().await.unwrap();
    let (child_id, child) = engine.clone_of(checkpoint).await;
    let changed = child.overwrite(2).await;

    // Forked in its changed state, and both generations before overwrite theirs at once.
    let of_child = engine.checkpoint(child_id).await.unwrap();
    let writers = [parent.keep_overwriting(100), child.keep_overwriting(200)];
    let (grandchild_id, grandchild) = engine.clone_of(of_child).await;
    assert_eq!(grandchild.content().await, changed);
    for writer in writers {
        writer.stop().await;
    }

    // One more generation, made from pages of three VMs.
    let own = grandchild.overwrite(3).await;
    let of_grandchild = engine.checkpoint(grandchild_id).await.unwrap();
    let writer = grandchild.keep_overwriting(300);
    let (_, third) = engine.clone_of(of_grandchild).await;
    assert_eq!(third.content().await, own);
    writer.stop().await;

    // The clone in the middle ends: whatever others still need of it stays.
    let (_, late) = engine.clone_of(of_child).await;
    engine.sf_exit(child_id).await.unwrap();
    assert_eq!(late.content().await, changed, "a clone whose parent has ended");
    let (_, later) = engine.clone_of(of_child).await;
    assert_eq!(later.content().await, changed, "a clone made after its parent's end");
    engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_with_two_processors_is_forked_in_the_middle_of_its_work() {
    let engine = TestEngine::boot("two", Shape { vcpus: 2, ..Shape::default() }).await;
    let parent = engine.parent();
    parent.fill(LARGE_MIB, DISK_MIB, 1).await;
    engine.sf_checkpoint_parent().await.unwrap();
    let memserver = engine.view().borrow().memserver.clone().unwrap();
    let saved = || memserver.stats().unwrap().saved;

    // One processor overwrites memory, the other computes items; a tenth of the way, the fork.
    let before = saved();
    let work = ["/memory/overwrite?seed=7", "/item/1001", "/item/1002"].map(|path| {
        let parent = parent.clone();
        tokio::spawn(async move { parent.json(path).await["digest"].clone() })
    });
    let tenth = u64::from(LARGE_MIB) * 256 / 10;
    until_true("a tenth is overwritten", LONG, async || saved() > before + tenth).await;
    let checkpoint = engine.sf_checkpoint_parent().await.unwrap();
    assert!(!work[0].is_finished(), "the fork came too late to be in the middle");
    let clones = engine.clones(2, checkpoint).await;
    let [memory, first, second] = work;
    let (memory, first, second) = (memory.await.unwrap(), first.await.unwrap(), second.await.unwrap());

    // What was under way goes on in each clone on both processors, and comes to the same end.
    for id in clones {
        let clone = engine.guest(id);
        let [sum, one, other] = ["/memory/checksum", "/item/1001", "/item/1002"].map(|path| clone.json(path));
        let (sum, one, other) = tokio::join!(sum, one, other);
        assert_eq!(sum["digest"], memory, "{id} finishes what its parent began");
        assert_eq!((&one["digest"], &other["digest"]), (&first, &second));
    }
    engine.shut_down().await;
}
