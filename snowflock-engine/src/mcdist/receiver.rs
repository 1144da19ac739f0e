//! A receiver, without sockets and clocks: datagrams in, pages and datagrams out.
//!
//!   greet -> welcomed -> report every interval what came and what is missing
//!                        ask at once for what a guest waits for, and again
//!   page that comes, asked for or not -> store
//!
//! Time is the time since the receiver's start.

use std::collections::VecDeque;
use std::io;
use std::time::Duration;

use super::geometry::{GROUP_PAGES, Geometry, Group, PageRef, Place};
use super::message::{
    FromReceiver, FromSender, MAX_AHEAD, MAX_GROUPS, MAX_URGENT, Missing, Notice, Request, WireError,
};
use super::seal::{Channel, DistributionId, Key, Role, Session, SessionId};
use super::source::PageStore;

mod asks;
mod link;
mod shelf;

use asks::Asks;
use link::Link;
use shelf::Shelf;

/// Greetings are repeated after this, and twice as late each time.
const GREET: Duration = Duration::from_millis(20);
const GREET_LATEST: Duration = Duration::from_millis(500);
/// Who wants nothing says so this often.
const IDLE: Duration = Duration::from_secs(1);
/// Datagrams of one report.
const REPORT_DATAGRAMS: usize = 16;
/// Groups wanted at once beyond those that are under way: 32 MiB, which is 10 ms at 25 Gbit/s.
const WINDOW: u32 = 64;
/// After a page could not be stored, only what guests wait for is asked for.
const STORE_PAUSE: Duration = Duration::from_secs(1);

/// What a store that does not say more has: an input/output error.
const EIO: i32 = 5;

/// How a receiver receives.
#[derive(Debug, Clone)]
pub struct ReceiverConfig {
    /// Which checkpoint.
    pub distribution: DistributionId,
    /// Its key.
    pub key: Key,
    /// Its streams.
    pub geometry: Geometry,
}

/// Counters since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct ReceiverStats {
    /// Pages missing.
    pub missing: u32,
    /// Pages that came, however.
    pub pages: u64,
    /// Those that nobody had asked for.
    pub unasked: u64,
    /// Those that were computed from repairs.
    pub repaired: u64,
    /// Datagrams refused: foreign, forged, malformed.
    pub refused: u64,
    /// Pages that could not be stored.
    pub unstorable: u64,
    /// Why the last page that came could not be stored, as the system's error number; none if it could.
    pub store_errno: Option<i32>,
    /// Datagrams that the system did not take.
    pub unsent: u64,
    /// Questions open.
    pub asks: u32,
    /// For how long the oldest of them has been, milliseconds.
    pub oldest_ask_ms: u64,
    /// The sender was heard this many milliseconds ago; none if never.
    pub heard_ms: Option<u64>,
    /// Multicast is heard.
    pub hears: bool,
    /// The sender serves other streams than these.
    pub mismatch: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Receiver {
    geometry: Geometry,
    session: Session,
    counter: u64,
    link: Link,
    shelf: Shelf,
    asks: Asks,
    ahead: VecDeque<Place>,
    fills: bool,
    /// All groups before it are complete.
    first_open: Group,
    reports: u32,
    outbox: VecDeque<Request>,
    report_every: Duration,
    report_at: Duration,
    greet_at: Duration,
    greet_after: Duration,
    heard: bool,
    store_pause: Duration,
    stats: ReceiverStats,
}

impl Receiver {
    /// A new life of a receiver; `session` is random.
    #[must_use]
    pub fn new(config: ReceiverConfig, session: SessionId) -> Self {
        let ReceiverConfig { distribution, key, geometry } = config;
        Self {
            session: Session::new(&key, distribution, Role::Receiver, session),
            counter: 0,
            link: Link::new(distribution, key),
            shelf: Shelf::new(geometry.clone()),
            asks: Asks::default(),
            ahead: VecDeque::new(),
            fills: false,
            first_open: Group(0),
            reports: 0,
            outbox: VecDeque::new(),
            report_every: Duration::from_millis(10),
            report_at: Duration::ZERO,
            greet_at: Duration::ZERO,
            greet_after: GREET,
            heard: false,
            store_pause: Duration::ZERO,
            stats: ReceiverStats::default(),
            geometry,
        }
    }

    /// The page is in the store already.
    pub fn note_known(&mut self, page: PageRef) {
        if let Some(place) = self.geometry.place(page) {
            self.shelf.note_known(place);
        }
    }

    /// A guest waits for a page; `false` if it is here, or does not exist.
    pub fn ask(&mut self, now: Duration, page: PageRef) -> bool {
        let Some(place) = self.geometry.place(page).filter(|place| !self.shelf.knows(*place)) else {
            return false;
        };
        self.asks.open(now, self.shelf.waits_for(place).unwrap_or(place));
        self.asks.open(now, place);
        true
    }

    /// These pages will be touched soon, in this order. They come before all others.
    pub fn prefetch(&mut self, now: Duration, pages: impl Iterator<Item = PageRef>) {
        let geometry = &self.geometry;
        self.ahead.extend(pages.filter_map(|page| geometry.place(page)));
        self.report_at = now;
    }

    /// Whether everything is wanted in the end.
    pub fn fill(&mut self, now: Duration, fills: bool) {
        self.fills = fills;
        self.report_at = now;
    }

    /// Pages that are missing.
    #[must_use]
    pub fn missing(&self) -> u32 {
        self.shelf.missing()
    }

    /// Counters since the start.
    #[must_use]
    pub fn stats(&self, now: Duration) -> ReceiverStats {
        ReceiverStats {
            missing: self.shelf.missing(),
            repaired: self.shelf.repaired,
            asks: self.asks.len() as u32,
            oldest_ask_ms: self.asks.oldest(now).map_or(0, |age| age.as_millis() as u64),
            heard_ms: self.link.last.map(|last| now.saturating_sub(last).as_millis() as u64),
            hears: self.link.hears(now),
            ..self.stats
        }
    }

    /// Takes a datagram in, which is opened in its place; pages go to the store.
    ///
    /// # Errors
    /// It is not used; see [`WireError`].
    pub fn handle_datagram(
        &mut self,
        now: Duration,
        datagram: &mut [u8],
        store: &mut impl PageStore,
    ) -> Result<(), WireError> {
        let handled = self.take(now, datagram, store);
        self.stats.refused += u64::from(handled.is_err());
        handled
    }

    fn take(
        &mut self,
        now: Duration,
        datagram: &mut [u8],
        store: &mut impl PageStore,
    ) -> Result<(), WireError> {
        let (header, opened) = self.link.open(now, datagram)?;
        let message = FromSender::decode(&self.geometry, opened)?;
        if !self.heard && self.link.hears(now) {
            // The sender shall know at once.
            (self.heard, self.report_at) = (true, now);
        }
        let is_page = matches!(message, FromSender::Page { .. });
        let stored = match message {
            FromSender::Welcome { session, counter, report_every, streams } => {
                if session != self.session.id() || counter > self.counter {
                    return Err(WireError::Elsewhere);
                }
                return self.welcome(now, header.session, counter, report_every, &streams);
            }
            FromSender::Beat { report_every } => {
                self.pace(report_every);
                Ok(())
            }
            FromSender::Page { place, lane, data } => self.shelf.page(place, lane, data, store),
            FromSender::Repair { group, index, covers, lane, data } => {
                self.shelf.repair((group, lane), index, covers, data, store)
            }
            FromSender::Notice(notices) => self.take_notices(now, &notices, store),
        };
        if stored.is_ok() && is_page && !self.shelf.arrived.is_empty() {
            self.stats.store_errno = None;
        }
        if let Err(error) = stored {
            tracing::warn!(%error, "a page cannot be stored");
            self.stats.unstorable += 1;
            self.stats.store_errno = Some(error.raw_os_error().unwrap_or(EIO));
            self.store_pause = now + STORE_PAUSE;
        }
        self.look_at_arrivals(now);
        Ok(())
    }

    fn take_notices(
        &mut self,
        now: Duration,
        notices: &[Notice],
        store: &mut impl PageStore,
    ) -> io::Result<()> {
        for notice in notices {
            match *notice {
                Notice::Zero { first, count } => {
                    for place in (first.0..first.0 + u32::from(count)).map(Place) {
                        self.shelf.zero(place, store)?;
                    }
                }
                Notice::Same { place, of } => {
                    self.shelf.same(place, of, store)?;
                    let is_asked = self.asks.is_open(place);
                    if let Some(of) = self.shelf.waits_for(place).filter(|_| is_asked) {
                        self.asks.open(now, of);
                    }
                }
            }
        }
        Ok(())
    }

    fn look_at_arrivals(&mut self, now: Duration) {
        for place in std::mem::take(&mut self.shelf.arrived) {
            let was_asked = self.asks.close(now, place);
            self.stats.pages += 1;
            self.stats.unasked += u64::from(!was_asked);
        }
    }

    fn welcome(
        &mut self,
        now: Duration,
        life: SessionId,
        counter: u64,
        report_every: Duration,
        streams: &[(super::geometry::StreamId, u32)],
    ) -> Result<(), WireError> {
        self.stats.mismatch = streams != self.geometry.streams();
        if self.stats.mismatch {
            return Err(WireError::Malformed("the sender serves other streams"));
        }
        if self.link.welcome(now, life, counter) {
            self.pace(report_every);
            self.asks.restart(now);
            self.outbox.clear();
            (self.heard, self.reports, self.report_at) = (false, 0, now);
        }
        Ok(())
    }

    fn pace(&mut self, report_every: Duration) {
        self.report_every = report_every.clamp(Duration::from_millis(1), IDLE);
    }

    /// When to call [`Receiver::poll_transmit`] even if nothing happens.
    #[must_use]
    pub fn poll_timeout(&self) -> Duration {
        match self.link.epoch() {
            None => self.greet_at,
            Some(_) => self.asks.next().unwrap_or(Duration::MAX).min(self.report_at),
        }
    }

    /// Appends the next datagram for the sender to `out`; `false` if there is none now.
    pub fn poll_transmit(&mut self, now: Duration, out: &mut Vec<u8>) -> bool {
        let Some(epoch) = self.link.epoch() else { return self.greet(now, out) };
        let urgent = self.asks.take_due(now, MAX_URGENT);
        if now >= self.report_at {
            self.report(now, epoch);
        }
        let request = match self.outbox.pop_front() {
            Some(request) => Request { urgent, ..request },
            None if urgent.is_empty() => return false,
            None => Request { urgent, report: self.reports, ..self.standing(now, epoch) },
        };
        self.say(&FromReceiver::Request(request), out);
        true
    }

    /// Says good-bye; the sender forgets the receiver's wishes.
    pub fn leave(&mut self, out: &mut Vec<u8>) {
        if let Some(epoch) = self.link.epoch() {
            self.say(&FromReceiver::Bye { epoch }, out);
        }
    }

    fn greet(&mut self, now: Duration, out: &mut Vec<u8>) -> bool {
        if now < self.greet_at {
            return false;
        }
        self.greet_at = now + self.greet_after;
        self.greet_after = (self.greet_after * 2).min(GREET_LATEST);
        self.say(&FromReceiver::Hello, out);
        true
    }

    fn say(&mut self, message: &FromReceiver, out: &mut Vec<u8>) {
        self.counter += 1;
        let geometry = &self.geometry;
        self.session.seal(Channel::MULTICAST, self.counter, out, |out| message.encode(geometry, out));
    }

    /// What every request tells.
    fn standing(&mut self, now: Duration, epoch: SessionId) -> Request {
        let (multicast, unicast) = self.link.received();
        let missing = if self.fills { self.shelf.missing() } else { self.ahead.len() as u32 };
        let missing = missing + self.asks.len() as u32;
        let hears = self.link.hears(now);
        Request { hears, fills: self.fills, multicast, unicast, missing, ..Request::empty(epoch) }
    }

    /// Puts a report into the outbox.
    fn report(&mut self, now: Duration, epoch: SessionId) {
        self.reports += 1;
        self.heard = self.link.hears(now);
        let rate = self.link.rate(now);
        let standing = Request { report: self.reports, rate, ..self.standing(now, epoch) };
        self.outbox.clear();
        let (ahead, groups, untouched) = match now >= self.store_pause {
            true => self.wishes(),
            false => (Vec::new(), Vec::new(), (Group(0), 0)),
        };
        let (mut ahead, mut groups) = (ahead.chunks(MAX_AHEAD), groups.chunks(MAX_GROUPS));
        let mut request = Request { untouched, ..standing.clone() };
        loop {
            let (pages, missing) = (ahead.next(), groups.next());
            let is_last = pages.is_none() && missing.is_none();
            if is_last && !self.outbox.is_empty() {
                break;
            }
            request.ahead = pages.unwrap_or_default().to_vec();
            request.groups = missing.unwrap_or_default().to_vec();
            self.outbox.push_back(std::mem::replace(&mut request, standing.clone()));
            if is_last {
                break;
            }
        }
        let wants = standing.missing > 0;
        self.report_at = now + if wants { self.jittered() } else { IDLE };
    }

    /// Reports of many receivers shall not come at once.
    fn jittered(&self) -> Duration {
        let noise = (self.session.id().0 ^ u64::from(self.reports)).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56;
        self.report_every * (192 + noise as u32 / 2) / 256
    }

    fn wishes(&mut self) -> (Vec<Place>, Vec<Missing>, (Group, u16)) {
        let shelf = &self.shelf;
        self.ahead.retain(|place| !shelf.knows(*place));
        let wanted = |place: &Place| shelf.waits_for(*place).unwrap_or(*place);
        let ahead = self.ahead.iter().take(MAX_AHEAD * REPORT_DATAGRAMS).map(wanted).collect();
        if !self.fills {
            return (ahead, Vec::new(), (Group(0), 0));
        }
        let end = self.geometry.groups();
        let is_complete = |group| self.geometry.mask(group) & !shelf.known(group) == 0;
        while self.first_open.0 < end && is_complete(self.first_open) {
            self.first_open.0 += 1;
        }
        let (mut groups, mut untouched) = (Vec::new(), (Group(0), 0u16));
        for group in (self.first_open.0..end).map(Group) {
            let (pages, held) = shelf.wanting(group);
            let follows = untouched.1 == 0 || untouched.0.0 + u32::from(untouched.1) == group.0;
            if pages == 0 {
                continue;
            } else if pages == self.geometry.mask(group) && held == 0 && follows {
                untouched = (if untouched.1 == 0 { group } else { untouched.0 }, untouched.1 + 1);
            } else {
                groups.push(Missing { group, pages, held });
            }
            if u32::from(untouched.1) >= WINDOW || groups.len() >= MAX_GROUPS * REPORT_DATAGRAMS {
                break;
            }
        }
        (ahead, groups, untouched)
    }
}

#[cfg(test)]
mod tests;
