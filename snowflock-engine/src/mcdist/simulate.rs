//! mcdist over a simulated network in virtual time: everything that happens is
//! a function of a scenario and a seed.
//!
//!   sender --uplink (rate, queue)--> network (loss, copies, delay) --downlink (rate, queue)--> receivers
//!
//! Used by tests (hundreds of seeds) and by `examples/mcdist.rs simulate`.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::time::Duration;

use super::geometry::{Geometry, PageRef, StreamId};
use super::receiver::{Receiver, ReceiverConfig};
use super::seal::{DistributionId, Key, SessionId};
use super::sender::{Rates, Sender, SenderConfig, SenderStats, Target};
use crate::hypervisor::plain::content::mix;
use crate::memory::PageIndex;

mod random;
mod truth;

pub use random::Random;
use truth::{Flawed, Truth, Verified};

/// Bytes of headers of Ethernet, IP and UDP: what a link carries beyond the datagram.
const FRAME: usize = 14 + 20 + 8;

/// What is simulated. Shares are 0 to 1.
#[derive(Debug, Clone)]
pub struct Scenario {
    /// Receivers.
    pub receivers: usize,
    /// Pages of memory, and of a disk.
    pub pages: (u32, u32),
    /// Bytes of a page; small ones make long runs cheap.
    pub page_bytes: usize,
    /// Pages in thirds.
    pub split: bool,
    /// Share of pages that are zero, and that are the same as another.
    pub zero: f64,
    /// See above.
    pub same: f64,
    /// Share of datagrams lost on the way to each receiver, and from it.
    pub loss: f64,
    /// Share that comes twice.
    pub copies: f64,
    /// Share that is late by up to ten milliseconds.
    pub late: f64,
    /// Bounds of the sender's rate.
    pub rates: Rates,
    /// Bytes a second of the sender's link.
    pub uplink: f64,
    /// The same of each receiver's.
    pub downlink: f64,
    /// The first receivers have a link so many times slower.
    pub slow: (usize, f64),
    /// The last receivers do not hear multicast.
    pub deaf: usize,
    /// Everything is wanted.
    pub fills: bool,
    /// Pages that each receiver prefetches, the same for all.
    pub ahead: u32,
    /// Pages that a guest of each receiver touches, one after the other.
    pub faults: u32,
    /// Receivers that come when this much time has passed.
    pub latecomers: (usize, Duration),
    /// The sender is replaced by another at this time.
    pub restart: Option<Duration>,
    /// Datagrams of others, a share of all: foreign, forged, played again.
    pub noise: f64,
    /// Share of reads of the sender's source that fail, at random.
    pub unreadable: f64,
}

impl Default for Scenario {
    fn default() -> Self {
        Self {
            receivers: 4,
            pages: (1_000, 200),
            page_bytes: 64,
            split: false,
            zero: 0.1,
            same: 0.1,
            loss: 0.0,
            copies: 0.0,
            late: 0.0,
            rates: Rates::default(),
            uplink: 125e6,
            downlink: 125e6,
            slow: (0, 1.0),
            deaf: 0,
            fills: true,
            ahead: 0,
            faults: 0,
            latecomers: (0, Duration::ZERO),
            restart: None,
            noise: 0.0,
            unreadable: 0.0,
        }
    }
}

/// What came of it.
#[derive(Clone)]
pub struct Outcome {
    /// When each receiver had all that it wanted; `None` if never.
    pub finished: Vec<Option<Duration>>,
    /// How long each page was waited for.
    pub waits: Vec<Duration>,
    /// Bytes of pages and repairs sent, over the bytes of all pages with content of their own.
    pub payload_ratio: f64,
    /// The sender's counters; of its last life, if it had several.
    pub sender: SenderStats,
    /// Datagrams of receivers.
    pub requests: u64,
    /// Things that happened.
    pub events: u64,
}

impl std::fmt::Debug for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let unfinished: Vec<_> = (0..self.finished.len()).filter(|at| self.finished[*at].is_none()).collect();
        let (first, last) = (self.finished.iter().flatten().min(), self.finished.iter().flatten().max());
        f.debug_struct("Outcome")
            .field("unfinished", &unfinished)
            .field("first", &first)
            .field("last", &last)
            .field("waits", &self.waits.len())
            .field("payload_ratio", &self.payload_ratio)
            .field("requests", &self.requests)
            .field("sender", &self.sender)
            .finish_non_exhaustive()
    }
}

impl Outcome {
    /// When the last receiver had all; `None` if one never had.
    #[must_use]
    pub fn end(&self) -> Option<Duration> {
        self.finished.iter().copied().collect::<Option<Vec<_>>>()?.into_iter().max()
    }
}

#[derive(Debug)]
enum Event {
    ToAll(Rc<Vec<u8>>),
    ToOne(usize, Rc<Vec<u8>>),
    ToSender(usize, Vec<u8>),
    WakeSender,
    WakeReceiver(usize),
    Join(usize),
    Restart,
}

struct Peer {
    core: Receiver,
    store: Verified,
    /// Its next wake-up that is in the queue.
    wake: Duration,
    link_free: Duration,
    joined: bool,
    faults: u32,
    asked: Option<(Duration, PageRef)>,
    finished: Option<Duration>,
    share: f64,
}

struct World {
    scenario: Scenario,
    random: Random,
    key: Key,
    geometry: Geometry,
    truth: Rc<Truth>,
    sender: Sender,
    sender_wake: Duration,
    uplink_free: Duration,
    peers: Vec<Peer>,
    queue: BinaryHeap<Reverse<(Duration, u64)>>,
    events: Vec<Option<Event>>,
    free: Vec<u64>,
    order: u64,
    waits: Vec<Duration>,
    requests: u64,
    happened: u64,
    payload: u64,
    old: Option<Rc<Vec<u8>>>,
}

/// Runs until every receiver has what it wants, or `limit` has passed.
#[must_use]
pub fn run(scenario: &Scenario, seed: u64, limit: Duration) -> Outcome {
    let mut world = World::new(scenario.clone(), seed);
    let unique = world.truth.unique();
    while let Some((now, event)) = world.next()
        && now <= limit
        && !world.is_done()
    {
        world.happened += 1;
        world.apply(now, event);
    }
    let payload = world.payload + world.sender.stats().payload_bytes;
    let unique_bytes = u64::from(unique.max(1)) * scenario.page_bytes as u64;
    Outcome {
        finished: world.peers.iter().map(|peer| peer.finished).collect(),
        waits: world.waits,
        payload_ratio: payload as f64 / unique_bytes as f64,
        sender: world.sender.stats(),
        requests: world.requests,
        events: world.happened,
    }
}

impl World {
    fn new(scenario: Scenario, seed: u64) -> Self {
        let streams = [(StreamId::MEMORY, scenario.pages.0), (StreamId(1), scenario.pages.1)];
        let streams = &streams[..if scenario.pages.1 == 0 { 1 } else { 2 }];
        let geometry = Geometry::with_page_bytes(streams, scenario.page_bytes)
            .unwrap_or_else(|error| unreachable!("a scenario is made by us: {error}"));
        let truth = Rc::new(Truth::new(&geometry, seed, scenario.zero, scenario.same));
        let key = Key::from_bytes([seed as u8; 32]);
        let mut random = Random::new(seed);
        let sender = sender(&scenario, &key, &geometry, &mut random);
        let mut world = Self {
            peers: Vec::new(),
            queue: BinaryHeap::new(),
            events: Vec::new(),
            free: Vec::new(),
            order: 0,
            waits: Vec::new(),
            requests: 0,
            happened: 0,
            payload: 0,
            old: None,
            sender_wake: Duration::MAX,
            uplink_free: Duration::ZERO,
            scenario,
            random,
            key,
            geometry,
            truth,
            sender,
        };
        (0..world.scenario.receivers).for_each(|index| world.add(index));
        if let Some(at) = world.scenario.restart {
            world.push(at, Event::Restart);
        }
        world
    }

    fn add(&mut self, index: usize) {
        let config = ReceiverConfig {
            distribution: DistributionId(5),
            key: self.key.clone(),
            geometry: self.geometry.clone(),
        };
        let (slow, factor) = self.scenario.slow;
        self.peers.push(Peer {
            core: Receiver::new(config, SessionId(self.random.number())),
            store: Verified::new(Rc::clone(&self.truth)),
            wake: Duration::MAX,
            link_free: Duration::ZERO,
            joined: false,
            faults: self.scenario.faults,
            asked: None,
            finished: None,
            share: if index < slow { factor } else { 1.0 },
        });
        let (late, after) = self.scenario.latecomers;
        let jitter = Duration::from_micros(self.random.below(3_000));
        self.push(if index < late { after } else { Duration::ZERO } + jitter, Event::Join(index));
    }

    fn push(&mut self, at: Duration, event: Event) {
        let place = match self.free.pop() {
            Some(place) => {
                self.events[place as usize] = Some(event);
                place
            }
            None => {
                self.events.push(Some(event));
                self.events.len() as u64 - 1
            }
        };
        // Events of one moment happen in the order in which they were caused.
        self.order += 1;
        self.queue.push(Reverse((at, self.order << 24 | place)));
    }

    fn next(&mut self) -> Option<(Duration, Event)> {
        let Reverse((at, key)) = self.queue.pop()?;
        let place = key & 0xff_ffff;
        self.free.push(place);
        let event = self.events[place as usize].take()?;
        Some((at, event))
    }

    fn is_done(&self) -> bool {
        self.peers.iter().all(|peer| peer.finished.is_some())
    }

    fn apply(&mut self, now: Duration, event: Event) {
        match event {
            Event::ToAll(bytes) => {
                for index in 0..self.peers.len() - self.scenario.deaf {
                    self.arrive_or_not(now, index, &bytes);
                }
            }
            Event::ToOne(index, bytes) => self.arrive(now, index, &bytes),
            Event::ToSender(index, mut bytes) => {
                let from = address(index);
                let _ = self.sender.handle_datagram(now, from, &mut bytes);
                self.run_sender(now);
            }
            Event::WakeSender => {
                if now >= self.sender_wake {
                    self.sender_wake = Duration::MAX;
                    self.run_sender(now);
                }
            }
            Event::WakeReceiver(index) => {
                if now >= self.peers[index].wake {
                    self.peers[index].wake = Duration::MAX;
                    self.run_receiver(now, index);
                }
            }
            Event::Join(index) => self.join(now, index),
            Event::Restart => {
                self.payload += self.sender.stats().payload_bytes;
                self.sender = sender(&self.scenario, &self.key, &self.geometry, &mut self.random);
            }
        }
    }

    fn join(&mut self, now: Duration, index: usize) {
        let ahead: Vec<_> = (0..self.scenario.ahead).map(|step| self.truth.touched(step)).collect();
        let peer = &mut self.peers[index];
        peer.joined = true;
        peer.core.fill(now, self.scenario.fills);
        peer.core.prefetch(now, ahead.into_iter());
        self.run_receiver(now, index);
    }

    /// Multicast meets each receiver's own luck.
    fn arrive_or_not(&mut self, now: Duration, index: usize, bytes: &Rc<Vec<u8>>) {
        if self.random.chance(self.scenario.loss) {
            return;
        }
        let is_slow = self.peers[index].share < 1.0 || self.scenario.downlink < self.scenario.uplink;
        let (late, copies) = (self.scenario.late, self.scenario.copies);
        if !is_slow && late == 0.0 && copies == 0.0 {
            return self.arrive(now, index, bytes);
        }
        self.deliver(now, index, bytes);
        if self.random.chance(copies) {
            self.deliver(now, index, bytes);
        }
    }

    /// Through the receiver's link, which has a queue of 20 ms.
    fn deliver(&mut self, now: Duration, index: usize, bytes: &Rc<Vec<u8>>) {
        let rate = self.scenario.downlink * self.peers[index].share;
        let free = self.peers[index].link_free.max(now);
        if free > now + Duration::from_millis(20) {
            return;
        }
        let free = free + Duration::from_secs_f64((bytes.len() + FRAME) as f64 / rate);
        self.peers[index].link_free = free;
        let late = match self.random.chance(self.scenario.late) {
            true => Duration::from_micros(self.random.below(10_000)),
            false => Duration::ZERO,
        };
        self.push(free + late, Event::ToOne(index, Rc::clone(bytes)));
    }

    fn arrive(&mut self, now: Duration, index: usize, bytes: &[u8]) {
        let peer = &mut self.peers[index];
        if !peer.joined {
            return;
        }
        let _ = peer.core.handle_datagram(now, &mut bytes.to_vec(), &mut peer.store);
        if self.scenario.noise > 0.0 && self.random.chance(self.scenario.noise) {
            self.disturb(now, index, bytes);
        }
        self.run_receiver(now, index);
    }

    /// What an enemy without the key can do: change, and play again.
    fn disturb(&mut self, now: Duration, index: usize, bytes: &[u8]) {
        let mut forged = bytes.to_vec();
        let at = self.random.below(forged.len() as u64) as usize;
        forged[at] ^= 1 << self.random.below(8);
        let peer = &mut self.peers[index];
        let refused = peer.core.handle_datagram(now, &mut forged, &mut peer.store);
        assert!(refused.is_err(), "a forged datagram was taken");
        let old = self.old.replace(Rc::new(bytes.to_vec()));
        if let Some(old) = old {
            let peer = &mut self.peers[index];
            let _ = peer.core.handle_datagram(now, &mut old.to_vec(), &mut peer.store);
        }
    }

    fn run_receiver(&mut self, now: Duration, index: usize) {
        self.touch(now, index);
        let mut out = Vec::new();
        while self.peers[index].core.poll_transmit(now, &mut out) {
            self.requests += 1;
            let bytes = std::mem::take(&mut out);
            if !self.random.chance(self.scenario.loss) {
                let mut delay = Duration::from_micros(100 + self.random.below(50));
                if self.random.chance(self.scenario.late) {
                    delay += Duration::from_micros(self.random.below(10_000));
                }
                if self.random.chance(self.scenario.copies.max(self.scenario.noise)) {
                    self.push(now + delay * 2, Event::ToSender(index, bytes.clone()));
                }
                self.push(now + delay, Event::ToSender(index, bytes));
            }
        }
        let wake = self.peers[index].core.poll_timeout().max(now + Duration::from_micros(1));
        if wake < self.peers[index].wake {
            self.peers[index].wake = wake;
            self.push(wake, Event::WakeReceiver(index));
        }
    }

    /// The guest: touches one page after the other, and the receiver may be done.
    fn touch(&mut self, now: Duration, index: usize) {
        let peer = &mut self.peers[index];
        if let Some((since, page)) = peer.asked
            && peer.store.has(page)
        {
            self.waits.push(now.saturating_sub(since));
            peer.asked = None;
        }
        while peer.asked.is_none() && peer.faults > 0 {
            peer.faults -= 1;
            let page = self.truth.touched(mix(u64::from(peer.faults)) as u32 ^ index as u32);
            if peer.core.ask(now, page) {
                peer.asked = Some((now, page));
            }
        }
        let wants_all = self.scenario.fills || self.scenario.ahead > 0;
        let has_all = match self.scenario.fills {
            true => peer.core.missing() == 0,
            false => (0..self.scenario.ahead).all(|step| peer.store.has(self.truth.touched(step))),
        };
        let is_done = peer.joined && peer.asked.is_none() && (has_all || !wants_all);
        if is_done && peer.finished.is_none() {
            peer.finished = Some(now);
        }
    }

    fn run_sender(&mut self, now: Duration) {
        let mut out = Vec::new();
        let (share, seed) = (self.scenario.unreadable, self.random.number());
        let mut source = Flawed { truth: Rc::clone(&self.truth), share, random: Random::new(seed) };
        while let Some(target) = self.sender.poll_transmit(now, &mut source, &mut out) {
            let bytes = Rc::new(std::mem::take(&mut out));
            self.transmit(now, target, &bytes);
        }
        if let Some(wake) = self.sender.poll_timeout() {
            let wake = wake.max(now + Duration::from_micros(1));
            if wake < self.sender_wake {
                self.sender_wake = wake;
                self.push(wake, Event::WakeSender);
            }
        }
    }

    /// Through the sender's link, which has a queue of 20 ms.
    fn transmit(&mut self, now: Duration, target: Target, bytes: &Rc<Vec<u8>>) {
        let free = self.uplink_free.max(now);
        if free > now + Duration::from_millis(20) {
            return;
        }
        self.uplink_free =
            free + Duration::from_secs_f64((bytes.len() + FRAME) as f64 / self.scenario.uplink);
        let at = self.uplink_free + Duration::from_micros(100);
        match target {
            Target::All => self.push(at, Event::ToAll(Rc::clone(bytes))),
            Target::One(address) => {
                let index = usize::from(address.port()) - 1;
                if !self.random.chance(self.scenario.loss) {
                    self.deliver(at, index, bytes);
                }
            }
        }
    }
}

fn sender(scenario: &Scenario, key: &Key, geometry: &Geometry, random: &mut Random) -> Sender {
    let config = SenderConfig {
        distribution: DistributionId(5),
        key: key.clone(),
        geometry: geometry.clone(),
        split: scenario.split,
        rates: scenario.rates,
    };
    Sender::new(config, SessionId(random.number()))
}

fn address(index: usize) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, index as u16 + 1).into()
}

/// A scenario of many kinds of trouble, drawn by the seed.
#[must_use]
pub fn drawn(seed: u64) -> Scenario {
    let mut random = Random::new(seed ^ 0x5eed);
    let mut share = |most: f64| random.number() as f64 / u64::MAX as f64 * most;
    let trouble = share(1.0);
    let ms = |millis: f64| Duration::from_micros((millis * 1e3) as u64);
    let receivers = 1 + share(6.0) as usize;
    Scenario {
        receivers,
        pages: (200 + share(1_500.0) as u32, share(300.0) as u32),
        split: share(1.0) < 0.3,
        page_bytes: 96,
        zero: share(0.5),
        same: share(0.3),
        loss: if trouble < 0.7 { share(0.2) } else { 0.0 },
        copies: if trouble < 0.5 { share(0.2) } else { 0.0 },
        late: if trouble < 0.5 { share(0.3) } else { 0.0 },
        uplink: 12.5e6 * (1.0 + share(99.0)),
        downlink: 12.5e6 * (1.0 + share(99.0)),
        slow: (usize::from(share(1.0) < 0.2), 0.1),
        deaf: if share(1.0) < 0.3 { share(receivers as f64 + 1.0) as usize } else { 0 }.min(receivers),
        fills: share(1.0) < 0.7,
        ahead: share(150.0) as u32,
        faults: share(60.0) as u32,
        latecomers: (share(receivers as f64 / 2.0) as usize, ms(share(60.0))),
        restart: (share(1.0) < 0.25).then(|| ms(share(40.0))),
        noise: if share(1.0) < 0.4 { 0.1 } else { 0.0 },
        unreadable: if share(1.0) < 0.2 { share(0.02) } else { 0.0 },
        rates: Rates::default(),
    }
}

/// A page of the row of all pages by number.
fn page_ref(geometry: &Geometry, number: u32) -> PageRef {
    let mut left = number;
    for (stream, pages) in geometry.streams() {
        if left < *pages {
            return PageRef { stream: *stream, page: PageIndex(left) };
        }
        left -= pages;
    }
    PageRef { stream: StreamId::MEMORY, page: PageIndex(0) }
}

#[cfg(test)]
mod tests;
