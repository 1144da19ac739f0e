//! What workers count for each route.

use std::sync::Arc;

use super::counters::{Counter, EndedCounters};

/// The counters of one route; clones are handles of the same ones.
#[derive(Debug, Clone)]
pub struct RouteLoad(Arc<[EndedCounters]>);

impl RouteLoad {
    /// Counters for a number of workers.
    pub fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| EndedCounters::default()).collect())
    }

    /// The counters of one worker, which alone may write them.
    pub fn worker(&self, index: usize) -> &EndedCounters {
        &self.0[index]
    }

    /// One counter, added up over the workers.
    pub fn sum(&self, of: impl Fn(&EndedCounters) -> &Counter) -> u64 {
        self.0.iter().map(|worker| of(worker).get()).fold(0, u64::wrapping_add)
    }
}
