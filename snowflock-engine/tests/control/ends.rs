//! Clones and shells that end before they have begun.

use std::sync::Arc;
use std::time::Duration;

use snowflock_engine::control::{LifeState, Ticket, View};
use snowflock_engine::memory::protocol::CheckpointId;
use snowflock_engine::network::identity::CloneId;

use crate::stage::{LONG, Stage};

const FIRST: CloneId = CloneId(1);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_promised_clone_without_a_shell_exits_at_once_and_its_ticket_says_so() {
    let stage = Stage::set("promised", 0).await;
    let checkpoint = stage.engine.sf_checkpoint_parent().await.unwrap();
    // The first shell is starting, the second is only ordered.
    let ticket = stage.ticket(2).await;
    stage.engine.sf_exit(ticket.clones[1]).await.unwrap();
    assert_eq!(stage.state(ticket.clones[1]), LifeState::Gone);
    stage.next_shell(true);
    let created = stage.engine.sf_create_clones(ticket.id, checkpoint).await.unwrap();
    assert_eq!(created.joined, [ticket.clones[0]]);
    assert_eq!(created.failed.len(), 1, "{created:?}");
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_clone_that_exits_while_its_shell_starts_leaves_no_shell() {
    let stage = Stage::set("starting", 0).await;
    let checkpoint = stage.engine.sf_checkpoint_parent().await.unwrap();
    let ticket = stage.ticket(1).await;
    let (created, exited, ()) = tokio::join!(
        stage.engine.sf_create_clones(ticket.id, checkpoint),
        async {
            stage.sees("the clone is wanted", |view| view.clones[0].checkpoint.is_some()).await;
            stage.engine.sf_exit(FIRST).await
        },
        async {
            stage.sees("it is retiring", |view| view.clones[0].state == LifeState::Retiring).await;
            stage.next_shell(true);
        }
    );
    exited.unwrap();
    assert_eq!(created.unwrap().failed, [(FIRST, "ended before it was born".into())]);
    assert!(!stage.has_folder(FIRST));
    assert_eq!((stage.state(FIRST), stage.engine.view().borrow().shells), (LifeState::Gone, 0));
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exit_returns_though_the_shell_of_the_clone_does_not_start() {
    let stage = Stage::set("noshell", 0).await;
    stage.ticket(1).await;
    let (exited, ()) = tokio::join!(stage.engine.sf_exit(FIRST), async {
        stage.sees("it is retiring", |view| view.clones[0].state == LifeState::Retiring).await;
        stage.next_shell(false);
    });
    exited.unwrap();
    assert_eq!((stage.state(FIRST), stage.has_folder(FIRST)), (LifeState::Gone, false));
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_shell_that_does_not_start_fails_its_clone_with_the_reason() {
    let stage = Stage::set("refused", 0).await;
    let checkpoint = stage.engine.sf_checkpoint_parent().await.unwrap();
    let ticket = stage.ticket(1).await;
    stage.next_shell(false);
    let created = stage.engine.sf_create_clones(ticket.id, checkpoint).await.unwrap();
    let [(FIRST, why)] = &created.failed[..] else { panic!("{created:?}") };
    assert!(why.contains("the test does not want one"), "{why}");
    assert!(matches!(stage.state(FIRST), LifeState::Failed(_)));
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_shell_that_dies_is_replaced_and_the_clone_it_was_promised_for_has_failed() {
    let stage = Stage::set("dies", 1).await;
    let checkpoint = stage.engine.sf_checkpoint_parent().await.unwrap();
    stage.next_shell(true);
    stage.sees("a shell waits", |view| view.shells == 1).await;
    let ticket = stage.ticket(1).await;
    stage.kill(FIRST);
    let failed = |state: &LifeState| matches!(state, LifeState::Failed(_) | LifeState::Gone);
    stage.sees("the clone has failed", |view| failed(&view.clone_with(FIRST).unwrap().state)).await;
    stage.next_shell(true);
    stage.sees("another waits", |view| view.shells == 1).await;
    let created = stage.engine.sf_create_clones(ticket.id, checkpoint).await.unwrap();
    assert_eq!(created.failed, [(FIRST, "its shell has ended by itself".into())]);
    stage.clears_away(FIRST).await;
    let ticket = stage.ticket(1).await;
    let created = stage.engine.sf_create_clones(ticket.id, checkpoint).await.unwrap();
    assert_eq!(created.joined, ticket.clones);
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_shells_of_a_killed_ticket_serve_the_next_even_if_they_were_still_starting() {
    let stage = Stage::set("killed", 0).await;
    let checkpoint = stage.engine.sf_checkpoint_parent().await.unwrap();
    let ticket = stage.ticket(1).await;
    stage.engine.sf_kill(ticket.id).await.unwrap();
    stage.next_shell(true);
    stage.sees("the shell waits", |view| view.shells == 1).await;
    let next = stage.ticket(1).await;
    assert_eq!(next.clones, ticket.clones);
    let created = stage.engine.sf_create_clones(next.id, checkpoint).await.unwrap();
    assert_eq!(created.joined, next.clones);
    stage.clear().await;
}

/// An engine with clones that have joined.
async fn with_clones(word: &str, clones: u32) -> (Stage, Ticket) {
    let stage = Stage::set(word, 0).await;
    let checkpoint = stage.engine.sf_checkpoint_parent().await.unwrap();
    let ticket = stage.ticket(clones).await;
    (0..clones).for_each(|_| stage.next_shell(true));
    let created = stage.engine.sf_create_clones(ticket.id, checkpoint).await.unwrap();
    assert_eq!(created.joined.len(), clones as usize, "{created:?}");
    (stage, ticket)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_clones_of_a_killed_ticket_end_at_once_not_one_after_the_other() {
    let (stage, ticket) = with_clones("at-once", 3).await;
    stage.hold_hooks(true);
    let (killed, ()) = tokio::join!(stage.engine.sf_kill(ticket.id), async {
        let all = |state: fn(&LifeState) -> bool| {
            move |view: &Arc<View>| view.clones.iter().all(|clone| state(&clone.state))
        };
        stage.sees("all are retiring", all(|state| *state == LifeState::Retiring)).await;
        stage.hold_hooks(false);
    });
    killed.unwrap();
    for id in ticket.clones {
        assert_eq!((stage.state(id), stage.has_folder(id)), (LifeState::Gone, false));
    }
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_exit_is_answered_though_its_ticket_is_killed_meanwhile() {
    let stage = Stage::set("exit-kill", 0).await;
    let ticket = stage.ticket(1).await;
    let (exited, killed) = tokio::join!(stage.engine.sf_exit(FIRST), async {
        stage.sees("it is retiring", |view| view.clones[0].state == LifeState::Retiring).await;
        let (killed, ()) = tokio::join!(stage.engine.sf_kill(ticket.id), async {
            tokio::task::yield_now().await;
            stage.next_shell(true);
        });
        killed
    });
    exited.unwrap();
    killed.unwrap();
    assert!(!stage.has_folder(FIRST));
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_exit_of_a_clone_that_has_failed_returns_when_nothing_is_left_of_it() {
    let (stage, _) = with_clones("failed", 1).await;
    stage.kill(FIRST);
    stage.sees("its death is known", |view| !view.clone_with(FIRST).unwrap().state.is_alive()).await;
    stage.engine.sf_exit(FIRST).await.unwrap();
    assert!(!stage.has_folder(FIRST));
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_engine_whose_handles_are_gone_ends_and_leaves_nothing() {
    let (stage, _) = with_clones("abandoned", 1).await;
    stage.abandon().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn shells_with_ids_that_were_taken_away_end() {
    let stage = Stage::set("other-ids", 0).await;
    stage.engine.use_ids(vec![1..5, 5..9], 1).await.unwrap();
    stage.next_shell(true);
    stage.sees("a shell waits", |view| view.shells == 1 && view.ids_left == Some(7)).await;
    assert!(stage.has_folder(FIRST));
    stage.engine.use_ids(vec![20..25, 25..30], 1).await.unwrap();
    stage.clears_away(FIRST).await;
    stage.next_shell(true);
    stage.sees("another waits", |view| view.shells == 1).await;
    assert_eq!(stage.ticket(1).await.clones, [CloneId(20)]);
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn room_is_places_and_memory() {
    let stage = Stage::set("room", 0).await;
    assert_eq!(stage.engine.free(), 8);
    stage.ticket(3).await;
    assert_eq!(stage.engine.free(), 5);
    stage.clear().await;
    let stage = Stage::set_with("no-room", 0, 1 << 40).await;
    assert_eq!(stage.engine.free(), 0, "no host has so much memory");
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_clones_touch_is_recorded_until_the_first_is_ready_and_never_again() {
    let (stage, ticket) = with_clones("record", 1).await;
    let records = |of: CheckpointId| {
        let view = stage.engine.view().borrow().clone();
        let checkpoint = view.checkpoints.iter().find(|checkpoint| checkpoint.id == of).unwrap();
        checkpoint.memtap.stats().unwrap().pager.recording
    };
    let ends = async |of: CheckpointId| {
        while records(of) {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    let first = stage.engine.view().borrow().clones[0].checkpoint.unwrap();
    assert!(records(first));
    stage.engine.ready(ticket.clones[0], Duration::from_millis(9));
    tokio::time::timeout(LONG, ends(first)).await.expect("its record never ends");
    let second = stage.engine.sf_checkpoint_parent().await.unwrap();
    tokio::time::timeout(LONG, ends(second)).await.expect("the record of the next never ends");
    stage.clear().await;
}
