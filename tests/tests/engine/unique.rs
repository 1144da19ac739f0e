//! Uniqueness before the first byte is served: what the hooks of a birth find, which run before a clone
//! may get any request.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use flurry_tests::engine::{Shape, TestEngine};
use snowflock_engine::network::identity::CloneId;

const CLONES: u32 = 4;
/// Whatever the guest's clock is not stepped by, it is behind by as much.
const REST: Duration = Duration::from_secs(3);
const DIFFER: [&str; 8] =
    ["random", "uuid", "generation", "machine-id", "hostname", "ticket-key", "cookie-key", "ip"];

/// What a clone's hook has told: `birth: ID WHAT VALUE`.
fn told(engine: &TestEngine, id: CloneId) -> BTreeMap<String, String> {
    let console = engine.console(id);
    let ours = format!("birth: {} ", id.0);
    let lines = console.lines().filter_map(|line| line.trim().strip_prefix(&ours)?.split_once(' '));
    lines.map(|(what, value)| (what.to_owned(), value.to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn four_clones_differ_in_every_secret_and_name_and_know_the_time_when_their_hooks_run() {
    let shape = Shape { with_bindings: true, shells: CLONES, ..Shape::default() };
    let engine = TestEngine::boot("unique", shape).await;
    let checkpoint = engine.sf_checkpoint_parent().await.unwrap();
    tokio::time::sleep(REST).await;
    let before = now();
    let clones = engine.clones(CLONES, checkpoint).await;
    let after = now();
    let all: Vec<_> = clones.iter().map(|id| told(&engine, *id)).collect();
    for what in DIFFER {
        let values: BTreeSet<_> = all.iter().filter_map(|told| told.get(what)).collect();
        assert!(values.len() == all.len() && values.iter().all(|v| v.len() > 6), "{what}: {all:#?}");
    }
    for told in &all {
        let clock = Duration::from_nanos(told["clock"].parse().unwrap());
        assert!(before <= clock && clock <= after, "{clock:?} is not within {before:?} to {after:?}");
    }
    engine.shut_down().await;
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970")
}
