use super::*;
use crate::mcdist::geometry::{Lane, StreamId};
use crate::mcdist::seal::Header;
use crate::mcdist::source::Found;
use crate::memory::PageIndex;

const ABOUT: DistributionId = DistributionId(4);
const LIFE: SessionId = SessionId(99);
const OURS: SessionId = SessionId(7);

fn geometry() -> Geometry {
    Geometry::with_page_bytes(&[(StreamId::MEMORY, 300)], 66).unwrap()
}

fn receiver() -> Receiver {
    let config = ReceiverConfig { distribution: ABOUT, key: Key::from_bytes([3; 32]), geometry: geometry() };
    Receiver::new(config, OURS)
}

fn page(index: u32) -> PageRef {
    PageRef { stream: StreamId::MEMORY, page: PageIndex(index) }
}

/// A store that can be full.
#[derive(Default)]
struct Store {
    put: Vec<(u32, u8)>,
    is_full: bool,
}

impl PageStore for Store {
    fn put(&mut self, page: PageRef, found: Found<'_>) -> io::Result<()> {
        if self.is_full {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let first = match found {
            Found::Data(data) => data[0],
            Found::Zero => 0,
            Found::Same(of) => 100 + of.page.0 as u8,
        };
        self.put.push((page.page.0, first));
        Ok(())
    }

    fn read(&mut self, _: PageRef, _: &mut [u8]) -> io::Result<()> {
        Err(io::ErrorKind::NotFound.into())
    }
}

/// A life of a sender that is played by the test.
struct Life(Session, u64);

impl Life {
    fn new(id: SessionId) -> Self {
        Self(Session::new(&Key::from_bytes([3; 32]), ABOUT, Role::Sender, id), 0)
    }

    fn says(&mut self, message: &FromSender<'_>) -> Vec<u8> {
        let mut out = Vec::new();
        self.1 += 1;
        self.0.seal(Channel(1), self.1, &mut out, |out| message.encode(&geometry(), out));
        out
    }

    fn welcomes(&mut self, counter: u64, pages: u32) -> Vec<u8> {
        let streams = vec![(StreamId::MEMORY, pages)];
        let report_every = Duration::from_millis(10);
        self.says(&FromSender::Welcome { session: OURS, counter, report_every, streams })
    }
}

fn handle(receiver: &mut Receiver, datagram: &[u8], store: &mut Store) -> Result<(), WireError> {
    receiver.handle_datagram(Duration::ZERO, &mut datagram.to_vec(), store)
}

/// What it says now.
fn said(receiver: &mut Receiver, now: Duration) -> Vec<FromReceiver> {
    let (mut out, mut all) = (Vec::new(), Vec::new());
    while receiver.poll_transmit(now, &mut out) {
        let mut datagram = std::mem::take(&mut out);
        let session = Session::new(&Key::from_bytes([3; 32]), ABOUT, Role::Receiver, OURS);
        let header = Header::parse(&datagram).unwrap();
        all.push(FromReceiver::decode(&geometry(), session.open(&header, &mut datagram).unwrap()).unwrap());
    }
    all
}

/// A receiver that knows its sender.
fn welcomed() -> (Receiver, Life) {
    let (mut receiver, mut life) = (receiver(), Life::new(LIFE));
    assert_eq!(said(&mut receiver, Duration::ZERO), [FromReceiver::Hello]);
    handle(&mut receiver, &life.welcomes(1, 300), &mut Store::default()).unwrap();
    (receiver, life)
}

fn epoch(messages: &[FromReceiver]) -> Option<SessionId> {
    messages.iter().find_map(|message| match message {
        FromReceiver::Request(request) => Some(request.epoch),
        FromReceiver::Hello | FromReceiver::Bye { .. } => None,
    })
}

#[test]
fn it_greets_ever_less_often_until_it_is_welcomed() {
    let mut receiver = receiver();
    let mut times = Vec::new();
    for _ in 0..8 {
        let at = receiver.poll_timeout();
        assert_eq!(said(&mut receiver, at), [FromReceiver::Hello]);
        times.push(at.as_millis());
    }
    assert_eq!(times, [0, 20, 60, 140, 300, 620, 1_120, 1_620]);
}

#[test]
fn only_the_answer_to_its_latest_words_names_the_senders_life() {
    let (mut receiver, _) = welcomed();
    let (mut dead, mut next, store) =
        (Life::new(SessionId(50)), Life::new(SessionId(51)), &mut Store::default());
    handle(&mut receiver, &dead.welcomes(1, 300), store).unwrap();
    assert_eq!(epoch(&said(&mut receiver, Duration::ZERO)), Some(LIFE), "an old answer names no new life");
    let ahead = receiver.counter + 1;
    assert_eq!(handle(&mut receiver, &dead.welcomes(ahead, 300), store), Err(WireError::Elsewhere));
    let latest = receiver.counter;
    handle(&mut receiver, &next.welcomes(latest, 300), store).unwrap();
    assert_eq!(epoch(&said(&mut receiver, Duration::ZERO)), Some(SessionId(51)));
}

#[test]
fn a_sender_of_other_streams_is_not_believed() {
    let (mut receiver, mut life) = (receiver(), Life::new(LIFE));
    said(&mut receiver, Duration::ZERO);
    let refused = handle(&mut receiver, &life.welcomes(1, 301), &mut Store::default());
    assert_eq!(refused, Err(WireError::Malformed("the sender serves other streams")));
    assert!(receiver.stats(Duration::ZERO).mismatch && receiver.link.epoch().is_none());
}

#[test]
fn a_page_counts_once_whether_asked_for_or_not_and_from_any_life() {
    let (mut receiver, mut life) = welcomed();
    let (mut old, store) = (Life::new(SessionId(1)), &mut Store::default());
    assert!(receiver.ask(Duration::ZERO, page(5)) && !receiver.ask(Duration::ZERO, page(300)));
    for (is_old, place) in [(false, 5), (true, 6), (true, 5)] {
        let life = if is_old { &mut old } else { &mut life };
        let data = [place as u8; 66];
        let datagram = life.says(&FromSender::Page { place: Place(place), lane: Lane::Whole, data: &data });
        handle(&mut receiver, &datagram, store).unwrap();
        handle(&mut receiver, &datagram, store).unwrap();
    }
    let stats = receiver.stats(Duration::ZERO);
    assert_eq!(
        (&store.put[..], stats.pages, stats.unasked, stats.missing),
        (&[(5, 5), (6, 6)][..], 2, 1, 298)
    );
    assert!(!receiver.ask(Duration::ZERO, page(6)), "it is here");
}

#[test]
fn thirds_make_a_page_in_any_order() {
    let (mut receiver, mut life, store) = (receiver(), Life::new(LIFE), &mut Store::default());
    for part in [2, 0, 0, 1] {
        let data = [part + 1; 22];
        let datagram = life.says(&FromSender::Page { place: Place(5), lane: Lane::Part(part), data: &data });
        handle(&mut receiver, &datagram, store).unwrap();
    }
    assert_eq!(store.put, [(5, 1)]);
}

#[test]
fn a_page_like_another_waits_for_it_and_two_lives_that_disagree_do_no_harm() {
    let (mut receiver, mut life, store) = (receiver(), Life::new(LIFE), &mut Store::default());
    for (place, of) in [(5, 6), (6, 5)] {
        let same = Notice::Same { place: Place(place), of: Place(of) };
        handle(&mut receiver, &life.says(&FromSender::Notice(vec![same])), store).unwrap();
    }
    assert_eq!(
        (store.put.len(), receiver.shelf.waits_for(Place(5))),
        (0, None),
        "one of them must be asked for"
    );
    let data = [9; 66];
    let datagram = life.says(&FromSender::Page { place: Place(5), lane: Lane::Whole, data: &data });
    handle(&mut receiver, &datagram, store).unwrap();
    assert_eq!(store.put, [(5, 9), (6, 105)]);
}

#[test]
fn a_full_store_is_counted_and_only_what_a_guest_waits_for_is_asked_for_meanwhile() {
    let (mut receiver, mut life) = welcomed();
    let mut store = Store { is_full: true, ..Store::default() };
    receiver.fill(Duration::ZERO, true);
    receiver.ask(Duration::ZERO, page(5));
    let zero = life.says(&FromSender::Notice(vec![Notice::Zero { first: Place(3), count: 4 }]));
    handle(&mut receiver, &zero, &mut store).unwrap();
    let messages = said(&mut receiver, Duration::ZERO);
    let [FromReceiver::Request(request)] = &messages[..] else { panic!("{messages:?}") };
    assert_eq!((request.urgent.len(), request.untouched.1, request.groups.len()), (1, 0, 0));
    assert_eq!((receiver.stats(Duration::ZERO).unstorable, receiver.missing()), (1, 300));
    store.is_full = false;
    handle(&mut receiver, &zero, &mut store).unwrap();
    assert_eq!((store.put.len(), receiver.missing()), (4, 296));
}

#[test]
fn repairs_that_cannot_be_used_are_an_error_of_the_store_and_not_of_the_sender() {
    let (mut receiver, mut life, store) = (receiver(), Life::new(LIFE), &mut Store::default());
    let known = life.says(&FromSender::Notice(vec![Notice::Zero { first: Place(1), count: 127 }]));
    handle(&mut receiver, &known, store).unwrap();
    let data = [1; 66];
    let repair =
        FromSender::Repair { group: Group(0), index: 0, covers: u128::MAX, lane: Lane::Whole, data: &data };
    handle(&mut receiver, &life.says(&repair), store).unwrap();
    assert_eq!(receiver.stats(Duration::ZERO).unstorable, 1, "the other pages cannot be read back");
}

#[test]
fn what_is_forged_or_foreign_is_refused_and_good_bye_is_said_once_there_is_someone() {
    let (mut receiver, mut life, store) = (receiver(), Life::new(LIFE), &mut Store::default());
    let mut forged = life.says(&FromSender::Beat { report_every: Duration::ZERO });
    forged[40] ^= 1;
    assert_eq!(handle(&mut receiver, &forged, store), Err(WireError::Forged));
    let elsewhere = Session::new(&Key::from_bytes([3; 32]), DistributionId(5), Role::Sender, LIFE);
    let mut foreign = Vec::new();
    elsewhere.seal(Channel::MULTICAST, 1, &mut foreign, |out| out.push(0));
    assert_eq!(handle(&mut receiver, &foreign, store), Err(WireError::Elsewhere));
    assert_eq!(receiver.stats(Duration::ZERO).refused, 2);
    let mut out = Vec::new();
    receiver.leave(&mut out);
    assert!(out.is_empty());
    let (mut receiver, _) = welcomed();
    receiver.leave(&mut out);
    assert!(!out.is_empty());
}
