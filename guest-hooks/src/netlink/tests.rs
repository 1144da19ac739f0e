//! The bytes of rtnetlink messages, without a kernel.

use super::*;
use snowflock_engine::wire::Name;

fn identity(gateway: Ipv4Addr) -> Identity {
    Identity {
        clone_id: 1,
        clones: 1,
        unix_time_ns: 0,
        mac: [2, 0, 0, 0, 0, 1],
        ipv4: Ipv4Addr::new(10, 9, 8, 7),
        prefix_len: 24,
        gateway,
        parent_ipv4: Ipv4Addr::new(10, 9, 8, 1),
        entropy: [0; 32],
        hostname: Name::EMPTY,
    }
}

fn kinds(bytes: &[u8]) -> Vec<(u16, u32)> {
    messages(bytes).map(|(kind, sequence, _)| (kind, sequence)).collect()
}

#[test]
fn the_first_identity_brings_the_link_up_and_only_the_last_message_asks_for_an_answer() {
    let change = Change { index: 2, link: true, mac: Some([2, 0, 0, 0, 0, 1]), old: None };
    let (mut batch, steps) = Batch::identity(&change, &identity(Ipv4Addr::new(10, 9, 8, 1)));
    let bytes = batch.finish(true);
    assert_eq!(kinds(bytes), [(RTM_NEWLINK, 1), (RTM_NEWADDR, 2), (RTM_NEWROUTE, 3)]);
    assert_eq!(steps[..3], [Failures::MAC, Failures::ADDRESS, Failures::ROUTE]);
    let first_flags = u16::from_le_bytes([bytes[6], bytes[7]]);
    assert_eq!(first_flags & ACK, 0);
}

#[test]
fn a_clone_that_keeps_its_mac_is_sent_no_link_message() {
    let old = Some((Ipv4Addr::new(10, 9, 8, 1), 24));
    let change = Change { index: 2, link: false, mac: None, old };
    let (mut batch, steps) = Batch::identity(&change, &identity(Ipv4Addr::UNSPECIFIED));
    assert_eq!(kinds(batch.finish(true)), [(RTM_DELADDR, 1), (RTM_NEWADDR, 2)]);
    assert_eq!(steps[..2], [Failures::default(), Failures::ADDRESS], "an old address may be gone already");
}

#[test]
fn an_address_message_reads_back() {
    let mut batch = Batch::new();
    batch.address(RTM_NEWADDR, 0, 2, Ipv4Addr::new(192, 0, 2, 9), 26);
    let bytes = batch.finish(false);
    let (_, _, body) = messages(bytes).next().expect("one message");
    assert_eq!(parse_address(body, 2), Some((Ipv4Addr::new(192, 0, 2, 9), 26)));
    assert_eq!(parse_address(body, 3), None, "another interface's address is left alone");
}

#[test]
fn an_answer_cut_short_gives_no_message_and_no_panic() {
    let mut batch = Batch::new();
    batch.link_up(1, None);
    let bytes = batch.finish(true);
    for end in 0..bytes.len() {
        assert_eq!(messages(&bytes[..end]).count(), 0);
    }
}

#[test]
fn a_mac_is_six_bytes_and_nothing_else() {
    assert_eq!(parse_mac("02:f1:00:00:00:0a"), Some([2, 0xF1, 0, 0, 0, 10]));
    assert_eq!(parse_mac("02:f1:00:00:00"), None);
    assert_eq!(parse_mac("02:f1:00:00:00:0a:0b"), None);
}
