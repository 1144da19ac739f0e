//! Whatever dies at whatever moment of a fork: the fork ends well or with a reason, what lives has the right
//! memory, and the next fork is as good as the first.

use nix::sys::signal::Signal;

use crate::across::{AGENT_PAGE, AWAY, FROZEN, HOME, assert_right, checkpoint, ticket};
use crate::daemons::{Cluster, failed, up};

/// Moments of a fork.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    BeforeTicket,
    Granted,
    /// The checkpoint is taken, and on its way to the other host.
    Frozen,
    /// The clone is seeded, runs, or takes its identity.
    Birth,
    Joined,
    /// It reads what it has never read.
    Reading,
    Retiring,
}

const PHASES: [Phase; 7] = [
    Phase::BeforeTicket,
    Phase::Granted,
    Phase::Frozen,
    Phase::Birth,
    Phase::Joined,
    Phase::Reading,
    Phase::Retiring,
];

/// How a fork ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// The clone had the right memory.
    Right,
    /// It was not made, or was lost; in any case nothing waits for it.
    Lost,
}

/// A fork of one clone onto the other host, with one kill on the way.
fn fork(cluster: &mut Cluster, phase: Phase, kill: impl Fn(&mut Cluster)) -> End {
    let at = |cluster: &mut Cluster, now: Phase| {
        if now == phase {
            kill(cluster);
        }
    };
    at(cluster, Phase::BeforeTicket);
    let (number, born) = ticket(cluster, 1);
    at(cluster, Phase::Granted);
    let from = checkpoint(cluster);
    at(cluster, Phase::Frozen);
    let creating = cluster.begin(&["create-clones", &number, &from]);
    at(cluster, Phase::Birth);
    let created = creating.wait_with_output().unwrap();
    let made: serde_json::Value = serde_json::from_slice(&created.stdout).unwrap_or_default();
    println!("{phase:?}: {made} {}", String::from_utf8_lossy(&created.stderr));
    at(cluster, Phase::Joined);
    let joined = made["joined"].as_array().is_some_and(|joined| joined.len() == 1);
    let vcpu = cluster.try_vcpu(born[0].1, &born[0].0).ok().filter(|_| joined);
    let mut end = End::Lost;
    if let Some(vcpu) = vcpu {
        let reads = std::thread::spawn(move || vcpu.check(0, AGENT_PAGE, 9, FROZEN));
        at(cluster, Phase::Reading);
        if let Ok(verdict) = reads.join().unwrap() {
            assert_eq!(verdict.wrong, 0, "{phase:?}: {verdict:?}");
            end = End::Right;
        }
    } else {
        at(cluster, Phase::Reading);
    }
    let ending = cluster.begin(&["kill", &number]);
    at(cluster, Phase::Retiring);
    ending.wait_with_output().unwrap();
    cluster.sees("nothing of the ticket is left", |view| {
        view["tickets"].as_array().is_some_and(|tickets| tickets.is_empty())
    });
    end
}

/// A fork in which nothing dies.
fn fork_well(cluster: &Cluster) {
    let (number, born) = ticket(cluster, 1);
    let from = checkpoint(cluster);
    let made = cluster.ask(&["create-clones", &number, &from]);
    assert_eq!(made["failed"], serde_json::json!([]), "{made}");
    assert_right(cluster, &born[0]);
    cluster.ask(&["kill", &number]);
}

#[test]
fn a_memtap_or_memserver_that_is_killed_in_any_phase_costs_a_pause_only() {
    let mut cluster = Cluster::across(&[HOME, AWAY]);
    fork_well(&cluster);
    for (host, program) in [(1, "flurry-memtap"), (0, "flurry-memserver"), (0, "flurry-memtap")] {
        for phase in PHASES {
            let end = fork(&mut cluster, phase, |cluster| {
                cluster.kill_any(host, program);
            });
            assert_eq!(end, End::Right, "{program} on h{host}: {phase:?}");
        }
    }
    cluster.clear();
}

#[test]
fn an_sfmd_that_is_killed_in_any_phase_costs_a_pause_only() {
    let mut cluster = Cluster::across(&[HOME, AWAY]);
    for phase in PHASES {
        let end = fork(&mut cluster, phase, |cluster| {
            cluster.kill_sfmd();
            cluster.start_sfmd();
            let all = |view: &serde_json::Value| view["hosts"].as_array().map_or(0, Vec::len) == 2;
            cluster.sees("both hosts are back", |view| all(view) && up(view) == 1);
        });
        assert_eq!(end, End::Right, "{phase:?}");
    }
    fork_well(&cluster);
    cluster.clear();
}

#[test]
fn a_vm_process_that_is_killed_in_any_phase_fails_its_clone_alone() {
    let mut cluster = Cluster::across(&[HOME, AWAY]);
    for phase in PHASES {
        fork(&mut cluster, phase, |cluster| {
            cluster.kill_any(1, "flurry-plain-vm");
        });
    }
    let view = cluster.sees("the host is well", |view| up(view) == 1);
    assert!(failed(&view) <= PHASES.len(), "{view}");
    fork_well(&cluster);
    cluster.clear();
}

#[test]
fn an_sfld_that_is_killed_in_any_phase_comes_back_and_forks_again() {
    for host in 0..2 {
        let mut cluster = Cluster::across(&[HOME, AWAY]);
        for phase in [Phase::Granted, Phase::Birth, Phase::Reading, Phase::Retiring] {
            fork(&mut cluster, phase, |cluster| {
                cluster.end_host(host, Signal::SIGKILL);
                cluster.start_host(host);
                cluster.sees("it is back", |view| up(view) == 1);
            });
        }
        fork_well(&cluster);
        cluster.clear();
    }
}
