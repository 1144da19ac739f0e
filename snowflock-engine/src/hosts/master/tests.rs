//! What SFMD does about single messages; whole histories are simulated (`hosts/simulation`).

use std::time::Duration;

use super::requests::MOST_WAITING;
use super::*;
use crate::control::LifeState;
use crate::hosts::ids::Unique;
use crate::hosts::message::{Answer, Ask, CheckpointReport, CheckpointState, Hello, Room};

const LEASE: Duration = Duration::from_secs(4);

fn master() -> Master {
    let settings = Settings { lease: LEASE, answer_limit: Duration::from_secs(1), deferred: false };
    let mut master = Master::start(Durable::new(Unique::of(1)), settings, Duration::ZERO);
    outputs(&mut master);
    master
}

fn outputs(master: &mut Master) -> Vec<Output> {
    std::iter::from_fn(|| master.poll_output()).collect()
}

fn h1() -> Name {
    "h1".parse().unwrap()
}

/// A run of SFLD greets on a connection.
fn greet(master: &mut Master, now: Duration, connection: u64, instance: u64) -> Vec<Output> {
    let hello = Hello { instance: Unique::of(instance), session: Session(1), epoch: None };
    master.handle(now, Input::Host(ConnectionId(connection), h1(), FromHost::Hello(hello)));
    outputs(master)
}

fn ask(master: &mut Master, id: u64, ask: Ask) -> Vec<Output> {
    let request = Request { id: Unique::of(id), deadline_ms: 60_000, ask };
    master.handle(Duration::from_secs(1), Input::User(ConnectionId(9), "ann".parse().unwrap(), request));
    outputs(master)
}

#[test]
fn a_second_sfld_with_the_certificate_of_a_host_waits_until_the_first_has_gone() {
    let mut master = master();
    greet(&mut master, Duration::ZERO, 1, 100);
    let epoch = master.durable().hosts[&h1()].epoch;
    let second = greet(&mut master, Duration::from_secs(1), 2, 200);
    assert!(second.contains(&Output::HangUp(ConnectionId(2))), "{second:?}");
    assert_eq!(master.durable().hosts[&h1()].epoch, epoch, "the first goes on");
    master.handle(Duration::from_secs(2), Input::Closed(ConnectionId(1)));
    greet(&mut master, Duration::from_secs(2), 3, 200);
    assert_eq!(master.durable().hosts[&h1()].instance, Unique::of(200));
}

#[test]
fn a_silent_first_sfld_keeps_a_second_out_for_a_lease_at_most() {
    let mut master = master();
    greet(&mut master, Duration::ZERO, 1, 100);
    for quarter in 1..=4 {
        master.handle(LEASE * quarter / 4, Input::Timeout);
    }
    greet(&mut master, LEASE, 2, 200);
    assert_eq!(master.durable().hosts[&h1()].instance, Unique::of(200));
}

#[test]
fn a_host_whose_parent_is_dead_makes_clones_of_its_checkpoint() {
    let mut master = master();
    greet(&mut master, Duration::ZERO, 1, 100);
    let checkpoint = CheckpointReport { checkpoint: CheckpointId(1), state: CheckpointState::Taken };
    for (number, checkpoints, asked) in [(1, vec![], 0), (2, vec![checkpoint], 2)] {
        let report = Report {
            session: Session(1),
            number,
            wishes: 0,
            room: Room { limit: 4, free: 4, ids: 100 },
            shares: false,
            parent: Some(LifeState::Failed("it ended".into())),
            checkpoints,
            tickets: vec![],
            clones: vec![],
        };
        let said = FromHost::Report(report);
        master.handle(Duration::from_secs(1), Input::Host(ConnectionId(1), h1(), said));
        outputs(&mut master);
        let outputs = ask(&mut master, number, Ask::RequestTicket { clones: 2 });
        let shares = outputs.iter().find_map(|output| match output {
            Output::Record(Change::Placed { shares, .. }) => Some(shares[&h1()].clones),
            _ => None,
        });
        assert_eq!(shares.unwrap_or(0), asked, "{outputs:?}");
    }
}

#[test]
fn one_connection_cannot_fill_memory_with_requests_that_wait() {
    let mut master = master();
    for id in 1..=MOST_WAITING as u64 {
        assert_eq!(ask(&mut master, id, Ask::View { after: u64::MAX }), []);
    }
    assert_eq!(ask(&mut master, 1, Ask::View { after: u64::MAX }), [], "it is the same again");
    let more = ask(&mut master, 1000, Ask::View { after: u64::MAX });
    let [Output::Answer(_, reply)] = &more[..] else { panic!("{more:?}") };
    assert!(matches!(&reply.answer, Answer::Refused { why } if why.contains("64")), "{reply:?}");
}
