use super::*;
use crate::mcdist::seal::{HEADER_BYTES, TAG_BYTES};

/// What IPv4 and UDP leave of an Ethernet frame.
const SMALLEST: usize = 1500 - 28;

fn geometry() -> Geometry {
    Geometry::new(&[(StreamId(0), 1000), (StreamId(4), 300)]).unwrap()
}

fn said_by_sender(message: &FromSender<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&geometry(), &mut bytes);
    bytes
}

fn said_by_receiver(message: &FromReceiver) -> Vec<u8> {
    let mut bytes = Vec::new();
    message.encode(&geometry(), &mut bytes);
    bytes
}

fn fits(bytes: &[u8]) {
    assert!(bytes.len() + HEADER_BYTES + TAG_BYTES <= SMALLEST, "{} bytes", bytes.len());
}

fn longest_request() -> Request {
    let received = Received { high: 9, count: 8 };
    Request {
        epoch: SessionId(3),
        report: 4,
        hears: true,
        fills: true,
        multicast: received,
        unicast: received,
        rate: 1 << 40,
        missing: 7,
        urgent: vec![Urgent { place: Place(3), again: true }; MAX_URGENT],
        ahead: vec![Place(1100); MAX_AHEAD],
        groups: vec![Missing { group: Group(1), pages: 5, held: 2 }; MAX_GROUPS],
        untouched: (Group(2), 3),
    }
}

#[test]
fn what_a_sender_says_is_understood_and_fits_the_smallest_mtu() {
    let (whole, part) = ([3; 4096], [4; 1366]);
    let same = Notice::Same { place: Place(1), of: Place(1030) };
    let streams = (0..16).map(|id| (StreamId(id), 9)).collect();
    let report_every = Duration::from_millis(40);
    let messages = [
        FromSender::Welcome { session: SessionId(1), counter: 2, report_every, streams },
        FromSender::Page { place: Place(1026), lane: Lane::Part(2), data: &part },
        FromSender::Repair { group: Group(7), index: 127, covers: 1, lane: Lane::Part(0), data: &part },
        FromSender::Notice(
            [vec![same; MAX_NOTICES - 1], vec![Notice::Zero { first: Place(998), count: 2 }]].concat(),
        ),
        FromSender::Beat { report_every },
    ];
    for message in &messages {
        let bytes = said_by_sender(message);
        assert_eq!(FromSender::decode(&geometry(), &bytes).as_ref(), Ok(message));
        fits(&bytes);
    }
    assert!(said_by_sender(&messages[0]).len() <= HELLO_BYTES);
    let page = FromSender::Page { place: Place(0), lane: Lane::Whole, data: &whole };
    assert_eq!(FromSender::decode(&geometry(), &said_by_sender(&page)), Ok(page));
}

#[test]
fn what_a_receiver_says_is_understood_and_fits_the_smallest_mtu() {
    for message in [
        FromReceiver::Hello,
        FromReceiver::Request(longest_request()),
        FromReceiver::Request(Request::empty(SessionId(1))),
        FromReceiver::Bye { epoch: SessionId(u64::MAX) },
    ] {
        let bytes = said_by_receiver(&message);
        fits(&bytes);
        assert_eq!(FromReceiver::decode(&geometry(), &bytes), Ok(message));
    }
}

#[test]
fn a_message_that_is_cut_off_or_goes_on_is_refused() {
    let bytes = said_by_receiver(&FromReceiver::Request(longest_request()));
    for len in 0..bytes.len() {
        assert!(FromReceiver::decode(&geometry(), &bytes[..len]).is_err(), "{len} bytes");
    }
    let longer = [&bytes[..], &[0]].concat();
    let refused = FromReceiver::decode(&geometry(), &longer);
    assert_eq!(refused, Err(WireError::Malformed("bytes behind its end")));
}

/// The complaint about a message of which some bytes were changed.
fn sender_complaint(message: &FromSender<'_>, at: usize, with: &[u8]) -> String {
    let mut bytes = said_by_sender(message);
    bytes[at..at + with.len()].copy_from_slice(with);
    FromSender::decode(&geometry(), &bytes).unwrap_err().to_string()
}

#[test]
fn every_field_of_a_sender_is_checked() {
    let data = [0; 4096];
    let page = FromSender::Page { place: Place(0), lane: Lane::Whole, data: &data };
    assert_eq!(sender_complaint(&page, 0, &[99]), "malformed: an unknown kind of message");
    assert_eq!(sender_complaint(&page, 1, &[4]), "malformed: an unknown piece of a page");
    assert_eq!(sender_complaint(&page, 1, &[2]), "malformed: bytes behind its end");
    assert_eq!(sender_complaint(&page, 2, &[5]), "page 0 of stream 5 does not exist");
    assert_eq!(sender_complaint(&page, 3, &1000u32.to_le_bytes()), "page 1000 of stream 0 does not exist");
    let short = FromSender::Page { place: Place(0), lane: Lane::Whole, data: &data[1..] };
    assert_eq!(sender_complaint(&short, 0, &[]), "malformed: a page of another length");
    let repair = FromSender::Repair { group: Group(7), index: 0, covers: 0, lane: Lane::Whole, data: &data };
    assert_eq!(sender_complaint(&repair, 7, &[128]), "malformed: a repair outside of its group");
    // Group 7 has 104 pages.
    assert_eq!(sender_complaint(&repair, 8 + 13, &[1]), "malformed: a repair outside of its group");
    assert_eq!(sender_complaint(&repair, 3, &[1]), "malformed: a group is named by its first page");
}

#[test]
fn every_notice_is_checked() {
    let zero = FromSender::Notice(vec![Notice::Zero { first: Place(998), count: 2 }]);
    for count in [0u16, 3, MAX_RUN + 1, u16::MAX] {
        let complaint = sender_complaint(&zero, 8, &count.to_le_bytes());
        assert_eq!(complaint, "malformed: a run of zeros beyond its stream", "{count}");
    }
    assert_eq!(sender_complaint(&zero, 2, &[2]), "malformed: an unknown kind of notice");
    assert_eq!(sender_complaint(&zero, 1, &[97]), "malformed: a list beyond its limit");
    let same = FromSender::Notice(vec![Notice::Same { place: Place(1), of: Place(2) }]);
    assert_eq!(sender_complaint(&same, 9, &[1]), "malformed: a page that is the same as itself");
    let streams = vec![(StreamId(0), 1)];
    let welcome =
        FromSender::Welcome { session: SessionId(0), counter: 0, report_every: Duration::ZERO, streams };
    assert_eq!(sender_complaint(&welcome, 19, &[17]), "malformed: a list beyond its limit");
}

fn receiver_complaint(change: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut request = Request::empty(SessionId(1));
    request.groups.push(Missing { group: Group(0), pages: 0, held: 0 });
    request.urgent.push(Urgent { place: Place(0), again: false });
    request.untouched = (Group(1), 1);
    let mut bytes = said_by_receiver(&FromReceiver::Request(request));
    change(&mut bytes);
    FromReceiver::decode(&geometry(), &bytes).unwrap_err().to_string()
}

#[test]
fn every_field_of_a_receiver_is_checked() {
    assert_eq!(receiver_complaint(|b| b[0] = 1), "malformed: an unknown kind of message");
    assert_eq!(receiver_complaint(|b| b[13] = 4), "malformed: an unknown flag");
    assert_eq!(receiver_complaint(|b| b[22] = 1), "malformed: more datagrams came than were sent");
    assert_eq!(receiver_complaint(|b| b[58] = 33), "malformed: a list beyond its limit");
    assert_eq!(receiver_complaint(|b| b[59] = 2), "malformed: an unknown flag");
    assert_eq!(receiver_complaint(|b| b[60] = 9), "page 0 of stream 9 does not exist");
    assert_eq!(receiver_complaint(|b| b[65] = 97), "malformed: a list beyond its limit");
    assert_eq!(receiver_complaint(|b| b[66] = 25), "malformed: a list beyond its limit");
    assert_eq!(receiver_complaint(|b| b[68] = 1), "malformed: a group is named by its first page");
    let mut last = Request::empty(SessionId(1));
    last.groups.push(Missing { group: Group(7), pages: 1 << 104, held: 0 });
    let bytes = said_by_receiver(&FromReceiver::Request(last));
    let refused = FromReceiver::decode(&geometry(), &bytes).unwrap_err();
    assert_eq!(refused, WireError::Malformed("missing pages that do not exist"));
    assert_eq!(receiver_complaint(|b| b[89] = 11), "malformed: untouched groups that do not exist");
    let mut hello = said_by_receiver(&FromReceiver::Hello);
    hello[9] = 1;
    let refused = FromReceiver::decode(&geometry(), &hello).unwrap_err();
    assert_eq!(refused, WireError::Malformed("a greeting is filled with zeros"));
}
