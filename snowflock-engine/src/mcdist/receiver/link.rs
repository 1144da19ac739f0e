//! What a receiver knows of its sender: which life of it, what came of what it
//! sent, and how fast.

use std::time::Duration;

use crate::mcdist::message::{Received, WireError};
use crate::mcdist::seal::{Channel, DistributionId, Header, Key, ReplayWindow, Role, Session, SessionId};

/// Multicast is heard if it was within this time; beats come every 50 ms.
const HEARING: Duration = Duration::from_secs(1);
/// Lives of the sender whose keys are kept.
const LIVES: usize = 4;

/// What came on a channel.
#[derive(Debug, Default)]
struct Counted {
    window: ReplayWindow,
    count: u64,
}

impl Counted {
    fn note(&mut self, counter: u64) {
        if self.window.high() == 0 {
            // What was sent before we came is not lost.
            self.count = counter.saturating_sub(1);
        }
        self.count += u64::from(self.window.note(counter));
    }

    fn received(&self) -> Received {
        let high = self.window.high();
        Received { high, count: self.count.min(high) }
    }
}

#[derive(Debug)]
pub(super) struct Link {
    distribution: DistributionId,
    key: Key,
    lives: Vec<Session>,
    epoch: Option<SessionId>,
    /// Our datagram that the last accepted welcome answered.
    welcomed: u64,
    multicast: Counted,
    unicast: Counted,
    heard: Option<Duration>,
    /// Of the sender's present life, anything.
    pub(super) last: Option<Duration>,
    bytes: u64,
    rate: f64,
    rated: Duration,
}

impl Link {
    pub(super) fn new(distribution: DistributionId, key: Key) -> Self {
        Self {
            distribution,
            key,
            lives: Vec::new(),
            epoch: None,
            welcomed: 0,
            multicast: Counted::default(),
            unicast: Counted::default(),
            heard: None,
            last: None,
            bytes: 0,
            rate: 0.0,
            rated: Duration::ZERO,
        }
    }

    pub(super) fn epoch(&self) -> Option<SessionId> {
        self.epoch
    }

    /// Opens a datagram of any life of the sender.
    pub(super) fn open<'d>(
        &mut self,
        now: Duration,
        datagram: &'d mut [u8],
    ) -> Result<(Header, &'d [u8]), WireError> {
        let header = Header::parse(datagram)?;
        if header.distribution != self.distribution || header.role != Role::Sender {
            return Err(WireError::Elsewhere);
        }
        let len = datagram.len() as u64;
        let opened = match self.lives.iter().find(|life| life.id() == header.session) {
            Some(life) => life.open(&header, datagram)?,
            None => {
                let life = Session::new(&self.key, self.distribution, Role::Sender, header.session);
                let opened = life.open(&header, datagram)?;
                self.remember(life);
                opened
            }
        };
        if self.epoch == Some(header.session) {
            self.note(now, &header, len);
        }
        Ok((header, opened))
    }

    fn remember(&mut self, life: Session) {
        if self.lives.len() >= LIVES
            && let Some(old) = self.lives.iter().position(|life| Some(life.id()) != self.epoch)
        {
            self.lives.remove(old);
        }
        self.lives.push(life);
    }

    fn note(&mut self, now: Duration, header: &Header, len: u64) {
        self.last = Some(now);
        self.bytes += len;
        match header.channel {
            Channel::MULTICAST => {
                self.heard = Some(now);
                self.multicast.note(header.counter);
            }
            // Answers to greetings have a channel of their own.
            Channel(u16::MAX) => {}
            _ => self.unicast.note(header.counter),
        }
    }

    /// A welcome that answers our datagram with this counter; `true` if it names another life.
    pub(super) fn welcome(&mut self, now: Duration, life: SessionId, counter: u64) -> bool {
        if counter <= self.welcomed {
            return false;
        }
        self.welcomed = counter;
        if self.epoch == Some(life) {
            return false;
        }
        self.epoch = Some(life);
        (self.multicast, self.unicast, self.heard) = (Counted::default(), Counted::default(), None);
        self.last = Some(now);
        true
    }

    pub(super) fn hears(&self, now: Duration) -> bool {
        self.heard.is_some_and(|heard| now.saturating_sub(heard) < HEARING)
    }

    pub(super) fn received(&self) -> (Received, Received) {
        (self.multicast.received(), self.unicast.received())
    }

    /// Bytes a second, smoothed; a measurement ends with the call.
    pub(super) fn rate(&mut self, now: Duration) -> u64 {
        let passed = now.saturating_sub(self.rated).as_secs_f64();
        if passed > 0.001 {
            let rate = self.bytes as f64 / passed;
            self.rate = if self.rate == 0.0 { rate } else { (self.rate + rate) / 2.0 };
            (self.bytes, self.rated) = (0, now);
        }
        self.rate as u64
    }
}
