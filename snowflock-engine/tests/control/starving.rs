//! Clones whose pages stop coming.

use std::time::Duration;

use snowflock_engine::control::LifeState;
use snowflock_engine::memory::PageIndex;
use snowflock_engine::memory::protocol::CheckpointId;
use snowflock_engine::network::identity::CloneId;
use snowflock_engine::sys::process::ProcessIdentity;

use crate::stage::{LONG, Stage};

const FIRST: CloneId = CloneId(1);
const SECOND: CloneId = CloneId(2);
/// All pages of a VM but the last one, which its agent has.
const PAGES: u32 = 1023;
const FROZEN: u64 = 7;

/// A clone of a parent with known memory.
async fn with_clone(word: &str) -> (Stage, CheckpointId) {
    let stage = Stage::set(word, 0).await;
    stage.vcpu(CloneId::PARENT).write(0, PAGES, 0, FROZEN).unwrap();
    let checkpoint = stage.engine.sf_checkpoint_parent().await.unwrap();
    give_birth(&stage, checkpoint).await;
    (stage, checkpoint)
}

async fn give_birth(stage: &Stage, from: CheckpointId) -> CloneId {
    let ticket = stage.ticket(1).await;
    stage.next_shell(true);
    let created = stage.engine.sf_create_clones(ticket.id, from).await.unwrap();
    assert_eq!(created.joined, ticket.clones, "{created:?}");
    ticket.clones[0]
}

fn kill_memtap(stage: &Stage) {
    let pid = stage.engine.view().borrow().checkpoints[0].memtap.pid();
    assert!(ProcessIdentity::of(pid).unwrap().kill(LONG));
}

fn assert_right(stage: &Stage, id: CloneId) {
    let verdict = stage.vcpu(id).check(0, PAGES, 3, FROZEN).unwrap();
    assert_eq!((verdict.checked, verdict.wrong), (PAGES, 0), "{id}: {verdict:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_whose_memtap_cannot_be_started_again_fails_with_the_reason_and_another_replaces_it() {
    let (stage, checkpoint) = with_clone("starves").await;
    stage.has_memtap(false);
    kill_memtap(&stage);
    let vcpu = stage.vcpu(FIRST);
    let reads = tokio::task::spawn_blocking(move || vcpu.check(0, PAGES, 3, FROZEN));
    let failed =
        |state: &LifeState| matches!(state, LifeState::Failed(why) if why.contains("its pages stop coming"));
    stage.sees("it has failed", |view| failed(&view.clone_with(FIRST).unwrap().state)).await;
    assert!(reads.await.unwrap().is_err(), "whoever waited for it is let go");
    let LifeState::Failed(why) = stage.state(FIRST) else { panic!("it lives") };
    assert!(why.contains("cannot start"), "{why}");
    assert_eq!(stage.engine.view().borrow().starved_total, 1);
    stage.clears_away(FIRST).await;
    // The host is well again: the same checkpoint still serves.
    stage.has_memtap(true);
    let next = give_birth(&stage, checkpoint).await;
    assert_right(&stage, next);
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_that_has_all_pages_lives_on_without_a_memtap() {
    let (stage, checkpoint) = with_clone("complete").await;
    let memtap = stage.engine.view().borrow().checkpoints[0].memtap.clone();
    // Zeros, too, which the memtap would have to give otherwise.
    let all: Vec<PageIndex> = (0..=PAGES).map(PageIndex).collect();
    memtap.prefetch(&all).unwrap();
    stage.has_memtap(false);
    kill_memtap(&stage);
    tokio::time::sleep(snowflock_engine::control::PAGE_LIMIT + Duration::from_secs(2)).await;
    assert_eq!(stage.state(FIRST), LifeState::Joined);
    stage.has_memtap(true);
    assert_right(&stage, FIRST);
    give_birth(&stage, checkpoint).await;
    assert_right(&stage, SECOND);
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_memtap_that_is_away_for_less_than_the_limit_costs_a_pause_only() {
    let (stage, _) = with_clone("pause").await;
    stage.has_memtap(false);
    kill_memtap(&stage);
    let vcpu = stage.vcpu(FIRST);
    let reads = tokio::task::spawn_blocking(move || vcpu.check(0, PAGES, 3, FROZEN));
    tokio::time::sleep(Duration::from_secs(2)).await;
    stage.has_memtap(true);
    assert_eq!(reads.await.unwrap().unwrap().wrong, 0);
    assert_eq!((stage.state(FIRST), stage.engine.view().borrow().starved_total), (LifeState::Joined, 0));
    stage.clear().await;
}
