//! What a route lets through: rates, retries, and who goes first when there is a line.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::hedge::{Hedge, HedgeAfter};
use crate::limit::{RateLimit, RateLimitSettings};
use crate::pool::Priority;
use crate::proxy::RetryBudget;

/// How many requests may be sent again.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RetrySettings {
    /// Share of the requests, 0 to 1.
    pub share: f64,
    /// So many a second on top.
    pub per_second: f64,
}

impl Default for RetrySettings {
    fn default() -> Self {
        Self { share: 0.2, per_second: 10.0 }
    }
}

/// What a route lets through, as it is configured.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TrafficSettings {
    /// Limits on its requests.
    pub limits: Vec<RateLimitSettings>,
    /// A retry budget of its own; without one it shares that of all routes.
    pub retries: Option<RetrySettings>,
    /// Who goes first when requests wait; `None` for what the request says.
    pub priority: Option<Priority>,
    /// The longest wait for a backend, instead of the pool's.
    pub queue_timeout: Option<Duration>,
    /// When a second backend is asked; `None` for never.
    pub hedge: Option<HedgeAfter>,
}

/// What a route lets through, with what is left of it.
#[derive(Default)]
pub struct Traffic {
    pub(crate) limits: Vec<Arc<RateLimit>>,
    retries: Option<Mutex<RetryBudget>>,
    pub(crate) priority: Option<Priority>,
    pub(crate) queue_timeout: Option<Duration>,
    pub(crate) hedge: Option<Hedge>,
}

impl Traffic {
    /// Makes it. Limits of `old` that have not changed go on.
    pub(crate) fn new(settings: &TrafficSettings, old: Option<&Self>, now: Instant) -> Self {
        let budget = |it: RetrySettings| Mutex::new(RetryBudget::new(it.share, it.per_second, now));
        Self {
            limits: limits(&settings.limits, old.map_or(&[], |old| &old.limits), now),
            retries: settings.retries.map(budget),
            priority: settings.priority,
            queue_timeout: settings.queue_timeout,
            hedge: settings.hedge.map(|after| Hedge::new(after, now)),
        }
    }

    /// Works on the retry budget, if it has one of its own.
    pub(crate) fn budget<R>(&self, work: impl FnOnce(&mut RetryBudget) -> R) -> Option<R> {
        let budget = self.retries.as_ref()?;
        Some(work(&mut budget.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

/// Makes limits. Those that there are already go on, with what they have counted.
pub(crate) fn limits(
    wanted: &[RateLimitSettings],
    old: &[Arc<RateLimit>],
    now: Instant,
) -> Vec<Arc<RateLimit>> {
    let kept = |settings: &RateLimitSettings| old.iter().find(|it| it.settings() == settings).cloned();
    let made = |settings: &RateLimitSettings| {
        kept(settings).unwrap_or_else(|| Arc::new(RateLimit::new(settings.clone(), now)))
    };
    wanted.iter().map(made).collect()
}
