//! Clones and shells that end before they have begun.

use snowflock_engine::control::LifeState;
use snowflock_engine::network::identity::CloneId;

use crate::stage::Stage;

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
