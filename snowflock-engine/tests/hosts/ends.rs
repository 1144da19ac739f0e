//! What becomes of clones and tickets when a daemon ends.

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::daemons::{Cluster, clones, up};

#[test]
fn a_killed_sfmd_knows_all_again_and_clones_do_not_notice() {
    let mut cluster = Cluster::start(1);
    let number = cluster.ask(&["ticket", "2"])["ticket"].to_string();
    cluster.ask(&["clone", &number]);
    let before = cluster.sees("both have joined", |view| clones(view, "joined") == 2);
    let processes = cluster.processes(0);
    cluster.kill_sfmd();
    cluster.start_sfmd();
    let after = cluster.sees("the host is back", |view| up(view) == 1);
    assert_eq!(after["clones"], before["clones"]);
    assert_eq!(after["tickets"], before["tickets"]);
    assert!(after["number"].as_u64() > before["number"].as_u64());
    assert_eq!(cluster.processes(0), processes, "nothing was started or ended");
    cluster.ask(&["kill", &number]);
    cluster.clear();
}

#[test]
fn clones_of_a_killed_sfld_have_failed_and_its_next_run_has_other_ids() {
    let mut cluster = Cluster::start(2);
    let number = cluster.ask(&["ticket", "4"])["ticket"].to_string();
    cluster.ask(&["clone", &number]);
    cluster.end_host(0, Signal::SIGKILL);
    let lost = cluster.sees("it is given up", |view| view["hosts"][0]["state"] == "lost");
    assert_eq!(clones(&lost, "joined"), 2, "the other host's: {lost}");
    cluster.start_host(0);
    let back = cluster.sees("it is back", |view| up(view) == 2);
    let known: Vec<&Value> = back["clones"].as_array().unwrap().iter().map(|c| &c["id"]).collect();
    let next = cluster.ask(&["ticket", "4"]);
    for clone in next["clones"].as_array().unwrap() {
        assert!(!known.contains(&&clone[0]), "{} is used again", clone[0]);
    }
    cluster.clear();
}

#[test]
fn a_wrong_certificate_a_wrong_role_and_an_unknown_ticket_are_told() {
    let cluster = Cluster::start(1);
    let unknown = cluster.sf(&["join", "77"]);
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("ticket 77 has never existed"));
    let nobody = cluster.sf(&["--as", "nobody", "ps"]);
    let said = String::from_utf8_lossy(&nobody.stderr).into_owned();
    assert!(said.contains("operator-nobody.pem") && said.contains("sfmd certificates"), "{said}");
    assert_eq!(nobody.status.code(), Some(1));
    cluster.clear();
}
