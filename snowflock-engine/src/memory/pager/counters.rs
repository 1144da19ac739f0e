//! What a pager counts: faults, where their pages came from, and how long they took.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::memory::protocol::PagerStats;

/// Service times are counted in buckets of one microsecond; the last one holds all above.
const BUCKETS: usize = 256;

/// Counters that several threads advance.
#[derive(Debug)]
pub struct Counters {
    faults: AtomicU64,
    fetched: AtomicU64,
    repeated: AtomicU64,
    prefetched: AtomicU64,
    zero: AtomicU64,
    shared: AtomicU64,
    service: [AtomicU64; BUCKETS],
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            faults: AtomicU64::new(0),
            fetched: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            prefetched: AtomicU64::new(0),
            zero: AtomicU64::new(0),
            shared: AtomicU64::new(0),
            service: [const { AtomicU64::new(0) }; BUCKETS],
        }
    }
}

impl Counters {
    pub(super) fn fault(&self, took: Duration) {
        self.faults.fetch_add(1, Ordering::Relaxed);
        let bucket = (took.as_micros() as usize).min(BUCKETS - 1);
        self.service[bucket].fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn fetched(&self) {
        self.fetched.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn repeated(&self) {
        self.repeated.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn prefetched(&self, pages: u32) {
        self.prefetched.fetch_add(u64::from(pages), Ordering::Relaxed);
    }

    pub(super) fn zero(&self) {
        self.zero.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn shared(&self) {
        self.shared.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn stats(&self, present: u32) -> PagerStats {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        PagerStats {
            faults: load(&self.faults),
            fetched: load(&self.fetched),
            repeated: load(&self.repeated),
            prefetched: load(&self.prefetched),
            zero: load(&self.zero),
            shared: load(&self.shared),
            present,
            recording: false,
            service_p50_us: self.percentile(0.5),
            service_p99_us: self.percentile(0.99),
            fetcher: None,
        }
    }

    /// The upper edge, in microseconds, of the bucket where this share of the faults is reached.
    fn percentile(&self, share: f64) -> Option<u64> {
        let counts: Vec<u64> = self.service.iter().map(|b| b.load(Ordering::Relaxed)).collect();
        let wanted = (counts.iter().sum::<u64>() as f64 * share).ceil() as u64;
        let mut seen = 0;
        let bucket = counts.iter().position(|count| {
            seen += count;
            wanted > 0 && seen >= wanted
        });
        bucket.map(|bucket| bucket as u64 + 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_upper_edges_of_microsecond_buckets() {
        let counters = Counters::default();
        assert_eq!(counters.percentile(0.5), None);
        for micros in [1, 2, 3, 4, 9_999] {
            counters.fault(Duration::from_micros(micros));
        }
        assert_eq!((counters.percentile(0.5), counters.percentile(0.99)), (Some(4), Some(256)));
    }
}
