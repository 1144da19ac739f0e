//! SnowFlock's calls from inside a guest: a program in each language splits its work among clones.

use flurry_tests::engine::{Shape, TestEngine};
use flurry_tests::wait::{LONG, until_true};
use snowflock_engine::network::identity::CloneId;

const CLONES: u32 = 4;
const LANGUAGES: [&str; 5] = ["shell", "c", "cpp", "python", "java"];

/// What the guest's examples have said on the parent's console, once they have said this.
async fn said(engine: &TestEngine, last: &str) -> Vec<String> {
    // The hooks of this checkpoint start them.
    engine.sf_checkpoint_parent().await.unwrap();
    let console = || engine.console(CloneId::PARENT);
    // A JVM starts in five machines that are emulated.
    until_true(last, 4 * LONG, async || console().contains(last)).await;
    console().lines().map(|line| line.trim().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn programs_in_every_language_split_their_work_among_clones_and_join_them() {
    let shape = Shape { guest_clones: CLONES, with_bindings: true, shells: CLONES, ..Shape::default() };
    let engine = TestEngine::boot("bindings", shape).await;
    let said = said(&engine, "sf-example: all have run").await;
    for language in LANGUAGES {
        let expected = format!("sf-example {language}: 168 primes below 1000, counted by 4 clones");
        assert!(said.contains(&expected), "{language}: {said:#?}");
    }
    let view = engine.view().borrow().clone();
    assert_eq!(view.forks_total, u64::from(CLONES) * LANGUAGES.len() as u64);
    assert!(view.clones.iter().all(|clone| !clone.state.is_alive()), "all have exited: {:?}", view.clones);
    engine.shut_down().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_guest_that_may_not_ask_for_clones_is_told_so_and_goes_on() {
    let shape = Shape { with_bindings: true, ..Shape::default() };
    let engine = TestEngine::boot("no-bindings", shape).await;
    said(&engine, "sf: vm.guest_api is off in this tier").await;
    assert_eq!(engine.view().borrow().forks_total, 0);
    engine.parent().answers().await;
    engine.shut_down().await;
}
