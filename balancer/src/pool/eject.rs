//! Where the rules about outliers meet the pool: who is judged, who is taken out, who may return.
//!
//! Success rates are compared by whichever answer is the first after the end of an interval: a pool
//! without requests needs no judge.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use super::Pool;
use super::backend::{Backend, State};
use super::outlier::{Outcome, OutlierSettings, Reason, far_below, may_eject};

/// What a pool notes of its outliers.
#[derive(Debug)]
pub(super) struct Judge {
    since: Instant,
    /// When the next comparison is due, in milliseconds from `since`.
    next_ms: AtomicU64,
    spared: AtomicU64,
}

impl Judge {
    pub(super) fn new(now: Instant) -> Self {
        Self { since: now, next_ms: AtomicU64::new(0), spared: AtomicU64::new(0) }
    }

    /// Whether an interval has ended; says so to one caller only. The first one begins with the first call.
    fn is_due(&self, interval: Duration, now: Instant) -> bool {
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap_or(u64::MAX);
        let now = ms(now.saturating_duration_since(self.since));
        let due = self.next_ms.load(Relaxed);
        let next = now.saturating_add(ms(interval).max(1));
        let passed = now >= due && self.next_ms.compare_exchange(due, next, Relaxed, Relaxed).is_ok();
        passed && due != 0
    }
}

impl Pool {
    /// Notes what an exchange says about its backend, and what follows for this one and others.
    pub(super) fn judge(&self, backend: &Arc<Backend>, outcome: Outcome) {
        let settings = self.0.settings.load();
        let Some(outliers) = &settings.outliers else { return };
        let now = Instant::now();
        if let Some(reason) = backend.circuit().note(outcome, outliers) {
            self.eject_outlier(backend, reason, outliers, now);
        }
        if self.0.judge.is_due(outliers.interval, now) {
            self.compare(outliers, now);
        }
    }

    /// Ends an interval: forgives, and ejects who is far below the others.
    fn compare(&self, outliers: &OutlierSettings, now: Instant) {
        let snapshot = self.snapshot();
        let answers: Vec<_> = snapshot.ready.iter().map(|it| it.circuit().take_answers()).collect();
        snapshot.ready.iter().for_each(|backend| backend.circuit().forgive());
        let Some(rule) = &outliers.success_rate else { return };
        for index in far_below(&answers, rule) {
            self.eject_outlier(&snapshot.ready[index], Reason::SuccessRate, outliers, now);
        }
    }

    /// Takes an outlier out of service, if enough others are left.
    fn eject_outlier(&self, backend: &Arc<Backend>, why: Reason, settings: &OutlierSettings, now: Instant) {
        let members = self.members();
        let count = |state| members.iter().filter(|member| member.backend.state() == state).count();
        if !may_eject(count(State::Ready), count(State::Ejected), settings.max_ejected_percent) {
            self.0.judge.spared.fetch_add(1, Relaxed);
            tracing::debug!(backend = %backend.id(), why = why.word(), "an outlier stays: too few others");
            return;
        }
        if !backend.transit(&[State::Ready], State::Ejected) {
            return;
        }
        let time = backend.circuit().open(why, settings, now);
        tracing::warn!(backend = %backend.id(), why = why.word(), ?time, "outlier ejected");
        self.publish(members);
    }

    /// Outliers that were not ejected because too few others were left.
    pub fn outliers_spared(&self) -> u64 {
        self.0.judge.spared.load(Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_interval_ends_once_and_begins_with_the_first_answer() {
        let start = Instant::now();
        let judge = Judge::new(start);
        let interval = Duration::from_secs(10);
        let due = |seconds| judge.is_due(interval, start + Duration::from_secs(seconds));
        assert_eq!([1, 2, 10, 11, 11, 20, 21].map(due), [false, false, false, true, false, false, true]);
    }
}
