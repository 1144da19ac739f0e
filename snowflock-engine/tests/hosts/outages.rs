//! Hosts whose pages do not come: for a while, or not any more.

use std::time::Duration;

use serde_json::Value;
use snowflock_engine::control::PAGE_LIMIT;

use crate::across::{AGENT_PAGE, AWAY, FROZEN, HOME, assert_right, checkpoint, ticket};
use crate::daemons::{Cluster, Plan, failed};

/// What SFMD says of a clone.
fn described(cluster: &Cluster, clone: &str) -> Value {
    cluster.ask(&["describe", &clone.replace("clone-", "clone/")])
}

#[test]
fn clones_whose_pages_stop_coming_fail_with_the_reason_and_those_that_have_all_live_on() {
    let filled = Plan { fill: true, ..AWAY };
    let cluster = Cluster::across(&[HOME, AWAY, filled]);
    let (number, born) = ticket(&cluster, 2);
    let from = checkpoint(&cluster);
    cluster.ask(&["create-clones", &number, &from]);
    let on = |host| born.iter().find(|clone| clone.1 == host).expect("one on each");
    let (poor, rich) = (on(1), on(2));
    // Time for all of its 4 MiB.
    std::thread::sleep(Duration::from_secs(2));
    (1..3).for_each(|host| cluster.lose_pages(host, true));
    let vcpu = cluster.vcpu(1, &poor.0);
    let reads = std::thread::spawn(move || vcpu.check(0, AGENT_PAGE, 9, FROZEN));
    cluster.sees("it is given up", |view| failed(view) == 1);
    assert!(reads.join().unwrap().is_err(), "whoever waited for it is let go");
    let told = described(&cluster, &poor.0).to_string();
    assert!(told.contains("its pages stop coming: nothing was heard of their host"), "{told}");
    assert_eq!(described(&cluster, &rich.0)["state"], "joined");
    assert_right(&cluster, rich);
    // The way is free again: another clone of the same checkpoint takes its place.
    (1..3).for_each(|host| cluster.lose_pages(host, false));
    let (again, next) = ticket(&cluster, 3);
    let made = cluster.ask(&["create-clones", &again, &from]);
    assert_eq!(made["joined"].as_array().unwrap().len(), 3, "{made}");
    next.iter().for_each(|clone| assert_right(&cluster, clone));
    cluster.clear();
}

#[test]
fn pages_that_are_away_for_less_than_the_limit_cost_a_pause_only() {
    let cluster = Cluster::across(&[HOME, AWAY]);
    let (number, born) = ticket(&cluster, 1);
    let from = checkpoint(&cluster);
    cluster.ask(&["create-clones", &number, &from]);
    cluster.lose_pages(1, true);
    let vcpu = cluster.vcpu(1, &born[0].0);
    let reads = std::thread::spawn(move || vcpu.check(0, AGENT_PAGE, 9, FROZEN));
    std::thread::sleep(PAGE_LIMIT / 2);
    cluster.lose_pages(1, false);
    assert_eq!(reads.join().unwrap().unwrap().wrong, 0);
    std::thread::sleep(PAGE_LIMIT + Duration::from_secs(1));
    assert_eq!(described(&cluster, &born[0].0)["state"], "joined");
    cluster.clear();
}
