//! A receiver on a thread of its own, with sockets.
//!
//! Whoever misses a page asks and goes on; the listener is told when it is there.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use nix::sys::eventfd::EventFd;
use serde::{Deserialize, Serialize};

use super::distributor::SPIN;
use super::geometry::{Geometry, PageRef};
use super::receiver::{Receiver, ReceiverConfig, ReceiverStats};
use super::seal::{DistributionId, Key, SessionId};
use super::socket::{Batch, Inbox, Port, Troubles, rest_after, wait};
use super::source::{Found, PageStore};

/// Receives in a row before requests are sent again.
const RECEIVES: usize = 16;

/// Where a receiver finds its sender.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct FetcherConfig {
    /// Names the checkpoint.
    pub distribution: DistributionId,
    /// Its key.
    pub key: Key,
    /// The sender.
    pub sender: SocketAddrV4,
    /// The multicast group and port.
    pub group: SocketAddrV4,
    /// Address of this host on the page network.
    pub interface: Ipv4Addr,
    /// Fetch everything in the end, after what is asked for.
    pub fills: bool,
}

/// What others want of the thread.
#[derive(Debug)]
enum Order {
    Ask(PageRef),
    Prefetch(Vec<PageRef>),
    Fill(bool),
}

/// A running receiver. Dropping it ends the thread, which says good-bye to the sender.
#[derive(Debug)]
pub struct Fetcher {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    orders: Mutex<Vec<Order>>,
    has_orders: AtomicBool,
    sleeps: AtomicBool,
    wake: EventFd,
    stopping: AtomicBool,
    stats: Mutex<ReceiverStats>,
}

impl Fetcher {
    /// Receives from now on. `known` are pages that the store has already; `listener` is told of pages
    /// that have come, on the fetcher's thread.
    ///
    /// # Errors
    /// The interface is not ours, or no descriptor, thread or random bytes are left.
    pub fn start(
        config: FetcherConfig,
        geometry: Geometry,
        known: impl Iterator<Item = PageRef>,
        store: impl PageStore + Send + 'static,
        listener: impl Fn(&[PageRef]) + Send + 'static,
    ) -> io::Result<Self> {
        let own = Port::open(SocketAddrV4::new(config.interface, 0))?;
        let group = Port::join(config.group, config.interface)?;
        let FetcherConfig { distribution, key, sender, fills, .. } = config;
        let receiver = ReceiverConfig { distribution, key, geometry };
        let mut core = Receiver::new(receiver, SessionId::random()?);
        known.for_each(|page| core.note_known(page));
        core.fill(Duration::ZERO, fills);
        let shared = Arc::new(Shared {
            orders: Mutex::default(),
            has_orders: AtomicBool::new(false),
            sleeps: AtomicBool::new(false),
            wake: EventFd::new()?,
            stopping: AtomicBool::new(false),
            stats: Mutex::new(core.stats(Duration::ZERO)),
        });
        let store = Listened { store, came: Vec::new() };
        let start = Instant::now();
        let mut worker =
            Worker { shared: Arc::clone(&shared), core, store, listener, own, group, sender, start };
        let thread = std::thread::Builder::new().name("mcdist-fetch".into()).spawn(move || worker.run())?;
        Ok(Self { shared, thread: Some(thread) })
    }

    /// A guest waits for this page.
    pub fn ask(&self, page: PageRef) {
        self.order(Order::Ask(page));
    }

    /// These pages will be touched soon, in this order.
    pub fn prefetch(&self, pages: Vec<PageRef>) {
        self.order(Order::Prefetch(pages));
    }

    /// Whether everything is wanted in the end.
    pub fn fill(&self, fills: bool) {
        self.order(Order::Fill(fills));
    }

    /// Counters since the start, at most 10 ms old while something happens.
    #[must_use]
    pub fn stats(&self) -> ReceiverStats {
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn order(&self, order: Order) {
        self.shared.lock().push(order);
        self.shared.has_orders.store(true, Ordering::SeqCst);
        if self.shared.sleeps.load(Ordering::SeqCst) {
            let _ = self.shared.wake.write(1);
        }
    }
}

impl Drop for Fetcher {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        if self.shared.wake.write(1).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<Order>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Remembers which pages came.
struct Listened<S> {
    store: S,
    came: Vec<PageRef>,
}

impl<S: PageStore> PageStore for Listened<S> {
    fn put(&mut self, page: PageRef, found: Found<'_>) -> io::Result<()> {
        self.store.put(page, found)?;
        self.came.push(page);
        Ok(())
    }

    fn read(&mut self, page: PageRef, into: &mut [u8]) -> io::Result<()> {
        self.store.read(page, into)
    }
}

struct Worker<S, L> {
    shared: Arc<Shared>,
    core: Receiver,
    store: Listened<S>,
    listener: L,
    own: Port,
    group: Port,
    sender: SocketAddrV4,
    start: Instant,
}

impl<S: PageStore, L: Fn(&[PageRef])> Worker<S, L> {
    fn run(&mut self) {
        let (mut inbox, mut batch) = (Inbox::default(), Batch::default());
        let (mut busy_at, mut told_at) = (Instant::now(), Instant::now());
        let mut troubles = Troubles::default();
        while !self.shared.stopping.load(Ordering::Relaxed) {
            let ordered = self.obey();
            let sent = self.transmit(&mut batch);
            let received = match self.receive(&mut inbox) {
                Ok(received) => received,
                Err(error) => {
                    rest_after(&mut troubles, &error);
                    false
                }
            };
            match ordered || sent || received {
                true => busy_at = Instant::now(),
                false if busy_at.elapsed() < SPIN => std::thread::yield_now(),
                false => {
                    self.tell();
                    self.sleep();
                }
            }
            if told_at.elapsed() > Duration::from_millis(10) {
                told_at = Instant::now();
                self.tell();
            }
        }
        let mut bye = Batch::default();
        self.core.leave(&mut bye.bytes);
        if !bye.bytes.is_empty() {
            bye.take(0, self.sender);
            self.own.send(&mut bye);
        }
    }

    fn tell(&self) {
        let stats = ReceiverStats { unsent: self.own.unsent(), ..self.core.stats(self.start.elapsed()) };
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner) = stats;
    }

    fn obey(&mut self) -> bool {
        if !self.shared.has_orders.swap(false, Ordering::SeqCst) {
            return false;
        }
        let orders = std::mem::take(&mut *self.shared.lock());
        let now = self.start.elapsed();
        for order in orders {
            match order {
                // It has come meanwhile: who waits is told again.
                Order::Ask(page) if !self.core.ask(now, page) => (self.listener)(&[page]),
                Order::Ask(_) => {}
                Order::Prefetch(pages) => self.core.prefetch(now, pages.into_iter()),
                Order::Fill(fills) => self.core.fill(now, fills),
            }
        }
        true
    }

    fn transmit(&mut self, batch: &mut Batch) -> bool {
        let now = self.start.elapsed();
        let mut sends = false;
        while self.core.poll_transmit(now, &mut batch.bytes) {
            batch.take(0, self.sender);
            self.own.send(batch);
            sends = true;
        }
        sends
    }

    fn receive(&mut self, inbox: &mut Inbox) -> io::Result<bool> {
        let mut received = false;
        for _ in 0..RECEIVES {
            let mut came = false;
            for port in [&self.own, &self.group] {
                if !port.receive(inbox)? {
                    continue;
                }
                came = true;
                let now = self.start.elapsed();
                for datagram in inbox.datagrams().0 {
                    if let Err(error) = self.core.handle_datagram(now, datagram, &mut self.store) {
                        tracing::debug!(%error, "refused a datagram");
                    }
                }
                if !self.store.came.is_empty() {
                    (self.listener)(&self.store.came);
                    self.store.came.clear();
                }
            }
            if !came {
                break;
            }
            received = true;
        }
        Ok(received)
    }

    fn sleep(&self) {
        // First the sign, then the last look: an order in between wakes us.
        self.shared.sleeps.store(true, Ordering::SeqCst);
        if !self.shared.has_orders.load(Ordering::SeqCst) {
            let limit = self.core.poll_timeout().saturating_sub(self.start.elapsed());
            let limit = limit.min(Duration::from_secs(1));
            let fds = [self.own.as_fd(), self.group.as_fd(), self.shared.wake.as_fd()];
            wait(&fds.map(|fd| (fd, PollFlags::POLLIN)), Some(limit));
        }
        self.shared.sleeps.store(false, Ordering::SeqCst);
        // Ours alone: nothing is lost if it was not set.
        let mut readable = [nix::poll::PollFd::new(self.shared.wake.as_fd(), PollFlags::POLLIN)];
        if nix::poll::poll(&mut readable, nix::poll::PollTimeout::ZERO).is_ok_and(|count| count > 0) {
            let _ = self.shared.wake.read();
        }
    }
}
