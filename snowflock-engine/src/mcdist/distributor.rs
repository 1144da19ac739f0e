//! A sender on a thread of its own, with a socket.

use std::io;
use std::net::{SocketAddr, SocketAddrV4};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::PollFlags;
use nix::sys::eventfd::EventFd;
use serde::{Deserialize, Serialize};

use super::geometry::Geometry;
use super::seal::{DistributionId, Key, SessionId};
use super::sender::{Rates, Sender, SenderConfig, SenderStats, Target};
use super::socket::{BATCH_BYTES, Batch, Inbox, Port, Troubles, rest_after, route_mtu, wait};
use super::source::PageSource;

/// How long to look for the next request before sleeping: guests fault in bursts.
pub(super) const SPIN: Duration = Duration::from_micros(30);
/// A page with all headers, down to those of IP.
const WHOLE_PAGE: usize = 4_184;
/// Receives in a row before something is sent again.
const RECEIVES: usize = 32;

/// Where a sender sends from and to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DistributorConfig {
    /// Names the checkpoint.
    pub distribution: DistributionId,
    /// Its key.
    pub key: Key,
    /// Address of this host on the page network; port 0 takes any.
    pub address: SocketAddrV4,
    /// The multicast group and port.
    pub group: SocketAddrV4,
    /// Pages in thirds; `None`: if the route to the group needs it.
    pub split: Option<bool>,
}

/// A running sender. Dropping it ends the thread.
#[derive(Debug)]
pub struct Distributor {
    shared: Arc<Shared>,
    address: SocketAddrV4,
    thread: Option<JoinHandle<()>>,
}

#[derive(Debug)]
struct Shared {
    stop: EventFd,
    stopping: AtomicBool,
    stats: Mutex<SenderStats>,
}

impl Distributor {
    /// Distributes pages from now on.
    ///
    /// # Errors
    /// The address is not ours or taken, or no descriptor, thread or random bytes are left.
    pub fn start(
        config: DistributorConfig,
        geometry: Geometry,
        source: impl PageSource + Send + 'static,
    ) -> io::Result<Self> {
        let port = Port::open(config.address)?;
        let address = port.local()?;
        let split = config.split.unwrap_or_else(|| {
            route_mtu(*config.address.ip(), config.group).is_none_or(|mtu| mtu < WHOLE_PAGE)
        });
        let DistributorConfig { distribution, key, group, .. } = config;
        let sender = SenderConfig { distribution, key, geometry, split, rates: Rates::default() };
        let core = Sender::new(sender, SessionId::random()?);
        let stats = Mutex::new(SenderStats::default());
        let shared = Arc::new(Shared { stop: EventFd::new()?, stopping: AtomicBool::new(false), stats });
        let mut worker =
            Worker { shared: Arc::clone(&shared), core, source, port, group, start: Instant::now() };
        let thread = std::thread::Builder::new().name("mcdist-send".into()).spawn(move || worker.run())?;
        Ok(Self { shared, address, thread: Some(thread) })
    }

    /// Where receivers find it.
    #[must_use]
    pub fn address(&self) -> SocketAddrV4 {
        self.address
    }

    /// Counters since the start, at most 10 ms old while something happens.
    #[must_use]
    pub fn stats(&self) -> SenderStats {
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Distributor {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        if self.shared.stop.write(1).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

struct Worker<S> {
    shared: Arc<Shared>,
    core: Sender,
    source: S,
    port: Port,
    group: SocketAddrV4,
    start: Instant,
}

impl<S: PageSource> Worker<S> {
    fn run(&mut self) {
        let (mut inbox, mut batch) = (Inbox::default(), Batch::default());
        let (mut busy_at, mut told_at) = (Instant::now(), Instant::now());
        let mut troubles = Troubles::default();
        while !self.shared.stopping.load(Ordering::Relaxed) {
            let received = match self.receive(&mut inbox) {
                Ok(received) => received,
                Err(error) => {
                    rest_after(&mut troubles, &error);
                    false
                }
            };
            let sent = self.transmit(&mut batch);
            match received || sent {
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
    }

    fn tell(&self) {
        let stats = SenderStats { unsent: self.port.unsent(), ..self.core.stats() };
        *self.shared.stats.lock().unwrap_or_else(PoisonError::into_inner) = stats;
    }

    fn receive(&mut self, inbox: &mut Inbox) -> io::Result<bool> {
        for turn in 0..RECEIVES {
            if !self.port.receive(inbox)? {
                return Ok(turn > 0);
            }
            let now = self.start.elapsed();
            let (datagrams, from) = inbox.datagrams();
            let Some(from) = from else { continue };
            for datagram in datagrams {
                if let Err(error) = self.core.handle_datagram(now, from.into(), datagram) {
                    tracing::debug!(%error, %from, "refused a datagram");
                }
            }
        }
        Ok(true)
    }

    /// Sends one batch, so that requests are looked at in between.
    fn transmit(&mut self, batch: &mut Batch) -> bool {
        let now = self.start.elapsed();
        while batch.bytes.len() < BATCH_BYTES {
            let start = batch.bytes.len();
            let Some(target) = self.core.poll_transmit(now, &mut self.source, &mut batch.bytes) else {
                break;
            };
            let to = match target {
                Target::All => self.group,
                Target::One(SocketAddr::V4(address)) => address,
                Target::One(SocketAddr::V6(_)) => continue,
            };
            if let Some(other) = batch.take(start, to) {
                self.port.send(batch);
                batch.bytes = other;
                batch.take(0, to);
            }
        }
        let sends = !batch.is_empty();
        self.port.send(batch);
        sends
    }

    fn sleep(&self) {
        let limit = self.core.poll_timeout().map(|at| at.saturating_sub(self.start.elapsed()));
        let what = [(self.port.as_fd(), PollFlags::POLLIN), (self.shared.stop.as_fd(), PollFlags::POLLIN)];
        wait(&what, limit);
    }
}
