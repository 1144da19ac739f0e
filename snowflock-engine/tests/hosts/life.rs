//! Tickets, clones and their ends, over several hosts.

use std::collections::BTreeSet;

use crate::daemons::{Cluster, clones};

#[test]
fn a_ticket_is_spread_over_hosts_and_its_clones_are_made_joined_and_killed() {
    let cluster = Cluster::start(2);
    let ticket = cluster.ask(&["ticket", "4"]);
    let number = ticket["ticket"].to_string();
    let hosts: Vec<&str> =
        ticket["clones"].as_array().unwrap().iter().map(|c| c[1].as_str().unwrap()).collect();
    assert_eq!(hosts.iter().filter(|host| **host == "h0").count(), 2, "{ticket}");
    let made = cluster.ask(&["clone", &number]);
    assert_eq!(made["joined"].as_array().unwrap().len(), 4, "{made}");
    let view = cluster.sees("all have joined", |view| clones(view, "joined") == 4);
    let ids: BTreeSet<u64> =
        view["clones"].as_array().unwrap().iter().map(|c| c["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), 4, "every clone has an ID of its own: {view}");

    let first = ids.first().unwrap().to_string();
    cluster.ask(&["kill", "--clone", &first]);
    let one = cluster.ask(&["describe", &format!("clone/{first}")]);
    assert_eq!(one["state"], "gone");
    cluster.ask(&["kill", &number]);
    cluster.ask(&["join", &number]);
    let view = cluster.ask(&["ps"]);
    assert_eq!(view["tickets"].as_array().unwrap().len(), 0, "{view}");
    cluster.clear();
}

#[test]
fn fewer_are_granted_than_asked_and_none_when_all_hosts_are_full() {
    let cluster = Cluster::start(1);
    let ticket = cluster.ask(&["ticket", "9"]);
    assert_eq!(ticket["clones"].as_array().unwrap().len(), 4, "{ticket}");
    let refused = cluster.sf(&["ticket", "1"]);
    assert_eq!(refused.status.code(), Some(3));
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("full"), "{said}");
    let table = cluster.sf(&["ps"]);
    assert!(String::from_utf8_lossy(&table.stdout).contains("0 of 4"));
    cluster.clear();
}
