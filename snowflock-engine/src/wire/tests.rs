//! Every message survives the wire; no bytes at all make the parser do worse than refuse.

use super::*;
use proptest::prelude::*;

fn identity() -> Identity {
    Identity {
        clone_id: 3,
        clones: 8,
        unix_time_ns: 1_700_000_000_123_456_789,
        mac: [0x02, 0xF1, 0, 0, 0, 3],
        ipv4: Ipv4Addr::new(10, 77, 0, 13),
        prefix_len: 24,
        gateway: Ipv4Addr::new(10, 77, 0, 1),
        parent_ipv4: Ipv4Addr::new(10, 77, 0, 10),
        entropy: [0x5A; 32],
        hostname: Name::new("web-3").expect("short"),
    }
}

/// As many ends as fit, some with and some without a status.
fn most_ends() -> api::Ends {
    let end = |place| api::End { place, status: (place % 2 == 0).then_some(u32::MAX - place) };
    let ends = api::Ends::of((1..=api::MOST_CLONES + 1).map(end));
    assert_eq!(ends.iter().count(), api::MOST_CLONES as usize, "what does not fit is left out");
    ends
}

#[test]
fn more_ends_than_a_ticket_can_have_and_unknown_calls_are_refused() {
    let payload = [0, 0, 0, 0, 4, api::MOST_CLONES as u8 + 1];
    let frame = Frame { version: VERSION, kind: 0x07, payload: &payload };
    assert_eq!(HostMessage::parse(&frame), Err(WireError::Field("ends")));
    for (kind, field) in [(0x07, "answer"), (0x87, "call")] {
        let frame = Frame { version: VERSION, kind, payload: &[0, 0, 0, 0, 9] };
        let (host, guest) = (HostMessage::parse(&frame).err(), GuestMessage::parse(&frame).err());
        assert!([host, guest].contains(&Some(WireError::Field(field))));
    }
}

fn host_round_trip(message: &HostMessage) -> Result<HostMessage, WireError> {
    let (mut out, mut decoder) = ([0; MAX_FRAME], Decoder::new());
    decoder.push(message.encode(&mut out));
    HostMessage::parse(&decoder.next_frame().expect("one whole frame"))
}

fn guest_round_trip(message: &GuestMessage) -> Result<GuestMessage, WireError> {
    let (mut out, mut decoder) = ([0; MAX_FRAME], Decoder::new());
    decoder.push(message.encode(&mut out));
    GuestMessage::parse(&decoder.next_frame().expect("one whole frame"))
}

#[test]
fn every_message_of_the_host_reads_back_as_it_was_written() {
    let request = RequestId(77);
    for message in [
        HostMessage::Welcome,
        HostMessage::Identify(request, identity()),
        HostMessage::Ping(request),
        HostMessage::RunHooks { request, event: HookEvent::BeforeFreeze, deadline_ms: 500 },
        HostMessage::AskReport(request),
        HostMessage::Shutdown(request),
        HostMessage::ForkedBy { call: request, place: 2 },
        HostMessage::Answer(request, Answer::Ticket { ticket: 3, clones: 4 }),
        HostMessage::Answer(request, Answer::Forked(9)),
        HostMessage::Answer(request, Answer::Done(0)),
        HostMessage::Answer(request, Answer::Ended(most_ends())),
        HostMessage::Answer(request, Answer::refused(&"no ".repeat(40))),
    ] {
        assert_eq!(host_round_trip(&message), Ok(message));
    }
}

#[test]
fn every_message_of_the_guest_reads_back_as_it_was_written() {
    let request = RequestId(78);
    let vitals = Vitals { load_milli: 420, memory_total_kib: 1, memory_available_kib: 2, uptime_ms: 3 };
    for message in [
        GuestMessage::Hello { boot_id: [7; 16] },
        GuestMessage::Identified { request, clone_id: 3, failed: Failures::ROUTE, took_us: 950 },
        GuestMessage::Pong { request, clone_id: 3 },
        GuestMessage::HooksDone {
            request,
            event: HookEvent::BeforeExit,
            ran: 2,
            failed: 1,
            first_failed: Name::cut("10-remount"),
        },
        GuestMessage::Report(request, vitals),
        GuestMessage::ShuttingDown(request),
        GuestMessage::Call(request, Call::RequestTicket(4)),
        GuestMessage::Call(request, Call::Clone(1)),
        GuestMessage::Call(request, Call::Checkpoint),
        GuestMessage::Call(request, Call::Create { ticket: 1, checkpoint: 2 }),
        GuestMessage::Call(request, Call::Exit(u32::MAX)),
        GuestMessage::Call(request, Call::Join(1)),
        GuestMessage::Call(request, Call::Kill(1)),
    ] {
        assert_eq!(guest_round_trip(&message), Ok(message));
    }
}

#[test]
fn an_identity_out_of_range_is_refused_by_the_name_of_its_field() {
    type Spoil = fn(&mut Identity);
    let spoiled: [(&str, Spoil); 5] = [
        ("mac", |i| i.mac[0] = 0x01),
        ("prefix_len", |i| i.prefix_len = 33),
        ("ipv4", |i| i.ipv4 = Ipv4Addr::UNSPECIFIED),
        ("ipv4", |i| i.ipv4 = Ipv4Addr::new(224, 0, 0, 1)),
        ("hostname", |i| i.hostname = Name::cut("-rm$(reboot)")),
    ];
    for (field, spoil) in spoiled {
        let mut bad = identity();
        spoil(&mut bad);
        let got = host_round_trip(&HostMessage::Identify(RequestId(1), bad));
        assert_eq!(got, Err(WireError::Field(field)));
    }
}

#[test]
fn a_frame_of_another_version_is_named_as_such() {
    let frame = Frame { version: 2, kind: 0x03, payload: &[0; 4] };
    assert_eq!(HostMessage::parse(&frame), Err(WireError::Version(2)));
}

#[test]
fn a_guest_cannot_speak_as_the_host() {
    let mut out = [0; MAX_FRAME];
    let mut decoder = Decoder::new();
    decoder.push(HostMessage::Ping(RequestId(1)).encode(&mut out));
    let frame = decoder.next_frame().expect("one whole frame");
    assert_eq!(GuestMessage::parse(&frame), Err(WireError::Kind(0x03)));
}

#[test]
fn a_message_with_bytes_left_over_is_refused() {
    let frame = Frame { version: VERSION, kind: 0x03, payload: &[0; 5] };
    assert_eq!(HostMessage::parse(&frame), Err(WireError::Field("end of message")));
}

#[test]
fn a_name_is_cut_at_a_character_never_inside_one() {
    let long = "ü".repeat(40);
    assert_eq!(Name::cut(&long).as_str(), "ü".repeat(31));
    assert_eq!(Name::new(&long), None);
}

#[test]
fn failures_are_told_by_name() {
    let mut failed = Failures::default();
    assert_eq!(failed.to_string(), "none");
    failed.insert(Failures::CLOCK);
    failed.insert(Failures::HOOKS);
    assert_eq!(failed.to_string(), "clock, hooks");
    assert!(failed.contains(Failures::CLOCK) && !failed.contains(Failures::MAC));
}

proptest! {
    #[test]
    fn any_payload_of_any_kind_is_read_or_refused(kind: u8, payload in prop::collection::vec(any::<u8>(), 0..200)) {
        let frame = Frame { version: VERSION, kind, payload: &payload };
        let mut out = [0; MAX_FRAME];
        if let Ok(message) = HostMessage::parse(&frame) {
            prop_assert!(message.encode(&mut out).len() == payload.len() + 12);
        }
        if let Ok(message) = GuestMessage::parse(&frame) {
            prop_assert!(message.encode(&mut out).len() == payload.len() + 12);
        }
    }
}
