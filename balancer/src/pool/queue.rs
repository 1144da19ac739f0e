//! The wait for a backend: the more important first, then first come, first served; bounded in
//! length and time. When the line is full, one that is more important takes the place of the last.
//!
//! Requests come here only when no backend can take them. The lock is never taken
//! while backends have room: takers and givers look at `waiting` first.
//!
//! No wake-up is lost: a request enters the line and then tries the backends; who
//! frees a place (or publishes a ready backend) does that first and then looks at
//! the line. Both use sequentially consistent order.

use std::collections::BTreeMap;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::oneshot;

use super::backend::{Backend, Permit};
use super::pick::{Balance, Rng, Turns, Wish, pick};
use super::snapshot::Snapshot;

/// Who goes first when requests wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum Priority {
    /// Before all others.
    High,
    /// Neither.
    #[default]
    Normal,
    /// After all others.
    Low,
}

impl Priority {
    /// All of them, the most important first.
    pub const ALL: [Priority; 3] = [Priority::High, Priority::Normal, Priority::Low];

    /// The one that a header field names; case does not matter.
    pub(crate) fn of_word(word: &str) -> Option<Self> {
        let words = [("high", Self::High), ("normal", Self::Normal), ("low", Self::Low)];
        words.into_iter().find(|(own, _)| word.trim().eq_ignore_ascii_case(own)).map(|(_, it)| it)
    }
}

/// How long the line may be, and how long one may stand in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct QueueSettings {
    /// Requests that may wait at once.
    pub max_requests: usize,
    /// The longest wait of one request.
    pub timeout: Duration,
}

impl Default for QueueSettings {
    fn default() -> Self {
        Self { max_requests: 1024, timeout: Duration::from_secs(10) }
    }
}

/// Why a request got no backend. It is answered with 503 and Retry-After.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// As many requests as allowed are waiting already.
    QueueFull,
    /// It waited as long as allowed.
    TimedOut,
    /// The line is full, and a more important one took its place.
    Displaced,
}

/// The line of waiting requests.
pub struct Queue {
    settings: ArcSwap<QueueSettings>,
    balance: ArcSwap<Balance>,
    turns: Turns,
    snapshot: Arc<ArcSwap<Snapshot>>,
    waiting: AtomicUsize,
    look_again: AtomicBool,
    line: Mutex<Line>,
}

struct Line {
    /// In the order of service.
    waiters: BTreeMap<Ticket, Waiter>,
    next_number: u64,
    rng: Rng,
}

/// Who is served first: by priority, then by number.
type Ticket = (Priority, u64);

struct Waiter {
    wish: Wish,
    since: Instant,
    call: oneshot::Sender<Permit>,
}

impl Queue {
    pub(super) fn new(settings: QueueSettings, balance: Balance, snapshot: Arc<ArcSwap<Snapshot>>) -> Self {
        let line = Line { waiters: BTreeMap::new(), next_number: 0, rng: Rng::new(0x5eed) };
        let settings = ArcSwap::from_pointee(settings);
        let (balance, turns) = (ArcSwap::from_pointee(balance), Turns::default());
        let (waiting, look_again) = (AtomicUsize::new(0), AtomicBool::new(false));
        Self { settings, balance, turns, snapshot, waiting, look_again, line: Mutex::new(line) }
    }

    /// Requests that wait now.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// The longest that anybody in line has waited; `None` if nobody waits.
    pub fn oldest_wait(&self, now: Instant) -> Option<Duration> {
        if self.waiting() == 0 {
            return None;
        }
        let line = self.lock();
        let first = |it: Priority| line.waiters.range((it, 0)..=(it, u64::MAX)).next();
        let oldest = Priority::ALL.into_iter().filter_map(first).map(|(_, waiter)| waiter.since).min()?;
        Some(now.saturating_duration_since(oldest))
    }

    pub(super) fn reconfigure(&self, settings: QueueSettings, balance: Balance) {
        self.settings.store(Arc::new(settings));
        self.balance.store(Arc::new(balance));
    }

    /// The choices that are made in turn, in line or not.
    pub(super) fn turns(&self) -> &Turns {
        &self.turns
    }

    /// Stands in line for a backend. Who may be the first is also given to a new backend that has not
    /// answered yet.
    pub(super) async fn wait(&self, wish: Wish) -> Result<Permit, Refused> {
        let mut place = self.enter(wish)?;
        self.serve();
        let patience = wish.patience.unwrap_or(self.settings.load().timeout);
        match tokio::time::timeout(patience, &mut place.called).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_gone)) => Err(Refused::Displaced),
            // The call may have come together with the timeout.
            Err(_elapsed) => place.called.try_recv().map_err(|_| Refused::TimedOut),
        }
    }

    fn enter(&self, wish: Wish) -> Result<Place<'_>, Refused> {
        let mut line = self.lock();
        if line.waiters.len() >= self.settings.load().max_requests {
            // Dropping the last one tells it.
            let last = line.waiters.last_entry().filter(|last| last.key().0 > wish.priority);
            last.ok_or(Refused::QueueFull)?.remove();
        }
        let ticket = (wish.priority, line.next_number);
        line.next_number += 1;
        let (call, called) = oneshot::channel();
        line.waiters.insert(ticket, Waiter { wish, since: Instant::now(), call });
        self.waiting.store(line.waiters.len(), SeqCst);
        Ok(Place { queue: self, ticket, called })
    }

    /// A place was freed, or backends changed: serve whoever waits.
    #[inline]
    pub(super) fn place_freed(&self) {
        if self.waiting.load(SeqCst) != 0 {
            self.serve();
        }
    }

    /// A place was freed by a taker who came too late. It serves the line itself, now or later: it
    /// stands in it, or gives back the place that it found elsewhere.
    pub(super) fn look_again(&self) {
        self.look_again.store(true, SeqCst);
    }

    /// Hands free places to the head of the line, until one of both is used up.
    fn serve(&self) {
        loop {
            while let Some((waiter, permit)) = self.next_pair() {
                if let Err(unwanted) = waiter.call.send(permit) {
                    // It left; its place goes to the next one by way of `place_freed`.
                    drop(unwanted);
                }
            }
            if !self.look_again.swap(false, SeqCst) {
                return;
            }
        }
    }

    fn next_pair(&self) -> Option<(Waiter, Permit)> {
        let mut line = self.lock();
        let (first, wish) = line.waiters.first_key_value().map(|(ticket, it)| (*ticket, it.wish))?;
        let snapshot = self.snapshot.load();
        let balance = self.balance.load();
        if let Some(permit) = pick(&snapshot.ready, &balance, wish, &mut line.rng, &self.turns) {
            return self.take_out(line, first).map(|waiter| (waiter, permit));
        }
        let first = line.waiters.iter().find(|(_, waiter)| waiter.wish.may_be_first).map(|(it, _)| *it)?;
        let permit = snapshot.all.iter().find_map(Backend::try_first)?;
        self.take_out(line, first).map(|waiter| (waiter, permit))
    }

    fn take_out(&self, mut line: MutexGuard<'_, Line>, ticket: Ticket) -> Option<Waiter> {
        let waiter = line.waiters.remove(&ticket);
        self.waiting.store(line.waiters.len(), SeqCst);
        waiter
    }

    fn leave(&self, ticket: Ticket) {
        let mut line = self.lock();
        if line.waiters.remove(&ticket).is_some() {
            self.waiting.store(line.waiters.len(), SeqCst);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Line> {
        self.line.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place in the line; dropping it leaves the line.
struct Place<'a> {
    queue: &'a Queue,
    ticket: Ticket,
    called: oneshot::Receiver<Permit>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.queue.leave(self.ticket);
    }
}
