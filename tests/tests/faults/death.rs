//! VMs that are killed while clients are served: others take over, and no client notices.

use std::time::Duration;

use flurry_tests::load::Load;
use flurry_tests::tier::TierSite;
use flurry_tests::wait::{LONG, until_true};
use snowflock_engine::network::identity::CloneId;

const CLIENTS: u32 = 4;
const KILL_LIMIT: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_clone_and_a_killed_parent_are_replaced_and_no_request_fails() {
    let mut site = TierSite::new("death");
    (site.config.min, site.config.max) = (3, 4);
    let mut flurry = site.serving(3).await;
    let load = Load::start(flurry.listen, CLIENTS);
    load.goes_on(30).await;

    // A clone: it is reported as failed, leaves the pool, and another one comes.
    let status = flurry.has_ready(3).await;
    let victim = status.engine.unwrap().clones.iter().find(|clone| clone.state == "ready").unwrap().id;
    kill(&site, CloneId(victim));
    let name = CloneId(victim).to_string();
    let replaced = flurry.shows("the killed clone is replaced", |status| {
        let gone = status.backends.iter().all(|backend| backend.id != name);
        gone && status.scaling.ready == 3
    });
    let clones = replaced.await.engine.unwrap().clones;
    assert!(clones.iter().any(|clone| clone.id == victim && clone.state == "failed"), "{clones:?}");
    load.goes_on(30).await;

    // The processes that keep and give guest memory: successors take over.
    let servants = ["flurry-memserver", "flurry-memtap"].map(|program| site.site().processes_of(program));
    assert!(servants.iter().all(|processes| !processes.is_empty()), "{servants:?}");
    let killed = servants.iter().flatten().map(|process| assert!(process.kill(KILL_LIMIT))).count();
    let line = format!("flurry_engine_memory_processes_replaced_total {killed}\n");
    let counted = async || flurry.admin_page("/metrics").await.contains(&line);
    until_true("all of them are replaced", LONG, counted).await;
    load.goes_on(30).await;

    // The parent: clones go on, and new ones are born from its checkpoint.
    kill(&site, CloneId::PARENT);
    let orphaned = flurry.shows("a clone takes the parent's place", |status| {
        let gone = status.backends.iter().all(|backend| backend.id != "parent");
        gone && status.scaling.ready == 3
    });
    let status = orphaned.await;
    assert_eq!(status.engine.unwrap().parent.state, "failed");
    assert!(flurry.said().contains("the parent has ended"), "{}", flurry.said());
    load.goes_on(30).await;

    let outcome = load.stop().await;
    assert_eq!(outcome.failures, [] as [String; 0]);
    assert!(outcome.answered.len() >= 4, "parent, clones, and their successors: {:?}", outcome.answered);
    flurry.stop().await;
    site.site().assert_nothing_left();
}

fn kill(site: &TierSite, id: CloneId) {
    let process = site.site().vm_process(id).expect("its VM runs");
    assert!(process.kill(KILL_LIMIT), "{id} outlives SIGKILL");
}
