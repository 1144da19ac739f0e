//! The sender, without sockets and clocks: datagrams in, datagrams out.
//!
//!   request -> slot (who) -> urgent | ahead | private queue of that receiver
//!                         -> fresh groups, losses (for all)
//!   poll_transmit: answers > urgent > ahead > fresh and lost groups, at the pacer's rate
//!
//! Time is the time since the sender's start.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use super::code::{Encoder, REPAIRS};
use super::geometry::{GROUP_PAGES, Geometry, Group, Place};
use super::message::{FromReceiver, FromSender, MAX_NOTICES, MAX_RUN, Notice, Request, WireError};
use super::seal::{DistributionId, Header, Key, Role, Session, SessionId};
use super::source::PageSource;

mod catalogue;
mod inbox;
mod losses;
mod outgoing;
mod pacer;
mod slot;
mod turns;

use catalogue::{Catalogue, Class, Sent};
use losses::Losses;
use outgoing::Outgoing;
use pacer::Pacer;
pub use pacer::Rates;
use slot::Slot;
use turns::Turns;

/// Receivers in one life of a sender. None is forgotten, or its requests could be played again.
pub const MAX_RECEIVERS: usize = 4_096;
/// After a page went to all, and nothing since, a beat tells that it did.
const QUIET: Duration = Duration::from_millis(5);
/// Beats while receivers are there.
const BEAT: Duration = Duration::from_millis(50);
/// The counter of a repair that waits for its turn: it is on its way to everyone.
const WAITING: u64 = u64::MAX;
/// The counter of a repair that was dropped: it is on its way to nobody.
const NEVER: u64 = 0;
/// Datagrams of pages after which waiting notices go out.
const NOTICE_EVERY: u32 = 32;

/// How a sender sends.
#[derive(Debug, Clone)]
pub struct SenderConfig {
    /// Which checkpoint.
    pub distribution: DistributionId,
    /// Its key.
    pub key: Key,
    /// Its streams.
    pub geometry: Geometry,
    /// Pages in thirds, for routes with a small MTU.
    pub split: bool,
    /// Bounds of the rate.
    pub rates: Rates,
}

/// Where a datagram goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Target {
    /// The multicast group.
    All,
    /// One receiver.
    One(SocketAddr),
}

/// Counters since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct SenderStats {
    /// Receivers that were there lately.
    pub receivers: u32,
    /// Datagrams sent.
    pub datagrams: u64,
    /// Bytes of pages and repairs in them.
    pub payload_bytes: u64,
    /// Pages to all.
    pub multicast: u64,
    /// Pages to one receiver.
    pub unicast: u64,
    /// Repairs to all.
    pub repairs: u64,
    /// Pages that needed no content.
    pub noticed: u64,
    /// Wishes for a page that was on its way.
    pub lockstep: u64,
    /// Datagrams refused: foreign, forged, played again, malformed.
    pub refused: u64,
    /// Pages that could not be read.
    pub unreadable: u64,
    /// Datagrams that the system did not take.
    pub unsent: u64,
    /// Bytes a second at present.
    pub rate: u64,
}

impl std::ops::Add for SenderStats {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            receivers: self.receivers + other.receivers,
            datagrams: self.datagrams + other.datagrams,
            payload_bytes: self.payload_bytes + other.payload_bytes,
            multicast: self.multicast + other.multicast,
            unicast: self.unicast + other.unicast,
            repairs: self.repairs + other.repairs,
            noticed: self.noticed + other.noticed,
            lockstep: self.lockstep + other.lockstep,
            refused: self.refused + other.refused,
            unreadable: self.unreadable + other.unreadable,
            unsent: self.unsent + other.unsent,
            rate: self.rate + other.rate,
        }
    }
}

/// To all, or to one slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum To {
    All,
    Slot(usize),
}

/// A wish that has its turn.
#[derive(Debug, Clone, Copy)]
enum Job {
    Page(To, Place),
    /// With a guest waiting for it.
    Urgent(To, Place),
    Repair(Group, u8),
}

/// See the module.
#[derive(Debug)]
pub struct Sender {
    geometry: Geometry,
    distribution: DistributionId,
    key: Key,
    out: Outgoing,
    slots: Vec<Slot>,
    sessions: HashMap<SessionId, usize>,
    catalogue: Catalogue,
    encoder: Encoder,
    pacer: Pacer,
    urgent: Turns,
    ahead: Turns,
    private: Turns,
    /// Groups that are wanted and have not gone out whole.
    fresh: BTreeSet<Group>,
    /// The one that is going out, and what is left of it.
    current: Option<(Group, u128)>,
    losses: Losses,
    /// Pages and repairs for all that make losses good, and the pages among them: reports tell a loss
    /// again for as long as it lasts.
    amends: VecDeque<Job>,
    amending: HashSet<Place>,
    repairs: HashMap<Group, Vec<u64>>,
    notices: BTreeMap<To, Vec<Notice>>,
    since_notice: u32,
    beat_at: Duration,
    /// Slots whose private pages have all gone out, to be told so.
    tails: VecDeque<(Duration, usize)>,
    /// Slots that want something and hear; and all that hear.
    needy: usize,
    hearers: usize,
    tick_at: Duration,
    report_every: Duration,
    private_turn: bool,
    /// When a page may leave that was held back.
    held_back: Option<Duration>,
    rates: Rates,
    buffer: Vec<u8>,
    stats: SenderStats,
}

impl Sender {
    /// A new life of a sender; `session` is random.
    #[must_use]
    pub fn new(config: SenderConfig, session: SessionId) -> Self {
        let SenderConfig { distribution, key, geometry, split, rates } = config;
        let sealing = Session::new(&key, distribution, Role::Sender, session);
        Self {
            out: Outgoing::new(sealing, split),
            slots: Vec::new(),
            sessions: HashMap::new(),
            catalogue: Catalogue::new(&geometry),
            encoder: Encoder::default(),
            pacer: Pacer::new(rates),
            urgent: Turns::default(),
            ahead: Turns::default(),
            private: Turns::default(),
            fresh: BTreeSet::new(),
            current: None,
            losses: Losses::default(),
            amends: VecDeque::new(),
            amending: HashSet::new(),
            repairs: HashMap::new(),
            notices: BTreeMap::new(),
            since_notice: 0,
            beat_at: Duration::MAX,
            tails: VecDeque::new(),
            needy: 0,
            hearers: 0,
            tick_at: Duration::ZERO,
            report_every: Duration::from_millis(10),
            private_turn: false,
            held_back: None,
            rates,
            buffer: vec![0; geometry.page_bytes()],
            stats: SenderStats::default(),
            geometry,
            distribution,
            key,
        }
    }

    /// Counters since the start.
    #[must_use]
    pub fn stats(&self) -> SenderStats {
        let receivers = self.slots.iter().filter(|slot| slot.is_active()).count() as u32;
        SenderStats { receivers, rate: self.pacer.rate() as u64, ..self.stats }
    }

    /// When to call [`Sender::poll_transmit`] even if nothing happens; `None` if never.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        let has_active = self.hearers > 0 || self.slots.iter().any(Slot::is_active);
        let tail = self.tails.front().map(|(at, _)| *at);
        let due = has_active.then(|| self.tick_at.min(self.beat_at));
        [self.held_back, tail, due, self.losses.next()].into_iter().flatten().min()
    }

    /// Appends the next datagram to `out` and tells where it goes; `None` if there is none now.
    pub fn poll_transmit(
        &mut self,
        now: Duration,
        source: &mut impl PageSource,
        out: &mut Vec<u8>,
    ) -> Option<Target> {
        self.tick(now);
        loop {
            if let Some(target) = self.out.reply(&self.geometry, out) {
                return Some(self.count(target));
            }
            if let Some(target) = self.next_share(now, out) {
                return Some(self.count(target));
            }
            if self.since_notice >= NOTICE_EVERY
                && let Some(target) = self.flush_notice(now, out)
            {
                return Some(self.count(target));
            }
            match self.next_job(now) {
                Some(job) => {
                    if let Some(target) = self.perform(now, job, source, out) {
                        return Some(self.count(target));
                    }
                }
                None => {
                    let last = self.flush_notice(now, out).or_else(|| self.beat(now, out));
                    return last.map(|target| self.count(target));
                }
            }
        }
    }

    fn count(&mut self, target: Target) -> Target {
        self.stats.datagrams += 1;
        target
    }

    /// Once per interval of reports: who is there, and how fast.
    fn tick(&mut self, now: Duration) {
        if now < self.tick_at {
            return;
        }
        for slot in self.slots.iter_mut().filter(|slot| slot.is_silent(now)) {
            slot.retire();
        }
        self.census();
        self.adjust(now);
        self.tick_at = now + self.report_every;
    }

    /// Multicast goes as fast as those take it who do not straggle, and each receiver's own channel as
    /// fast as that receiver does.
    fn adjust(&mut self, now: Duration) {
        let every = self.report_every;
        let mut told = Vec::new();
        for (index, slot) in self.slots.iter_mut().enumerate().filter(|(_, slot)| slot.is_active()) {
            let alone = slot.alone.take();
            slot.pacer.adjust(now, every, alone.as_slice());
            told.extend(slot.reception.take().map(|told| (index, told)));
        }
        let all: Vec<_> = told.iter().map(|(_, told)| *told).collect();
        let limit = pacer::straggles_below(&all);
        for (index, told) in &told {
            self.slots[*index].straggles = told.share < limit;
        }
        let fast: Vec<_> = all.into_iter().filter(|told| told.share >= limit).collect();
        self.pacer.adjust(now, every, &fast);
    }

    /// Counts who is there.
    fn census(&mut self) {
        let active = self.slots.iter().filter(|slot| slot.is_active()).count();
        let hearing = || self.slots.iter().filter(|slot| slot.is_active() && slot.hears);
        (self.hearers, self.needy) = (hearing().count(), hearing().filter(|slot| slot.missing > 0).count());
        let every = Duration::from_micros(200) * active as u32;
        self.report_every = every.clamp(Duration::from_millis(10), Duration::from_millis(100));
        if self.hearers == 0 {
            self.fresh.clear();
            self.current = None;
            self.drop_amends();
        }
    }

    /// Nobody waits for them now. Whoever comes must not believe that they are on their way.
    fn drop_amends(&mut self) {
        self.amending.clear();
        for job in std::mem::take(&mut self.amends) {
            if let Job::Repair(group, index) = job {
                self.note_repair(group, index, NEVER);
            }
        }
    }

    /// When a repair went out, as a counter of multicast.
    fn note_repair(&mut self, group: Group, index: u8, counter: u64) {
        if let Some(log) = self.repairs.get_mut(&group).and_then(|log| log.get_mut(usize::from(index))) {
            *log = counter;
        }
    }

    /// The wish whose turn it is, if its pacer lets it.
    fn next_job(&mut self, now: Duration) -> Option<Job> {
        self.settle(now);
        self.held_back = None;
        self.next_urgent(now).or_else(|| self.next_ahead(now)).or_else(|| self.next_fill(now))
    }

    fn allows(&mut self, now: Duration, to: To, is_urgent: bool) -> bool {
        let pacer = match to {
            To::All => &mut self.pacer,
            To::Slot(slot) => &mut self.slots[slot].pacer,
        };
        let allows = pacer.allows(now, is_urgent);
        if !allows {
            let next = pacer.next();
            self.held_back = Some(self.held_back.map_or(next, |other| other.min(next)));
        }
        allows
    }

    fn next_urgent(&mut self, now: Duration) -> Option<Job> {
        for _ in 0..self.urgent.len() {
            let slot = self.urgent.next()?;
            let mut job = None;
            while let Some(wish) = self.slots[slot].urgent.front().copied() {
                match self.way(now, slot, wish.place, wish.again) {
                    Some(to) if !self.allows(now, to, true) => break,
                    to => job = to.map(|to| Job::Urgent(to, wish.place)),
                }
                self.slots[slot].urgent.pop_front();
                if job.is_some() {
                    break;
                }
            }
            self.urgent.stay(slot, !self.slots[slot].urgent.is_empty());
            if job.is_some() {
                return job;
            }
        }
        None
    }

    fn next_ahead(&mut self, now: Duration) -> Option<Job> {
        for _ in 0..self.ahead.len() {
            let slot = self.ahead.next()?;
            let mut job = None;
            while let Some(place) = self.slots[slot].ahead.front().copied() {
                match self.way(now, slot, place, false) {
                    Some(To::Slot(_)) if self.was_lost_with_others(slot, place) => {
                        self.note_loss(now, slot, (place.group(), false), place.bit(), 0);
                    }
                    Some(to) if !self.allows(now, to, false) => break,
                    to => job = to.map(|to| Job::Page(to, place)),
                }
                self.slots[slot].ahead.pop_front();
                if job.is_some() {
                    break;
                }
            }
            self.ahead.stay(slot, !self.slots[slot].ahead.is_empty());
            if job.is_some() {
                return job;
            }
        }
        None
    }

    /// It went to all, and others may have lost it too.
    fn was_lost_with_others(&self, slot: usize, place: Place) -> bool {
        let receiver = &self.slots[slot];
        receiver.hears && !receiver.straggles && self.hearers > 1 && self.catalogue.sent(place).counter > 0
    }

    /// What is for all and what is for one take turns.
    fn next_fill(&mut self, now: Duration) -> Option<Job> {
        self.private_turn = !self.private_turn;
        if self.private_turn {
            self.next_private(now).or_else(|| self.next_for_all(now))
        } else {
            self.next_for_all(now).or_else(|| self.next_private(now))
        }
    }

    fn next_private(&mut self, now: Duration) -> Option<Job> {
        for _ in 0..self.private.len() {
            let slot = self.private.next()?;
            let mut job = None;
            while job.is_none() && self.allows(now, To::Slot(slot), false) {
                let Some(place) = self.slots[slot].private.pop_front() else { break };
                let to_all = self.catalogue.sent(place);
                let is_coming = self.slots[slot].may_arrive(place, to_all, now, false);
                job = (!is_coming).then_some(Job::Page(To::Slot(slot), place));
            }
            let is_more = !self.slots[slot].private.is_empty();
            self.private.stay(slot, is_more);
            if !is_more {
                self.tails.push_back((now + QUIET, slot));
            }
            if job.is_some() {
                return job;
            }
        }
        None
    }

    fn next_for_all(&mut self, now: Duration) -> Option<Job> {
        let is_left = self.current.is_some_and(|(_, left)| left != 0);
        let has_any = is_left || !self.amends.is_empty() || !self.fresh.is_empty();
        if !has_any || !self.allows(now, To::All, false) {
            return None;
        }
        if let Some(job) = self.amends.pop_front() {
            if let Job::Page(_, place) = job {
                self.amending.remove(&place);
            }
            return Some(job);
        }
        loop {
            if let Some((group, left)) = &mut self.current
                && *left != 0
            {
                let bit = left.trailing_zeros();
                *left &= *left - 1;
                return Some(Job::Page(To::All, Place(group.0 * GROUP_PAGES + bit)));
            }
            let group = self.fresh.pop_first()?;
            self.current = Some((group, self.catalogue.never_sent(group, self.geometry.mask(group))));
        }
    }

    /// How a page gets to a receiver that wants it; `None` if it is on its way already.
    fn way(&mut self, now: Duration, slot: usize, place: Place, again: bool) -> Option<To> {
        let to_all = self.catalogue.sent(place);
        if self.slots[slot].may_arrive(place, to_all, now, again) {
            self.stats.lockstep += 1;
            return None;
        }
        let receiver = &self.slots[slot];
        let is_first = to_all.counter == 0 && receiver.hears && !receiver.straggles && self.hearers > 1;
        Some(if is_first { To::All } else { To::Slot(slot) })
    }

    fn note_loss(&mut self, now: Duration, slot: usize, key: losses::Key, pages: u128, held: u8) {
        let (high, report) = (self.slots[slot].multicast_high, self.slots[slot].report);
        let coming = self.repairs.get(&key.0).map_or(0, |sent| sent.iter().filter(|at| **at > high).count());
        let repaired = if key.1 { u32::from(held) + coming as u32 } else { 0 };
        let due = if self.hearers > 1 { now + self.report_every * 5 / 4 } else { now };
        self.losses.add(due, key, slot, losses::Loss { pages, repaired, report, high });
    }

    /// Losses that are due become work.
    fn settle(&mut self, now: Duration) {
        while let Some(((group, is_whole), told)) = self.losses.take(now) {
            let (mut open, mut cheap) = (Vec::new(), 0);
            for (slot, mut loss) in told {
                let receiver = &self.slots[slot];
                // A newer report that does not tell it any more: it has been made good.
                if !receiver.is_active() || receiver.report != loss.report {
                    continue;
                }
                let is_open =
                    |place: &Place| !receiver.may_arrive(*place, self.catalogue.sent(*place), now, false);
                loss.pages = group.places(loss.pages).filter(is_open).fold(0, |all, place| all | place.bit());
                let plain = self.catalogue.plain(group, loss.pages);
                // What needs no content is told again, whoever lost it.
                cheap |= loss.pages & !plain;
                loss.pages = plain;
                open.push((slot, loss));
            }
            let is_out = is_whole && self.catalogue.never_sent(group, self.geometry.mask(group)) == 0;
            let used = self.repairs.get(&group).map_or(0, Vec::len);
            let mut plan = losses::plan(&open, if is_out { REPAIRS.saturating_sub(used) as u32 } else { 0 });
            plan.again |= cheap;
            self.carry_out(group, &plan);
        }
    }

    fn carry_out(&mut self, group: Group, plan: &losses::Plan) {
        for place in group.places(plan.again) {
            if self.amending.insert(place) {
                self.amends.push_back(Job::Page(To::All, place));
            }
        }
        let sent = self.repairs.entry(group).or_default();
        for _ in 0..plan.repairs {
            self.amends.push_back(Job::Repair(group, sent.len() as u8));
            sent.push(WAITING);
        }
        if let Some((slot, pages)) = plan.alone {
            group.places(pages).for_each(|place| self.slots[slot].want_alone(place));
            self.private.join(slot);
        }
    }

    /// Does a job; `None` if it needs no datagram of its own.
    fn perform(
        &mut self,
        now: Duration,
        job: Job,
        source: &mut impl PageSource,
        out: &mut Vec<u8>,
    ) -> Option<Target> {
        let (to, place) = match job {
            Job::Page(to, place) | Job::Urgent(to, place) => (to, place),
            Job::Repair(group, index) => {
                if let Err(error) = self.load_repair(group, index, source) {
                    // Reports tell the loss again, and other repairs or the pages themselves follow.
                    self.note_repair(group, index, NEVER);
                    self.unreadable(Place(group.0 * GROUP_PAGES), &error);
                    return None;
                }
                return self.next_share(now, out);
            }
        };
        let notice = match self.catalogue.load(&self.geometry, source, place, &mut self.buffer) {
            Ok(Class::Plain) => {
                self.out.load_page(to, place, &self.buffer, &self.geometry);
                return self.next_share(now, out);
            }
            Ok(Class::Zero) => Notice::Zero { first: place, count: 1 },
            Ok(Class::Same(of)) => Notice::Same { place, of },
            Err(error) => {
                self.unreadable(place, &error);
                return None;
            }
        };
        self.stats.noticed += 1;
        self.since_notice += 1;
        let is_full = add_notice(&self.geometry, self.notices.entry(to).or_default(), notice);
        if is_full || matches!(job, Job::Urgent(..)) { self.notice_to(now, to, out) } else { None }
    }

    /// A bad disk must not fill the log as well.
    fn unreadable(&mut self, place: Place, error: &std::io::Error) {
        self.stats.unreadable += 1;
        if self.stats.unreadable.is_power_of_two() {
            let times = self.stats.unreadable;
            tracing::warn!(%error, ?place, times, "pages cannot be read, and are not sent");
        }
    }

    /// All shares of a repair, or none.
    fn load_repair(&mut self, group: Group, index: u8, source: &mut impl PageSource) -> std::io::Result<()> {
        let covers = self.catalogue.plain(group, self.geometry.mask(group));
        let (geometry, buffer) = (&self.geometry, &mut self.buffer);
        let mut shares = Vec::new();
        for lane in self.out.lanes() {
            let share = geometry.share_bytes(lane);
            let row = || {
                let mut row = vec![0; share * GROUP_PAGES as usize];
                for (place, slot) in group.places(u128::MAX).zip(row.chunks_exact_mut(share)) {
                    if covers & place.bit() != 0
                        && let Some(page) = geometry.page(place)
                    {
                        source.read(page, buffer)?;
                        let part = outgoing::part(geometry, lane, buffer);
                        slot[..part.len()].copy_from_slice(part);
                    }
                }
                Ok::<_, std::io::Error>(row)
            };
            shares.push((lane, self.encoder.repair((group, lane), index, share, row)?.to_vec()));
        }
        for (lane, share) in shares {
            self.out.load_repair(group, index, covers, lane, share);
        }
        Ok(())
    }

    /// The next datagram of the page or repair that is loaded.
    fn next_share(&mut self, now: Duration, out: &mut Vec<u8>) -> Option<Target> {
        let before = out.len();
        let sent = self.out.share(&self.geometry, &mut self.slots, out)?;
        self.note_bytes(sent.to, out.len() - before);
        self.since_notice += 1;
        self.stats.payload_bytes += sent.payload as u64;
        let at = Sent::new(sent.counter, now);
        match (sent.to, sent.what) {
            (To::All, outgoing::What::Page(place)) => {
                self.catalogue.note_sent(place, at);
                self.stats.multicast += u64::from(sent.is_last);
            }
            (To::Slot(slot), outgoing::What::Page(place)) => {
                self.slots[slot].note_unicast(place, at);
                self.stats.unicast += u64::from(sent.is_last);
            }
            (_, outgoing::What::Repair(group, index)) => {
                self.note_repair(group, index, sent.counter);
                self.stats.repairs += u64::from(sent.is_last);
            }
        }
        if sent.to == To::All {
            self.beat_at = now + QUIET;
        }
        Some(sent.target)
    }

    fn note_bytes(&mut self, to: To, bytes: usize) {
        match to {
            To::All => self.pacer.sent(bytes),
            To::Slot(slot) => self.slots[slot].pacer.sent(bytes),
        }
    }

    fn flush_notice(&mut self, now: Duration, out: &mut Vec<u8>) -> Option<Target> {
        self.since_notice = 0;
        let to = *self.notices.first_key_value()?.0;
        self.notice_to(now, to, out)
    }

    fn notice_to(&mut self, now: Duration, to: To, out: &mut Vec<u8>) -> Option<Target> {
        let notices = self.notices.remove(&to)?;
        let places: Vec<Place> = notices.iter().flat_map(places_of).collect();
        let message = FromSender::Notice(notices);
        let before = out.len();
        let (target, counter) = self.out.send(&self.geometry, &mut self.slots, to, &message, out);
        self.note_bytes(to, out.len() - before);
        for place in places {
            let sent = Sent::new(counter, now);
            match to {
                To::All => self.catalogue.note_sent(place, sent),
                To::Slot(slot) => self.slots[slot].note_unicast(place, sent),
            }
        }
        if to == To::All {
            self.beat_at = now + QUIET;
        }
        Some(target)
    }

    /// Tells the end of what was sent, so that the loss of the last datagrams is noticed.
    fn beat(&mut self, now: Duration, out: &mut Vec<u8>) -> Option<Target> {
        let message = FromSender::Beat { report_every: self.report_every };
        if let Some((_, slot)) = self.tails.front().copied().filter(|(at, _)| *at <= now) {
            self.tails.pop_front();
            return Some(self.out.send(&self.geometry, &mut self.slots, To::Slot(slot), &message, out).0);
        }
        if now < self.beat_at {
            return None;
        }
        self.beat_at = if self.slots.iter().any(Slot::is_active) { now + BEAT } else { Duration::MAX };
        Some(self.out.send(&self.geometry, &mut self.slots, To::All, &message, out).0)
    }
}

fn places_of(notice: &Notice) -> impl Iterator<Item = Place> + use<> {
    let (first, count) = match notice {
        Notice::Zero { first, count } => (*first, u32::from(*count)),
        Notice::Same { place, .. } => (*place, 1),
    };
    (first.0..first.0 + count).map(Place)
}

/// Adds one, making longer runs where it can; `true` if the message is full then.
fn add_notice(geometry: &Geometry, notices: &mut Vec<Notice>, notice: Notice) -> bool {
    let stream = |place| geometry.page(place).map(|page| page.stream);
    if let Notice::Zero { first: place, .. } = notice
        && let Some(Notice::Zero { first, count }) = notices.last_mut()
        && first.0 + u32::from(*count) == place.0
        && *count < MAX_RUN
        && stream(*first) == stream(place)
    {
        *count += 1;
        return false;
    }
    notices.push(notice);
    notices.len() >= MAX_NOTICES
}

#[cfg(test)]
mod tests;
