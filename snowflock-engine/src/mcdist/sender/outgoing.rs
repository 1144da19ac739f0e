//! How messages of a sender become datagrams: sealed and counted per channel,
//! pages and repairs in one piece or in thirds.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::time::Duration;

use super::slot::Slot;
use super::{Target, To};
use crate::mcdist::geometry::{Geometry, Group, LANES, Lane, Place};
use crate::mcdist::message::FromSender;
use crate::mcdist::seal::{Channel, Session, SessionId};

/// Answers to greetings go to addresses that have no slot.
const REPLIES: Channel = Channel(u16::MAX);

/// What a page-sized datagram was about.
#[derive(Debug, Clone, Copy)]
pub(super) enum What {
    Page(Place),
    Repair(Group, u8),
}

/// A datagram of a page or repair that has gone out.
#[derive(Debug)]
pub(super) struct Share {
    pub(super) to: To,
    pub(super) target: Target,
    pub(super) what: What,
    pub(super) counter: u64,
    pub(super) payload: usize,
    pub(super) is_last: bool,
}

#[derive(Debug)]
struct Loaded {
    to: To,
    what: What,
    covers: u128,
    lane: Lane,
    data: Vec<u8>,
}

#[derive(Debug)]
struct Reply {
    to: SocketAddr,
    session: SessionId,
    counter: u64,
    report_every: Duration,
}

/// Replies that wait at most: greetings beyond are repeated anyway.
const MOST_REPLIES: usize = 1_024;

#[derive(Debug)]
pub(super) struct Outgoing {
    session: Session,
    split: bool,
    multicast: u64,
    replies: u64,
    waiting: VecDeque<Reply>,
    shares: VecDeque<Loaded>,
    spare: Vec<Vec<u8>>,
}

impl Outgoing {
    pub(super) fn new(session: Session, split: bool) -> Self {
        let (waiting, shares, spare) = (VecDeque::new(), VecDeque::new(), Vec::new());
        Self { session, split, multicast: 0, replies: 0, waiting, shares, spare }
    }

    pub(super) fn session(&self) -> SessionId {
        self.session.id()
    }

    /// Buffers that wait to be used again.
    #[cfg(test)]
    pub(super) fn spares(&self) -> usize {
        self.spare.len()
    }

    /// The pieces in which everything goes out.
    pub(super) fn lanes(&self) -> impl Iterator<Item = Lane> + use<> {
        let parts = if self.split { LANES as u8 } else { 0 };
        let whole = (!self.split).then_some(Lane::Whole);
        whole.into_iter().chain((0..parts).map(Lane::Part))
    }

    /// Answers a greeting.
    pub(super) fn welcome(
        &mut self,
        to: SocketAddr,
        session: SessionId,
        counter: u64,
        report_every: Duration,
    ) {
        if self.waiting.len() < MOST_REPLIES {
            self.waiting.push_back(Reply { to, session, counter, report_every });
        }
    }

    /// The next answer.
    pub(super) fn reply(&mut self, geometry: &Geometry, out: &mut Vec<u8>) -> Option<Target> {
        let Reply { to, session, counter, report_every } = self.waiting.pop_front()?;
        let streams = geometry.streams().to_vec();
        let message = FromSender::Welcome { session, counter, report_every, streams };
        self.replies += 1;
        self.session.seal(REPLIES, self.replies, out, |out| message.encode(geometry, out));
        Some(Target::One(to))
    }

    pub(super) fn load_page(&mut self, to: To, place: Place, page: &[u8], geometry: &Geometry) {
        for lane in self.lanes() {
            let mut data = self.spare.pop().unwrap_or_default();
            data.clear();
            data.extend_from_slice(part(geometry, lane, page));
            data.resize(geometry.share_bytes(lane), 0);
            self.shares.push_back(Loaded { to, what: What::Page(place), covers: 0, lane, data });
        }
    }

    pub(super) fn load_repair(&mut self, group: Group, index: u8, covers: u128, lane: Lane, data: Vec<u8>) {
        let what = What::Repair(group, index);
        self.shares.push_back(Loaded { to: To::All, what, covers, lane, data });
    }

    /// The next datagram of what is loaded.
    pub(super) fn share(
        &mut self,
        geometry: &Geometry,
        slots: &mut [Slot],
        out: &mut Vec<u8>,
    ) -> Option<Share> {
        let Loaded { to, what, covers, lane, data } = self.shares.pop_front()?;
        let message = match what {
            What::Page(place) => FromSender::Page { place, lane, data: &data },
            What::Repair(group, index) => FromSender::Repair { group, index, covers, lane, data: &data },
        };
        let (target, counter) = self.send(geometry, slots, to, &message, out);
        let (payload, is_last) = (data.len(), self.shares.is_empty());
        // Those of repairs come from elsewhere.
        if self.spare.len() < LANES {
            self.spare.push(data);
        }
        Some(Share { to, target, what, counter, payload, is_last })
    }

    /// Seals a message; returns its counter too.
    pub(super) fn send(
        &mut self,
        geometry: &Geometry,
        slots: &mut [Slot],
        to: To,
        message: &FromSender<'_>,
        out: &mut Vec<u8>,
    ) -> (Target, u64) {
        let (channel, counter, target) = match to {
            To::All => (Channel::MULTICAST, &mut self.multicast, Target::All),
            To::Slot(slot) => {
                let address = slots[slot].address;
                (Channel(slot as u16 + 1), &mut slots[slot].counter, Target::One(address))
            }
        };
        *counter += 1;
        self.session.seal(channel, *counter, out, |out| message.encode(geometry, out));
        (target, *counter)
    }
}

/// The share of a page that goes into a datagram, without the zeros at its end.
pub(super) fn part<'p>(geometry: &Geometry, lane: Lane, page: &'p [u8]) -> &'p [u8] {
    match lane {
        Lane::Whole => page,
        Lane::Part(part) => &page[geometry.part(part.into())],
    }
}
