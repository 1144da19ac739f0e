//! The host's end, with the test as the guest.

use std::io::Read;
use std::net::Ipv4Addr;
use std::thread::{JoinHandle, spawn};

use super::*;
use crate::wire::Decoder;

const LONG: Duration = Duration::from_secs(10);

fn identity() -> Identity {
    Identity {
        clone_id: 2,
        clones: 3,
        unix_time_ns: 1,
        mac: [2, 0, 0, 0, 0, 2],
        ipv4: Ipv4Addr::new(10, 0, 0, 4),
        prefix_len: 24,
        gateway: Ipv4Addr::new(10, 0, 0, 1),
        parent_ipv4: Ipv4Addr::new(10, 0, 0, 2),
        entropy: [1; 32],
        hostname: Name::EMPTY,
    }
}

/// A guest that says what `answers` makes of each message, and returns all that it heard until the line ends.
fn guest(
    mut stream: UnixStream,
    answers: impl Fn(&HostMessage) -> Vec<GuestMessage> + Send + 'static,
) -> JoinHandle<Vec<HostMessage>> {
    spawn(move || {
        let (mut decoder, mut heard) = (Decoder::new(), Vec::new());
        loop {
            while let Some(frame) = decoder.next_frame() {
                let message = HostMessage::parse(&frame).unwrap();
                for answer in answers(&message) {
                    stream.write_all(answer.encode(&mut [0; MAX_FRAME])).unwrap();
                }
                heard.push(message);
            }
            match stream.read(decoder.space()) {
                Ok(0) | Err(_) => return heard,
                Ok(count) => decoder.filled(count),
            }
        }
    })
}

#[test]
fn a_failed_hook_of_a_birth_is_named_without_its_control_characters() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let guest = guest(theirs, |message| {
        let HostMessage::Identify(request, _) = message else { return Vec::new() };
        let (request, event) = (*request, HookEvent::AfterBirth);
        let first_failed = Name::cut("10-bad\u{1b}[2J");
        let failed = Failures::HOOKS;
        vec![
            GuestMessage::HooksDone { request, event, ran: 2, failed: 1, first_failed },
            GuestMessage::Identified { request, clone_id: 2, failed, took_us: 5 },
        ]
    });
    let mut agent = Agent::new(ours, None).unwrap();
    let said = agent.identify(&identity(), LONG).unwrap_err().to_string();
    assert!(said.ends_with("failed: hooks (10-bad[2J)"), "{said}");
    drop(agent);
    assert_eq!(guest.join().unwrap().len(), 1);
}

#[test]
fn a_clone_hears_which_call_made_it_ahead_of_each_repeated_identify() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let guest = guest(theirs, |_| Vec::new());
    let mut agent = Agent::new(ours, None).unwrap();
    agent.forked_by(RequestId(41), 2);
    assert!(matches!(agent.identify(&identity(), REPEAT * 3), Err(AgentError::Silent(_))));
    drop(agent);
    let heard = guest.join().unwrap();
    assert!(heard.len() >= 4, "{heard:?}");
    for pair in heard.chunks_exact(2) {
        assert_eq!(pair[0], HostMessage::ForkedBy { call: RequestId(41), place: 2 });
        assert!(matches!(pair[1], HostMessage::Identify(..)));
    }
}

#[test]
fn vitals_are_those_of_the_guest_and_a_guest_that_hangs_up_is_noticed() {
    let vitals = Vitals { load_milli: 1, memory_total_kib: 2, memory_available_kib: 3, uptime_ms: 4 };
    let (ours, theirs) = UnixStream::pair().unwrap();
    let guest = guest(theirs, move |message| match message {
        HostMessage::AskReport(request) => vec![GuestMessage::Report(*request, vitals)],
        _ => Vec::new(),
    });
    let mut agent = Agent::new(ours.try_clone().unwrap(), None).unwrap();
    assert_eq!(agent.vitals(LONG).unwrap(), vitals);
    ours.shutdown(Shutdown::Both).unwrap();
    guest.join().unwrap();
    assert!(matches!(agent.vitals(LONG), Err(AgentError::Broken(_))));
}
