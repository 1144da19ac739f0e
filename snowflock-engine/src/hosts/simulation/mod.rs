//! Both brains over a simulated network, hundreds of histories each time: lost, repeated and overtaken
//! messages, hosts that vanish or are cut off, and deaths of SFMD and SFLD between any two steps.
//!
//! Each run takes new seeds and prints the first; `HOSTS_SEED=<seed> cargo test -p snowflock-engine
//! --lib hosts::simulation` replays one.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::hosts::ids::Unique;
use crate::hosts::message::{Ask, Request};
use crate::hosts::view::HostState;

mod engine;
mod laws;
mod random;
mod user;
mod world;

use user::User;
use world::{LEASE, World};

const SEEDS: u64 = 300;
const TROUBLE: Duration = Duration::from_secs(60);
const CALM: Duration = Duration::from_secs(90);

/// What a history came to, to see that histories have something in them.
#[derive(Default)]
struct Sum {
    joined: u64,
    lost: u64,
    starts: u64,
}

/// A minute of trouble, then calm: everything must come to its end.
fn live(seed: u64) -> Sum {
    let mut world = World::new(seed);
    let mut users: Vec<User> = (0..3).map(User::new).collect();
    while world.now < TROUBLE {
        act(&mut world, &mut users);
        let until = world.now + Duration::from_millis(200);
        world.step(until.min(TROUBLE));
    }
    world.faults = false;
    while world.now < TROUBLE + CALM {
        end_all(&mut world, &mut users);
        let until = world.now + Duration::from_millis(500);
        while world.now < until {
            world.step(until);
        }
    }
    let master = world.master.as_ref().expect("SFMD is back");
    assert!(master.durable().tickets.is_empty(), "tickets are left: {:?}", master.durable().tickets);
    for user in &users {
        assert_eq!(user.waits_for(), None, "no answer");
    }
    assert!(world.jobs.is_empty(), "jobs are left: {:?}", world.jobs);
    for host in &world.hosts {
        assert_eq!(host.engine.alive().count(), 0, "{} has clones left", host.name);
    }
    assert!(master.view().hosts.iter().all(|host| host.state == HostState::Up), "{:?}", master.view().hosts);
    let starts = master.durable().starts;
    Sum { joined: world.laws.joined, lost: world.laws.lost, starts }
}

fn act(world: &mut World, users: &mut [User]) {
    while let Some((user, reply)) = world.replies.pop_front() {
        users[user].told(reply);
    }
    for (index, user) in users.iter_mut().enumerate() {
        if world.random.chance(200)
            && let Some(request) = user.act(world.now, &mut world.random)
        {
            world.ask(index, request);
        }
    }
}

/// Users ask nothing new but the end of whatever ticket there is.
fn end_all(world: &mut World, users: &mut [User]) {
    while let Some((user, reply)) = world.replies.pop_front() {
        users[user].told(reply);
    }
    let now = world.now;
    for (index, user) in users.iter_mut().enumerate() {
        if user.waits_for().is_some()
            && let Some(request) = user.act(now, &mut world.random)
        {
            world.ask(index, request);
        }
    }
    if let Some(ticket) = world.master.as_ref().and_then(|m| m.durable().tickets.keys().next().copied()) {
        let id = Unique::of(1 << 63 | now.as_millis() as u64);
        world.ask(0, Request { id, deadline_ms: 2000, ask: Ask::Kill { ticket } });
    }
}

#[test]
fn whatever_goes_wrong_no_clone_id_has_two_owners_and_nothing_is_left_in_the_end() {
    let given = std::env::var("HOSTS_SEED").ok().map(|seed| seed.parse().expect("HOSTS_SEED is a number"));
    let clock = SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |t| t.as_nanos() as u64);
    let (first, seeds) = given.map_or((clock % 1_000_000_000, SEEDS), |seed| (seed, 1));
    let mut sum = Sum::default();
    for seed in first..first + seeds {
        println!("replay with HOSTS_SEED={seed}");
        let one = live(seed);
        sum = Sum {
            joined: sum.joined + one.joined,
            lost: sum.lost + one.lost,
            starts: sum.starts + one.starts,
        };
    }
    println!(
        "{} clones joined, {} hosts were given up, SFMD started {} times",
        sum.joined, sum.lost, sum.starts
    );
    if seeds == SEEDS {
        assert!(sum.joined > SEEDS && sum.lost > SEEDS / 4 && sum.starts > 2 * SEEDS, "too little happens");
    }
    const { assert!(CALM.as_secs() > 10 * LEASE.as_secs()) };
}
