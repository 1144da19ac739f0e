//! A parent that takes many checkpoints: its chain of disk layers stays short, whoever still needs old ones.

use std::time::Duration;

use flurry_tests::engine::{Shape, TestEngine};
use flurry_tests::wait::{LONG, until_true};
use snowflock_engine::descriptor::Descriptor;
use snowflock_engine::memory::protocol::CheckpointId;

const MEMORY_MIB: u32 = 4;
const DISK_MIB: u32 = 6;
const CHECKPOINTS: u64 = 9;
/// The base image, the first layer, the one that was frozen last, and those that are not collapsed yet.
const LONGEST: usize = 6;
/// Time for the copying of a few MiB.
const PAUSE: Duration = Duration::from_millis(800);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_checkpoints_leave_a_short_chain_of_layers_and_all_clones_hold_what_they_should() {
    let engine = TestEngine::boot("layers", Shape::default()).await;
    let parent = engine.parent();
    let mut content = parent.fill(MEMORY_MIB, DISK_MIB, 1).await;
    let (mut newest, mut old) = (CheckpointId(0), None);
    for round in 1..=CHECKPOINTS {
        content = parent.overwrite(1 + round).await;
        newest = engine.sf_checkpoint_parent().await.unwrap();
        assert!(layers(&engine, newest) <= LONGEST, "after {round}: {}", layers(&engine, newest));
        if round == 3 {
            // It looks through layers that are collapsed later.
            let (id, clone) = engine.clone_of(newest).await;
            old = Some((id, clone, content.clone()));
        }
        tokio::time::sleep(PAUSE).await;
    }
    let (_, clone) = engine.clone_of(newest).await;
    assert_eq!(clone.content().await, content);
    let (old_id, old, held) = old.unwrap();
    assert_eq!(old.content().await, held, "a clone over layers that the parent has left");
    assert_eq!(parent.content().await, content);

    // Files go with the last who looks through them.
    let before = files(&engine);
    engine.sf_exit(old_id).await.unwrap();
    until_true("layers are removed", LONG, async || files(&engine) < before).await;
    assert!(files(&engine) <= LONGEST + 2, "{} files", files(&engine));
    assert_eq!(clone.content().await, content);
    engine.shut_down().await;
}

/// Layers of a checkpoint's disk, as its descriptor has them.
fn layers(engine: &TestEngine, checkpoint: CheckpointId) -> usize {
    let file = engine.site().folder().join(format!("checkpoint-{}.sfvd", checkpoint.0));
    Descriptor::read(&file).unwrap().disk.layers.len()
}

/// Layers of the parent that are stored.
fn files(engine: &TestEngine) -> usize {
    let entries = std::fs::read_dir(engine.site().folder().join("parent")).unwrap().flatten();
    entries.filter(|entry| entry.path().extension().is_some_and(|ending| ending == "qcow2")).count()
}
