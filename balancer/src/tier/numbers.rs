//! Counters of the memory processes, asked for in the background so that
//! neither the status document nor a scrape waits for another process.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use snowflock_engine::control::Engine;
use snowflock_engine::memory::protocol::{CheckpointId, PagerStats};

/// The newest counters, of checkpoints that have ended too.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    inner: Mutex<Counted>,
    asking: AtomicBool,
}

/// All that was counted.
#[derive(Debug, Default, Clone)]
pub(super) struct Counted {
    /// By checkpoint; the last that was heard of each.
    pub(super) pagers: BTreeMap<CheckpointId, PagerStats>,
    /// Pages that the memserver saved before the parent overwrote them.
    pub(super) saved: u64,
    /// Memory processes replaced after their death.
    pub(super) replaced: u64,
}

impl Counted {
    /// A counter summed over all checkpoints.
    pub(super) fn sum(&self, of: impl Fn(&PagerStats) -> u64) -> u64 {
        self.pagers.values().map(of).sum()
    }
}

impl Numbers {
    /// The newest.
    pub(super) fn get(&self) -> Counted {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Asks all memory processes on a thread of its own, unless that is under way.
    pub(super) fn refresh(self: &Arc<Self>, engine: &Engine) {
        if self.asking.swap(true, Ordering::AcqRel) {
            return;
        }
        let (numbers, view) = (Arc::clone(self), engine.view().borrow().clone());
        tokio::task::spawn_blocking(move || {
            let pagers: Vec<_> = view
                .checkpoints
                .iter()
                .filter_map(|checkpoint| Some((checkpoint.id, checkpoint.memtap.stats().ok()?.pager)))
                .collect();
            let saved =
                view.memserver.as_ref().and_then(|server| server.stats().ok()).map(|stats| stats.saved);
            let servers = view.checkpoints.iter().map(|c| &c.memtap).chain(&view.memserver);
            let replaced = servers.map(|server| server.replaced()).sum();
            let mut inner = numbers.inner.lock().unwrap_or_else(PoisonError::into_inner);
            inner.pagers.extend(pagers);
            inner.saved = saved.unwrap_or(inner.saved);
            inner.replaced = inner.replaced.max(replaced);
            drop(inner);
            numbers.asking.store(false, Ordering::Release);
        });
    }
}
