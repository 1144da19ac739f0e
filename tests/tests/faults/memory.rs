//! Memory processes that are killed while guests need them, and shells and births cut short.

use std::sync::Arc;
use std::time::Duration;

use flurry_tests::engine::{Shape, TestEngine};
use flurry_tests::wait::{LONG, until, until_true};
use snowflock_engine::control::{CheckpointView, LifeState, MemoryServer, View};
use snowflock_engine::memory::protocol::CheckpointId;
use snowflock_engine::network::identity::CloneId;
use snowflock_engine::sys::process::ProcessIdentity;

const MEMORY_MIB: u32 = 24;
const DISK_MIB: u32 = 2;
const KILLS: u32 = 3;
const KILL_LIMIT: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_memtap_or_memserver_is_replaced_and_no_page_is_lost_or_wrong() {
    let engine = TestEngine::boot("memtap", Shape::default()).await;
    let parent = engine.parent();
    let first = parent.fill(MEMORY_MIB, DISK_MIB, 1).await;
    let id = engine.sf_checkpoint_parent().await.unwrap();
    let checkpoint = shown(&engine, id);

    // memtap dies again and again while two clones read what they have never read before.
    let clones = engine.clones(2, id).await;
    let reading = clones.iter().map(|clone| {
        let guest = engine.guest(*clone);
        tokio::spawn(async move { guest.content().await })
    });
    let reading: Vec<_> = reading.collect();
    for _ in 0..KILLS {
        clones_miss_pages(&checkpoint).await;
        kill_and_see_replaced(&checkpoint.memtap).await;
    }
    for read in reading {
        assert_eq!(read.await.unwrap(), first);
    }

    // The memserver dies again and again while the parent overwrites what is frozen.
    let memserver = engine.view().borrow().memserver.clone().unwrap();
    let second = engine.sf_checkpoint_parent().await.unwrap();
    let overwriting = parent.keep_overwriting(100);
    for _ in 0..KILLS {
        let saved = memserver.stats().unwrap().saved;
        let saves = async || memserver.stats().is_ok_and(|stats| stats.saved > saved);
        until_true("the memserver saves pages", LONG, saves).await;
        kill_and_see_replaced(&memserver).await;
    }
    let (_, clone) = engine.clone_of(second).await;
    assert_eq!(clone.content().await, first, "what was frozen while the memserver died");
    let (last, _) = overwriting.stop().await;
    assert_eq!(parent.content().await, last, "the parent's writes were let through");
    assert_eq!(clone.content().await, first);

    // A fork right after the death of the memtap that it needs.
    assert!(kill(checkpoint.memtap.pid()));
    let (_, late) = engine.clone_of(id).await;
    assert_eq!(late.content().await, first);
    engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clones_that_die_as_shells_or_at_birth_fail_with_a_reason_and_others_are_born() {
    let engine = TestEngine::boot("birth", Shape::default()).await;
    let checkpoint = engine.sf_checkpoint_parent().await.unwrap();

    // A waiting shell dies, and nobody has noticed when it is needed.
    let ticket = engine.ticket(1).await;
    let id = ticket.clones[0];
    let shell = until("its shell waits", LONG, async || engine.site().vm_process(id)).await;
    until_true("no shell is starting", LONG, async || engine.view().borrow().shells == 2).await;
    assert!(kill(shell.pid));
    let created = engine.sf_create_clones(ticket.id, checkpoint).await.unwrap();
    assert_eq!(created.joined, []);
    assert_failed(&engine, id, &created.failed).await;

    // One dies while it is born, beside a sibling that is not harmed.
    let ticket = engine.ticket(2).await;
    let (unlucky, lucky) = (ticket.clones[0], ticket.clones[1]);
    let mut view = engine.view();
    let (created, ()) = tokio::join!(engine.sf_create_clones(ticket.id, checkpoint), async {
        let being_born = |view: &Arc<View>| view.clone_with(unlucky).is_some_and(|clone| clone.pid.is_some());
        let pid = view.wait_for(being_born).await.unwrap().clone_with(unlucky).unwrap().pid;
        assert!(kill(pid.unwrap()));
    });
    let created = created.unwrap();
    assert_eq!(created.joined, [lucky]);
    assert_failed(&engine, unlucky, &created.failed).await;
    engine.guest(lucky).answers().await;

    // One dies in its best years.
    assert!(kill(engine.vm(lucky).pid.unwrap()));
    let LifeState::Failed(why) = engine.ends(lucky).await else { panic!("it was not retired") };
    assert!(why.contains("ended by itself"), "{why}");
    engine.clone_of(checkpoint).await;
    engine.shut_down().await;
}

/// It failed for a reason that names the VM, and has left no process.
async fn assert_failed(engine: &TestEngine, id: CloneId, failed: &[(CloneId, String)]) {
    let [(failed_id, why)] = failed else { panic!("one has failed, not {failed:?}") };
    assert_eq!(*failed_id, id);
    assert!(!why.is_empty());
    assert_eq!(engine.ends(id).await, LifeState::Failed(why.clone()));
    let gone = async || engine.site().vm_process(id).is_none();
    until_true("its process is gone", LONG, gone).await;
}

fn shown(engine: &TestEngine, id: CheckpointId) -> CheckpointView {
    let view = engine.view().borrow().clone();
    view.checkpoints.iter().find(|shown| shown.id == id).expect("it lives").clone()
}

/// Waits until some hundred more pages have come in, of many that are still to come.
async fn clones_miss_pages(checkpoint: &CheckpointView) {
    let before = checkpoint.image.count();
    let more = async || checkpoint.image.count() > before + 300;
    until_true("clones miss pages", LONG, more).await;
}

async fn kill_and_see_replaced(server: &MemoryServer) {
    let (pid, replaced) = (server.pid(), server.replaced());
    assert!(kill(pid));
    until_true("it is replaced", LONG, async || server.replaced() > replaced).await;
    assert_ne!(server.pid(), pid);
}

fn kill(pid: u32) -> bool {
    ProcessIdentity::of(pid).is_some_and(|process| process.kill(KILL_LIMIT))
}
