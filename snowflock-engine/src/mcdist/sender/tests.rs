use super::*;
use crate::mcdist::geometry::{PageRef, StreamId};
use crate::mcdist::message::{FromReceiver, FromSender, Urgent};
use crate::mcdist::seal::{Channel, Header, Role};
use crate::memory::PageIndex;

const ABOUT: DistributionId = DistributionId(4);

fn config() -> SenderConfig {
    SenderConfig {
        distribution: ABOUT,
        key: Key::from_bytes([3; 32]),
        geometry: Geometry::with_page_bytes(&[(StreamId::MEMORY, 300)], 64).unwrap(),
        split: false,
        rates: Rates::default(),
    }
}

/// Pages that are all different; the last one cannot be read.
struct Pages;

impl PageSource for Pages {
    fn read(&mut self, page: PageRef, into: &mut [u8]) -> std::io::Result<bool> {
        if page.page == PageIndex(299) {
            return Err(std::io::ErrorKind::NotFound.into());
        }
        into.fill(0);
        into[..4].copy_from_slice(&(page.page.0 + 1).to_le_bytes());
        Ok(true)
    }
}

/// A receiver that is played by the test.
struct Peer {
    session: Session,
    counter: u64,
    address: SocketAddr,
}

impl Peer {
    fn new(id: u16) -> Self {
        let session = Session::new(&config().key, ABOUT, Role::Receiver, SessionId(id.into()));
        Self { session, counter: 0, address: ([10, 0, 0, 9], id).into() }
    }

    fn says(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        self.counter += 1;
        let mut out = Vec::new();
        self.session.seal(Channel::MULTICAST, self.counter, &mut out, write);
        out
    }

    fn message(&mut self, message: &FromReceiver) -> Vec<u8> {
        self.says(|out| message.encode(&config().geometry, out))
    }

    fn asks(&mut self, epoch: SessionId, page: u32) -> Vec<u8> {
        let urgent = vec![Urgent { place: Place(page), again: false }];
        self.message(&FromReceiver::Request(Request { report: 1, urgent, ..Request::empty(epoch) }))
    }
}

const LIFE: SessionId = SessionId(99);

fn handle(sender: &mut Sender, peer: &Peer, datagram: &[u8]) -> Result<(), WireError> {
    sender.handle_datagram(Duration::ZERO, peer.address, &mut datagram.to_vec())
}

/// What goes to one receiver.
fn sent(sender: &mut Sender) -> Vec<Vec<u8>> {
    let (mut out, mut all) = (Vec::new(), Vec::new());
    while let Some(target) = sender.poll_transmit(Duration::ZERO, &mut Pages, &mut out) {
        let datagram = std::mem::take(&mut out);
        if target != Target::All {
            all.push(datagram);
        }
    }
    all
}

fn opened(mut datagram: Vec<u8>) -> Vec<u8> {
    let life = Session::new(&config().key, ABOUT, Role::Sender, LIFE);
    let header = Header::parse(&datagram).unwrap();
    life.open(&header, &mut datagram).unwrap().to_vec()
}

#[test]
fn a_page_that_is_asked_for_comes_and_a_request_that_is_played_again_brings_nothing() {
    let (mut sender, mut peer) = (Sender::new(config(), LIFE), Peer::new(1));
    let request = peer.asks(LIFE, 7);
    handle(&mut sender, &peer, &request).unwrap();
    let pages = sent(&mut sender);
    let content = opened(pages[0].clone());
    let message = FromSender::decode(&config().geometry, &content).unwrap();
    assert!(matches!(message, FromSender::Page { place: Place(7), data, .. } if data[0] == 8), "{message:?}");
    assert_eq!(handle(&mut sender, &peer, &request), Err(WireError::Replayed));
    assert_eq!((sent(&mut sender).len(), pages.len(), sender.stats().refused), (0, 1, 1));
}

#[test]
fn a_wish_that_is_repeated_while_the_page_is_on_its_way_is_ignored() {
    let (mut sender, mut peer) = (Sender::new(config(), LIFE), Peer::new(1));
    for _ in 0..3 {
        let request = peer.asks(LIFE, 7);
        handle(&mut sender, &peer, &request).unwrap();
        sent(&mut sender);
    }
    assert_eq!((sender.stats().unicast, sender.stats().lockstep), (1, 2));
}

#[test]
fn a_greeting_and_a_request_to_another_life_are_answered_with_a_welcome_and_leave_nothing_behind() {
    let (mut sender, mut peer) = (Sender::new(config(), LIFE), Peer::new(1));
    let datagrams = [peer.message(&FromReceiver::Hello), peer.asks(SessionId(1), 7)];
    for (said, datagram) in (1..).zip(datagrams) {
        handle(&mut sender, &peer, &datagram).unwrap();
        let answers = sent(&mut sender);
        let content = opened(answers[0].clone());
        let message = FromSender::decode(&config().geometry, &content).unwrap();
        let FromSender::Welcome { session, counter, .. } = message else { panic!("{message:?}") };
        assert_eq!((session, counter, answers.len()), (SessionId(1), said, 1));
    }
    assert_eq!((sender.slots.len(), sender.stats().receivers), (0, 0));
}

#[test]
fn what_comes_from_elsewhere_is_refused() {
    let (mut sender, mut peer) = (Sender::new(config(), LIFE), Peer::new(1));
    let other = Session::new(&config().key, DistributionId(5), Role::Receiver, SessionId(1));
    let own_kind = Session::new(&config().key, ABOUT, Role::Sender, LIFE);
    for foreign in [other, own_kind] {
        let mut datagram = Vec::new();
        foreign.seal(Channel::MULTICAST, 1, &mut datagram, |out| out.push(67));
        assert_eq!(handle(&mut sender, &peer, &datagram), Err(WireError::Elsewhere));
    }
    let mut forged = peer.asks(LIFE, 7);
    *forged.last_mut().unwrap() ^= 1;
    assert_eq!(handle(&mut sender, &peer, &forged), Err(WireError::Forged));
    assert_eq!((sender.slots.len(), sender.stats().refused), (0, 3));
}

#[test]
fn a_receiver_that_asks_nonsense_is_told_nothing_and_in_the_end_not_heard() {
    let (mut sender, mut peer) = (Sender::new(config(), LIFE), Peer::new(1));
    let good = peer.asks(LIFE, 7);
    handle(&mut sender, &peer, &good).unwrap();
    sent(&mut sender);
    for _ in 0..100 {
        let nonsense = peer.says(|out| out.extend_from_slice(b"pages, please"));
        assert!(matches!(handle(&mut sender, &peer, &nonsense), Err(WireError::Malformed(_))));
    }
    let good = peer.asks(LIFE, 8);
    assert_eq!(handle(&mut sender, &peer, &good), Err(WireError::Elsewhere));
    assert!(sent(&mut sender).is_empty());
}

#[test]
fn receivers_beyond_the_limit_are_refused_and_the_last_one_is_served() {
    let mut sender = Sender::new(config(), LIFE);
    for id in 1..=MAX_RECEIVERS as u16 {
        let mut peer = Peer::new(id);
        let request = peer.asks(LIFE, 7);
        handle(&mut sender, &peer, &request).unwrap();
    }
    let mut late = Peer::new(MAX_RECEIVERS as u16 + 1);
    let request = late.asks(LIFE, 7);
    assert_eq!(handle(&mut sender, &late, &request), Err(WireError::Full));
}

#[test]
fn a_page_that_cannot_be_read_is_counted_and_the_others_are_sent() {
    let (mut sender, mut peer) = (Sender::new(config(), LIFE), Peer::new(1));
    for page in [299, 5] {
        let request = peer.asks(LIFE, page);
        handle(&mut sender, &peer, &request).unwrap();
    }
    assert_eq!((sent(&mut sender).len(), sender.stats().unreadable), (1, 1));
}

#[test]
fn who_says_good_bye_or_nothing_is_no_longer_counted() {
    let mut sender = Sender::new(config(), LIFE);
    let (mut polite, mut silent) = (Peer::new(1), Peer::new(2));
    for peer in [&mut polite, &mut silent] {
        let request = peer.asks(LIFE, 7);
        handle(&mut sender, peer, &request).unwrap();
    }
    assert_eq!(sender.stats().receivers, 2);
    let bye = polite.message(&FromReceiver::Bye { epoch: LIFE });
    handle(&mut sender, &polite, &bye).unwrap();
    assert_eq!(sender.stats().receivers, 1);
    sender.poll_transmit(Duration::from_secs(4), &mut Pages, &mut Vec::new());
    assert_eq!((sender.stats().receivers, sender.hearers), (0, 0));
}

/// What is on its way to a receiver of the repairs of the first group.
fn repairs_coming(sender: &Sender) -> usize {
    sender.repairs[&Group(0)].iter().filter(|at| **at > 0).count()
}

#[test]
fn repairs_that_are_dropped_because_nobody_is_there_are_on_their_way_to_nobody() {
    let mut sender = Sender::new(config(), LIFE);
    sender.carry_out(Group(0), &losses::Plan { repairs: 3, ..losses::Plan::default() });
    assert_eq!(repairs_coming(&sender), 3);
    sender.census();
    assert_eq!((repairs_coming(&sender), sender.amends.len()), (0, 0));
}

#[test]
fn a_repair_that_cannot_be_computed_is_on_its_way_to_nobody() {
    struct Broken;
    impl PageSource for Broken {
        fn read(&mut self, _: PageRef, _: &mut [u8]) -> std::io::Result<bool> {
            Err(std::io::ErrorKind::TimedOut.into())
        }
    }
    let mut sender = Sender::new(config(), LIFE);
    let mut buffer = vec![0; 64];
    for place in [0, 1] {
        sender.catalogue.load(&config().geometry, &mut Pages, Place(place), &mut buffer).unwrap();
    }
    sender.carry_out(Group(0), &losses::Plan { repairs: 1, ..losses::Plan::default() });
    let job = sender.amends.pop_front().unwrap();
    assert_eq!(sender.perform(Duration::ZERO, job, &mut Broken, &mut Vec::new()), None);
    assert_eq!((repairs_coming(&sender), sender.stats.unreadable), (0, 1));
}

#[test]
fn a_page_that_waits_to_be_sent_again_is_not_queued_twice() {
    let mut sender = Sender::new(config(), LIFE);
    let plan = losses::Plan { again: 0b110, ..losses::Plan::default() };
    for _ in 0..3 {
        sender.carry_out(Group(0), &plan);
    }
    assert_eq!(sender.amends.len(), 2);
    assert!(sender.next_for_all(Duration::from_secs(1)).is_some());
    sender.carry_out(Group(0), &plan);
    assert_eq!(sender.amends.len(), 2, "one has gone out, and is lost again");
}

#[test]
fn a_report_that_is_told_again_and_again_takes_no_further_memory() {
    let (mut sender, mut peer) = (Sender::new(config(), LIFE), Peer::new(1));
    let ahead: Vec<Place> = (0..96).map(Place).collect();
    for _ in 0..200 {
        let request = Request { report: 1, hears: true, ahead: ahead.clone(), ..Request::empty(LIFE) };
        let datagram = peer.message(&FromReceiver::Request(request));
        handle(&mut sender, &peer, &datagram).unwrap();
    }
    assert!((1..=slot::MOST_AHEAD).contains(&sender.slots[0].ahead.len()));
}

#[test]
fn repairs_leave_no_buffers_behind() {
    let mut sender = Sender::new(config(), LIFE);
    for index in 0..100 {
        sender.out.load_repair(Group(0), index, 1, crate::mcdist::geometry::Lane::Whole, vec![0; 64]);
        sender.next_share(Duration::ZERO, &mut Vec::new()).unwrap();
    }
    assert!(sender.out.spares() <= 3);
}
