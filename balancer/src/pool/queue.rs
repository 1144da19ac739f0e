//! The wait for a backend: first come, first served, bounded in length and time.
//!
//! Requests come here only when no backend can take them. The lock is never taken
//! while backends have room: takers and givers look at `waiting` first.
//!
//! No wake-up is lost: a request enters the line and then tries the backends; who
//! frees a place (or publishes a ready backend) does that first and then looks at
//! the line. Both use sequentially consistent order.

use std::collections::VecDeque;
use std::sync::atomic::Ordering::{Relaxed, SeqCst};
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::sync::oneshot;

use super::backend::{Backend, Permit};
use super::pick::{Balance, Rng, Turns, Wish, pick};
use super::snapshot::Snapshot;

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
    /// The process is going down and has no backend left.
    Closing,
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
    waiters: VecDeque<Waiter>,
    next_ticket: u64,
    rng: Rng,
}

struct Waiter {
    ticket: u64,
    wish: Wish,
    since: Instant,
    call: oneshot::Sender<Permit>,
}

impl Queue {
    pub(super) fn new(settings: QueueSettings, balance: Balance, snapshot: Arc<ArcSwap<Snapshot>>) -> Self {
        let line = Line { waiters: VecDeque::new(), next_ticket: 0, rng: Rng::new(0x5eed) };
        let settings = ArcSwap::from_pointee(settings);
        let (balance, turns) = (ArcSwap::from_pointee(balance), Turns::default());
        let (waiting, look_again) = (AtomicUsize::new(0), AtomicBool::new(false));
        Self { settings, balance, turns, snapshot, waiting, look_again, line: Mutex::new(line) }
    }

    /// Requests that wait now.
    pub fn waiting(&self) -> usize {
        self.waiting.load(Relaxed)
    }

    /// How long the first in line has waited; `None` if nobody waits.
    pub fn oldest_wait(&self, now: Instant) -> Option<Duration> {
        if self.waiting() == 0 {
            return None;
        }
        let since = self.lock().waiters.front()?.since;
        Some(now.saturating_duration_since(since))
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
        match tokio::time::timeout(self.settings.load().timeout, &mut place.called).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_gone)) => Err(Refused::Closing),
            // The call may have come together with the timeout.
            Err(_elapsed) => place.called.try_recv().map_err(|_| Refused::TimedOut),
        }
    }

    fn enter(&self, wish: Wish) -> Result<Place<'_>, Refused> {
        let mut line = self.lock();
        if line.waiters.len() >= self.settings.load().max_requests {
            return Err(Refused::QueueFull);
        }
        let ticket = line.next_ticket;
        line.next_ticket += 1;
        let (call, called) = oneshot::channel();
        line.waiters.push_back(Waiter { ticket, wish, since: Instant::now(), call });
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
        let wish = line.waiters.front()?.wish;
        let snapshot = self.snapshot.load();
        let balance = self.balance.load();
        if let Some(permit) = pick(&snapshot.ready, &balance, wish, &mut line.rng, &self.turns) {
            return self.take_out(line, 0).map(|waiter| (waiter, permit));
        }
        let first = line.waiters.iter().position(|waiter| waiter.wish.may_be_first)?;
        let permit = snapshot.all.iter().find_map(Backend::try_first)?;
        self.take_out(line, first).map(|waiter| (waiter, permit))
    }

    fn take_out(&self, mut line: MutexGuard<'_, Line>, index: usize) -> Option<Waiter> {
        let waiter = line.waiters.remove(index);
        self.waiting.store(line.waiters.len(), SeqCst);
        waiter
    }

    fn leave(&self, ticket: u64) {
        let mut line = self.lock();
        if let Ok(index) = line.waiters.binary_search_by_key(&ticket, |waiter| waiter.ticket) {
            line.waiters.remove(index);
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
    ticket: u64,
    called: oneshot::Receiver<Permit>,
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.queue.leave(self.ticket);
    }
}
