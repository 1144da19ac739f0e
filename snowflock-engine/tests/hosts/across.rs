//! Clones on other machines than their parent's.

use crate::daemons::{Cluster, Plan, clones};

/// Pages of a VM; the last one is the agent's.
const PAGES: u32 = 1024;
pub(crate) const AGENT_PAGE: u32 = PAGES - 1;
/// What the parent's memory holds at the checkpoint, and what is written over it.
pub(crate) const FROZEN: u64 = 5;
pub(crate) const LATER: u64 = 6;

pub(crate) const HOME: Plan = Plan { parent: true, max_clones: 0, fill: false };
pub(crate) const AWAY: Plan = Plan { parent: false, max_clones: 4, fill: false };

/// A ticket's number, and its clones as names of their folders.
pub(crate) fn ticket(cluster: &Cluster, wanted: usize) -> (String, Vec<(String, usize)>) {
    let ticket = cluster.ask(&["ticket", &wanted.to_string()]);
    let host = |name: &str| name.trim_start_matches('h').parse().unwrap();
    let clones = ticket["clones"].as_array().unwrap().iter();
    let clones = clones.map(|c| (format!("clone-{}", c[0]), host(c[1].as_str().unwrap()))).collect();
    (ticket["ticket"].to_string(), clones)
}

/// A checkpoint of a parent with known memory.
pub(crate) fn checkpoint(cluster: &Cluster) -> String {
    cluster.vcpu(0, "parent").write(0, AGENT_PAGE, 0, FROZEN).unwrap();
    cluster.ask(&["checkpoint"])["checkpoint"].to_string()
}

pub(crate) fn assert_right(cluster: &Cluster, (clone, host): &(String, usize)) {
    let verdict = cluster.vcpu(*host, clone).check(0, AGENT_PAGE, 9, FROZEN).unwrap();
    assert_eq!((verdict.checked, verdict.wrong), (AGENT_PAGE, 0), "{clone} on h{host}: {verdict:?}");
}

#[test]
fn a_clone_on_another_host_has_its_parents_memory_while_that_changes() {
    let cluster = Cluster::across(&[HOME, AWAY]);
    let (number, born) = ticket(&cluster, 2);
    assert!(born.len() == 2 && born.iter().all(|(_, host)| *host == 1), "{born:?}");
    let from = checkpoint(&cluster);
    let parent = cluster.vcpu(0, "parent");
    std::thread::scope(|scope| {
        scope.spawn(|| parent.write(0, AGENT_PAGE, 3, LATER).unwrap());
        let made = cluster.ask(&["create-clones", &number, &from]);
        assert_eq!(made["joined"].as_array().unwrap().len(), 2, "{made}");
        born.iter().for_each(|clone| assert_right(&cluster, clone));
    });
    assert_eq!(parent.check(0, AGENT_PAGE, 0, LATER).unwrap().wrong, 0);
    cluster.sees("both have joined", |view| clones(view, "joined") == 2);
    let held = cluster.ask(&["describe", &format!("checkpoint/{from}")]);
    assert_eq!(held["hosts"].as_array().unwrap().len(), 2, "{held}");
    cluster.ask(&["kill", &number]);
    cluster.clear();
}

#[test]
fn memory_is_right_after_the_death_of_memserver_and_memtap_and_while_sfmd_is_away() {
    let mut cluster = Cluster::across(&[HOME, AWAY, AWAY]);
    let (number, born) = ticket(&cluster, 2);
    let from = checkpoint(&cluster);
    cluster.kill_program(0, "flurry-memserver");
    let made = cluster.ask(&["create-clones", &number, &from]);
    assert_eq!(made["joined"].as_array().unwrap().len(), 2, "{made}");
    let parent = cluster.vcpu(0, "parent");
    parent.write(0, AGENT_PAGE / 2, 3, LATER).unwrap();
    cluster.kill_program(0, "flurry-memserver");
    (1..3).for_each(|host| cluster.kill_program(host, "flurry-memtap"));
    cluster.kill_sfmd();
    parent.write(0, AGENT_PAGE, 4, LATER).unwrap();
    born.iter().for_each(|clone| assert_right(&cluster, clone));
    cluster.start_sfmd();
    // A copy is still known after the start: more clones of the same checkpoint can be made.
    cluster.sees("the hosts are back", |view| clones(view, "joined") == 2 && crate::daemons::up(view) == 1);
    let (again, more) = ticket(&cluster, 1);
    cluster.ask(&["create-clones", &again, &from]);
    more.iter().for_each(|clone| assert_right(&cluster, clone));
    cluster.clear();
}
