//! A guest whose faults are resolved, by a thread of its own. No async runtime:
//! a fault is a handful of system calls, and a guest waits for it.
//!
//!   read faults -> resolve each -> read again, for as long as SPIN -> sleep until the next
//!
//! Faults come in bursts, and falling asleep costs more than serving: the
//! thread looks for the next fault for a short while before it sleeps, and
//! yields its CPU to whoever needs it meanwhile.

use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;

use super::Region;
use super::fetching::Waiter;
use super::freezer::Freezer;
use super::pager::Pager;
use crate::sys::uffd::{Fault, Uffd};

/// How long to look for the next fault before sleeping.
const SPIN: Duration = Duration::from_micros(30);
/// A fault that could not be resolved (no memory was left, say) is tried again after this long.
const RETRY: Duration = Duration::from_millis(500);
const _: () = assert!(RETRY.as_millis() < u16::MAX as u128, "it is a timeout of poll");

/// A guest and the thread that serves it. Dropping it ends the thread.
pub(super) struct Guest {
    shared: Arc<Serving>,
    thread: Option<JoinHandle<()>>,
}

struct Serving {
    uffd: Uffd,
    region: Region,
    freezer: Freezer,
    pager: Option<Arc<Pager>>,
    stopping: AtomicBool,
    stop: EventFd,
}

impl Guest {
    /// Serves from now on.
    ///
    /// # Errors
    /// No file descriptor or thread left.
    pub(super) fn start(
        uffd: Uffd,
        region: Region,
        freezer: Freezer,
        pager: Option<Arc<Pager>>,
    ) -> io::Result<Self> {
        let (stopping, stop) = (AtomicBool::new(false), EventFd::new()?);
        let shared = Arc::new(Serving { uffd, region, freezer, pager, stopping, stop });
        let for_thread = Arc::clone(&shared);
        let thread =
            std::thread::Builder::new().name("faults".into()).spawn(move || Serving::run(&for_thread))?;
        let guest = Self { shared, thread: Some(thread) };
        // A predecessor may have read faults that it never resolved: let their sleepers fault again.
        guest.shared.uffd.wake(region.address, region.len)?;
        Ok(guest)
    }

    pub(super) fn region(&self) -> Region {
        self.shared.region
    }

    pub(super) fn uffd(&self) -> &Uffd {
        &self.shared.uffd
    }

    pub(super) fn freezer(&self) -> &Freezer {
        &self.shared.freezer
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Relaxed);
        if self.shared.stop.write(1).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

impl Serving {
    fn run(self: &Arc<Self>) {
        let mut faults = Vec::new();
        let mut last = Instant::now();
        let mut retry_at = None;
        while !self.stopping.load(Ordering::Relaxed) {
            if let Err(error) = self.uffd.read(&mut faults) {
                tracing::error!(%error, "faults cannot be read any more: this guest is not served");
                return;
            }
            for fault in &faults {
                if !self.resolve(*fault) {
                    retry_at = retry_at.or(Some(Instant::now() + RETRY));
                }
            }
            match faults.is_empty() {
                false => last = Instant::now(),
                true if last.elapsed() < SPIN => std::thread::yield_now(),
                true => self.sleep(retry_at),
            }
            if retry_at.is_some_and(|at| at <= Instant::now()) {
                retry_at = None;
                // Who waits faults again.
                let _ = self.uffd.wake(self.region.address, self.region.len);
            }
        }
    }

    fn sleep(&self, until: Option<Instant>) {
        let mut wait = [
            PollFd::new(self.uffd.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.stop.as_fd(), PollFlags::POLLIN),
        ];
        let left = |at: Instant| at.saturating_duration_since(Instant::now()).as_millis() as u16 + 1;
        let limit = until.map_or(PollTimeout::NONE, |at| PollTimeout::from(left(at)));
        match poll(&mut wait, limit) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => {
                tracing::error!(%error, "waiting for faults");
                std::thread::sleep(Duration::from_millis(1));
            }
        }
    }

    /// A guest whose fault cannot be resolved waits: going on with wrong memory would be worse. The
    /// engine's watchdog finds it. `false`: it is to be tried again.
    fn resolve(self: &Arc<Self>, fault: Fault) -> bool {
        let waiter = || -> Weak<dyn Waiter> { Arc::<Self>::downgrade(self) };
        let done = match (&self.pager, self.region.page_at(fault.address)) {
            (_, Some(page)) if fault.protected => self.freezer.on_write(&self.uffd, page),
            (Some(pager), _) => pager.on_absent(&self.uffd, self.region, fault, &self.freezer, waiter),
            (None, _) => Err(io::Error::other("an absent page in a guest that has all")),
        };
        is_settled(done, fault)
    }
}

impl Waiter for Serving {
    fn resolve_late(self: Arc<Self>, fault: Fault, since: Instant) {
        let Some(pager) = &self.pager else { return };
        let done = pager.on_arrival(&self.uffd, self.region, fault, &self.freezer, since);
        if !is_settled(done, fault) {
            // Who waits faults again, and the page is there.
            let _ = self.uffd.wake(self.region.address, self.region.len);
        }
    }
}

/// `false`: the fault is to be tried again. A guest that is gone waits for nothing.
fn is_settled(done: io::Result<()>, fault: Fault) -> bool {
    match done {
        Err(error) if error.raw_os_error() != Some(libc::ESRCH) => {
            tracing::error!(%error, ?fault, "fault not resolved");
            false
        }
        Ok(()) | Err(_) => true,
    }
}
