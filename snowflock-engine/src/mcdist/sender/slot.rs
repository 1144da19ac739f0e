//! One receiver, as the sender knows it.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use super::catalogue::Sent;
use super::pacer::{Pacer, Rates, Reception};
use crate::mcdist::geometry::Place;
use crate::mcdist::message::{Request, Urgent};
use crate::mcdist::seal::{ReplayWindow, Session};

/// A datagram so far behind the highest one that came is lost.
const LATE: u64 = 64;
/// Nearer than that it may be out of order for so long.
const REORDERED: Duration = Duration::from_millis(20);
/// Ahead of the highest one that came it may be under way for so long.
const UNDER_WAY: Duration = Duration::from_millis(300);
/// Who asks again has waited for its own timeout already.
const ASKED_AGAIN: Duration = Duration::from_millis(5);
/// A receiver that says nothing for so long wants nothing. Idle ones report every second.
pub(super) const SILENCE: Duration = Duration::from_secs(3);
/// Whether it hears multicast is not judged before; a beat goes out when it comes.
const GRACE: Duration = Duration::from_millis(300);
/// Receivers often come together. What nobody waits for begins when the others had time to come.
const COMPANY: Duration = Duration::from_millis(25);
/// Malformed messages after which a receiver is no longer heard.
const MOST_NONSENSE: u32 = 100;
/// Urgent pages that wait; guests have fewer processors.
const MOST_URGENT: usize = 256;
/// Pages that wait for this receiver alone: 32 MiB.
const MOST_PRIVATE: usize = 8_192;
/// Pages that it wants ahead of their faults: several times what one report can tell.
pub(super) const MOST_AHEAD: usize = 8_192;

/// A receiver.
#[derive(Debug)]
pub(super) struct Slot {
    pub(super) session: Session,
    pub(super) window: ReplayWindow,
    pub(super) address: SocketAddr,
    /// How multicast comes.
    pub(super) reception: Reception,
    /// How its own channel comes, and how fast that goes.
    pub(super) alone: Reception,
    pub(super) pacer: Pacer,
    /// Multicast is too fast for it.
    pub(super) straggles: bool,
    /// Its private queue is all that it wants.
    pub(super) was_alone: bool,
    pub(super) hears: bool,
    pub(super) fills: bool,
    pub(super) missing: u32,
    /// The latest report.
    pub(super) report: u32,
    pub(super) urgent: VecDeque<Urgent>,
    pub(super) ahead: VecDeque<Place>,
    pub(super) private: VecDeque<Place>,
    /// Counter of its channel.
    pub(super) counter: u64,
    pub(super) multicast_high: u64,
    unicast_high: u64,
    under_way: HashMap<Place, Sent>,
    since: Duration,
    heard: Option<Duration>,
    nonsense: u32,
}

impl Slot {
    pub(super) fn new(session: Session, address: SocketAddr, now: Duration, rates: Rates) -> Self {
        Self {
            session,
            window: ReplayWindow::default(),
            address,
            reception: Reception::default(),
            alone: Reception::default(),
            pacer: Pacer::new(rates),
            straggles: false,
            was_alone: false,
            hears: false,
            fills: false,
            missing: 0,
            report: 0,
            urgent: VecDeque::new(),
            ahead: VecDeque::new(),
            private: VecDeque::new(),
            counter: 0,
            multicast_high: 0,
            unicast_high: 0,
            under_way: HashMap::new(),
            since: now,
            heard: Some(now),
            nonsense: 0,
        }
    }

    /// Takes a report in; `true` if it is newer than all before, so that its wishes replace theirs.
    pub(super) fn report(&mut self, now: Duration, address: SocketAddr, request: &Request) -> bool {
        (self.address, self.heard) = (address, Some(now));
        self.multicast_high = self.multicast_high.max(request.multicast.high);
        self.unicast_high = self.unicast_high.max(request.unicast.high);
        if request.report <= self.report {
            return false;
        }
        self.report = request.report;
        (self.hears, self.fills, self.missing) = (request.hears, request.fills, request.missing);
        self.reception.report(request.multicast, request.rate, request.missing);
        self.alone.report(request.unicast, request.rate, request.missing);
        let high = self.unicast_high;
        self.under_way.retain(|_, sent| may_come(*sent, high, now, false));
        self.ahead.clear();
        true
    }

    pub(super) fn is_active(&self) -> bool {
        self.heard.is_some()
    }

    /// It wants nothing any more; it may come back.
    pub(super) fn retire(&mut self) {
        self.heard = None;
        self.missing = 0;
        self.urgent.clear();
        self.ahead.clear();
        self.private.clear();
        self.under_way.clear();
    }

    pub(super) fn is_silent(&self, now: Duration) -> bool {
        self.heard.is_some_and(|heard| now.saturating_sub(heard) > SILENCE)
    }

    /// It had time to hear multicast, or does.
    pub(super) fn is_judged(&self, now: Duration) -> bool {
        self.hears || now.saturating_sub(self.since) > GRACE
    }

    /// Others had time to come as well.
    pub(super) fn is_settled(&self, now: Duration) -> bool {
        now.saturating_sub(self.since) > COMPANY
    }

    pub(super) fn note_nonsense(&mut self) {
        self.nonsense += 1;
    }

    pub(super) fn is_muted(&self) -> bool {
        self.nonsense >= MOST_NONSENSE
    }

    /// `false` if there is no room, or it waits already.
    pub(super) fn want_urgently(&mut self, urgent: Urgent) -> bool {
        if self.urgent.len() >= MOST_URGENT || self.urgent.iter().any(|other| other.place == urgent.place) {
            return false;
        }
        self.urgent.push_back(urgent);
        true
    }

    /// A report may come as several requests, and each more than once.
    pub(super) fn want_ahead(&mut self, places: &[Place]) {
        let room = MOST_AHEAD.saturating_sub(self.ahead.len());
        self.ahead.extend(places.iter().take(room));
    }

    pub(super) fn want_alone(&mut self, place: Place) {
        if self.private.len() < MOST_PRIVATE {
            self.private.push_back(place);
        }
    }

    pub(super) fn note_unicast(&mut self, place: Place, sent: Sent) {
        self.under_way.insert(place, sent);
    }

    /// Whether the page may still arrive: `to_all` tells when it was multicast.
    pub(super) fn may_arrive(&self, place: Place, to_all: Sent, now: Duration, again: bool) -> bool {
        let by_multicast = self.hears && to_all.counter > 0;
        by_multicast && may_come(to_all, self.multicast_high, now, again)
            || self.under_way.get(&place).is_some_and(|sent| may_come(*sent, self.unicast_high, now, again))
    }
}

/// Whether a datagram may still come to a receiver that has seen `high`.
fn may_come(sent: Sent, high: u64, now: Duration, again: bool) -> bool {
    let age = now.saturating_sub(sent.at());
    let patience = match sent.counter {
        counter if counter + LATE <= high => return false,
        _ if again => ASKED_AGAIN,
        counter if counter <= high => REORDERED,
        _ => UNDER_WAY,
    };
    age < patience
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_tell_loss_from_delay_and_time_only_what_they_cannot() {
        let ms = Duration::from_millis;
        let sent = Sent::new(100, ms(0));
        let may = |high, at, again| may_come(sent, high, ms(at), again);
        assert!(may(99, 299, false) && !may(99, 300, false), "nothing later has come");
        assert!(may(163, 19, false) && !may(163, 20, false), "it may be out of order");
        assert!(!may(164, 0, false), "it is lost");
        assert!(may(99, 4, true) && !may(99, 5, true), "who asks again has waited");
    }
}
