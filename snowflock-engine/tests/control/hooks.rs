//! The moments at which the guest's user may act.

use std::time::Duration;

use snowflock_engine::control::LifeState;

use crate::stage::Stage;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hooks_run_before_a_freeze_and_before_an_exit_but_not_for_the_dead() {
    let stage = Stage::set("hooks", 0).await;
    let checkpoint = stage.engine.sf_checkpoint_parent().await.unwrap();
    assert_eq!(stage.hooks(), ["parent before-freeze"]);
    let ticket = stage.ticket(3).await;
    (0..3).for_each(|_| stage.next_shell(true));
    let created = stage.engine.sf_create_clones(ticket.id, checkpoint).await.unwrap();
    assert_eq!(created.joined.len(), 3);

    let [asked, killed, last] = ticket.clones[..] else { unreachable!("three were promised") };
    stage.engine.sf_exit(asked).await.unwrap();
    stage.kill(killed);
    stage.sees("its death is known", |view| !view.clone_with(killed).unwrap().state.is_alive()).await;
    stage.engine.sf_kill(ticket.id).await.unwrap();
    let wanted =
        ["parent before-freeze".into(), format!("{asked} before-exit"), format!("{last} before-exit")];
    assert_eq!(stage.hooks(), wanted);
    stage.clear().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_of_the_engine_leaves_time_to_the_hooks_of_a_clone_that_is_ending() {
    let stage = Stage::set("late", 0).await;
    let checkpoint = stage.engine.sf_checkpoint_parent().await.unwrap();
    let ticket = stage.ticket(1).await;
    stage.next_shell(true);
    stage.engine.sf_create_clones(ticket.id, checkpoint).await.unwrap();
    stage.hold_hooks(true);
    let (_, stopped, ()) = tokio::join!(
        stage.engine.sf_exit(ticket.clones[0]),
        async {
            stage.sees("it is retiring", |view| view.clones[0].state == LifeState::Retiring).await;
            stage.engine.shut_down().await
        },
        async {
            stage.sees("it is retiring", |view| view.clones[0].state == LifeState::Retiring).await;
            // Long enough for a shutdown that does not wait to have killed it.
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert!(stage.process_of(ticket.clones[0]).is_some(), "its hooks were cut off");
            stage.hold_hooks(false);
        }
    );
    stopped.unwrap();
}
