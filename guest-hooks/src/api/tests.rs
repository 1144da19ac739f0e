//! The socket as processes use it, with the test as the host.

use super::*;
use crate::identity::sample;
use std::io::BufRead;
use std::io::BufReader;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(10);

struct Desk {
    api: Api,
    folder: tempfile::TempDir,
}

impl Desk {
    fn open() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self { api: Api::open_at(&folder.path().join("api")), folder }
    }

    fn connect(&mut self) -> Process {
        let stream = UnixStream::connect(self.folder.path().join("api")).expect("a socket");
        stream.set_read_timeout(Some(LONG)).expect("a limit");
        assert_eq!(self.turn(), []);
        Process(BufReader::new(stream))
    }

    /// One turn of the agent's loop.
    fn turn(&mut self) -> Vec<(RequestId, Call)> {
        let mut watch = Watch::default();
        self.api.add_to(&mut watch);
        watch.wait().expect("news");
        self.api.serve(&watch, Some(&sample(0)))
    }
}

struct Process(BufReader<UnixStream>);

impl Process {
    fn ask(&mut self, text: &str) {
        self.0.get_mut().write_all(text.as_bytes()).expect("a line is sent");
    }

    fn hears(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).expect("an answer, or the end");
        line
    }
}

#[test]
fn a_call_goes_to_the_host_and_its_answer_to_the_process_that_asked() {
    let mut desk = Desk::open();
    let (mut one, mut other) = (desk.connect(), desk.connect());
    one.ask("ticket 4\n");
    assert_eq!(desk.turn(), [(RequestId(1), Call::RequestTicket(4))]);
    other.ask("join 9\n");
    assert_eq!(desk.turn(), [(RequestId(2), Call::Join(9))]);
    desk.api.answered(RequestId(2), &Answer::refused("there is no such ticket"));
    desk.api.answered(RequestId(1), &Answer::Ticket { ticket: 7, clones: 3 });
    desk.api.answered(RequestId(9), &Answer::Done(1));
    assert_eq!((one.hears(), other.hears()), ("ok 7 3\n".into(), "error there is no such ticket\n".into()));
    one.ask("id\n");
    assert_eq!(desk.turn(), []);
    assert_eq!(one.hears(), "ok 0 4\n");
}

#[test]
fn in_a_clone_the_call_that_made_it_returns_and_all_others_fail() {
    let mut desk = Desk::open();
    let (mut forks, mut waits) = (desk.connect(), desk.connect());
    forks.ask("clone 1\n");
    desk.turn();
    waits.ask("join 1\n");
    desk.turn();
    desk.api.forked_by(RequestId(1), 2);
    desk.api.born(&sample(12));
    assert_eq!(forks.hears(), "ok 2 4\n");
    assert!(waits.hears().starts_with("error interrupted"));
}

#[test]
fn in_a_clone_that_the_host_wanted_no_call_returns() {
    let mut desk = Desk::open();
    let mut forks = desk.connect();
    forks.ask("checkpoint\n");
    assert_eq!(desk.turn(), [(RequestId(1), Call::Checkpoint)]);
    desk.api.born(&sample(1));
    assert!(forks.hears().starts_with("error interrupted"));
}

#[test]
fn a_line_in_pieces_is_read_and_one_without_end_or_out_of_turn_ends_the_connection() {
    let mut desk = Desk::open();
    let (mut slow, mut endless, mut early) = (desk.connect(), desk.connect(), desk.connect());
    slow.ask("tick");
    assert_eq!(desk.turn(), []);
    slow.ask("et 2\n");
    assert_eq!(desk.turn(), [(RequestId(1), Call::RequestTicket(2))]);
    endless.ask(&"x".repeat(LONGEST));
    assert_eq!(desk.turn(), []);
    assert_eq!(endless.hears(), "");
    early.ask("join 1\njoin 1\n");
    assert_eq!(desk.turn(), []);
    assert_eq!(early.hears(), "", "one call at a time");
    slow.ask("kill 2\n");
    assert_eq!(desk.turn(), []);
    assert_eq!(slow.hears(), "", "it has not heard its answer yet");
}

#[test]
fn processes_beyond_the_limit_wait_and_one_that_is_gone_makes_room() {
    let mut desk = Desk::open();
    let mut processes: Vec<_> = (0..MOST_CLIENTS).map(|_| desk.connect()).collect();
    let mut late = Process(BufReader::new(
        UnixStream::connect(desk.folder.path().join("api")).expect("it waits in the backlog"),
    ));
    late.ask("id\n");
    drop(processes.pop());
    for _ in 0..3 {
        assert_eq!(desk.turn(), []);
    }
    assert_eq!(late.hears(), "ok 0 4\n");
}

#[test]
fn the_socket_is_for_root_alone() {
    let desk = Desk::open();
    let about = fs::metadata(desk.folder.path().join("api")).expect("a socket");
    assert_eq!(about.permissions().mode() & 0o777, 0o600);
}
