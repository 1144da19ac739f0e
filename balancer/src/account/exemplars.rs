//! Exemplars: for each bucket of the latency histogram, the last traced request that fell into it.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::context::TraceId;
use crate::load::DURATION_BOUNDS;

/// A request that stands for others.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Exemplar {
    pub(crate) trace: TraceId,
    /// How long it took.
    pub(crate) latency: Duration,
    /// When it was over.
    pub(crate) time: SystemTime,
}

/// One place for each bucket, and one more for what is above all of them.
pub(crate) type ByBucket = [Option<Exemplar>; DURATION_BOUNDS.len() + 1];

/// The newest ones.
#[derive(Debug, Default)]
pub(super) struct Exemplars(Mutex<ByBucket>);

impl Exemplars {
    /// Notes a request, unless somebody is at it right now: nobody waits here, and there are more.
    pub(super) fn note(&self, exemplar: Exemplar) {
        let Ok(mut kept) = self.0.try_lock() else { return };
        let seconds = exemplar.latency.as_secs_f64();
        let bucket = DURATION_BOUNDS.iter().position(|bound| seconds <= *bound);
        kept[bucket.unwrap_or(DURATION_BOUNDS.len())] = Some(exemplar);
    }

    pub(super) fn all(&self) -> ByBucket {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
