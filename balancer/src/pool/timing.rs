//! How long backends take to answer, for those settings that go by it. Others read no clock.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;

use super::Pool;
use super::adaptive::Ended;
use super::backend::Backend;
use super::pick::Balance;
use super::rtt::FAILURE;

impl Pool {
    /// The time, if the pool goes by how long answers take.
    #[inline]
    pub(crate) fn clock(&self) -> Option<Instant> {
        let settings = self.0.settings.load();
        (settings.balance == Balance::PeakEwma || settings.adaptive.is_some()).then(Instant::now)
    }

    /// The head of an answer is there, to a request sent at `sent`. An error counts as a long wait:
    /// who fails at once is not quick.
    pub(crate) fn answered_after(&self, backend: &Arc<Backend>, status: StatusCode, sent: Option<Instant>) {
        let Some(sent) = sent else { return };
        let now = Instant::now();
        let took = now.saturating_duration_since(sent);
        let counted = if status.is_server_error() { took.max(FAILURE) } else { took };
        backend.rtt().note(counted, now);
        match status {
            StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                self.adapt(backend, Ended::Failed, now);
            }
            // Errors of a program may be quick or slow, whatever it has to do.
            _ if status.is_server_error() => {}
            _ => self.adapt(backend, Ended::Answered(took), now),
        }
    }

    /// Lets the limit of a backend follow, if it is one that is found out.
    fn adapt(&self, backend: &Backend, ended: Ended, now: Instant) {
        let settings = self.0.settings.load();
        let Some(bounds) = &settings.adaptive else { return };
        let limit = backend.adaptive().note(ended, backend.in_flight(), now, bounds);
        if let Some(limit) = limit.filter(|limit| Some(*limit) != backend.limit()) {
            backend.set_limit(Some(limit));
            // With more places than before, somebody in line may have one.
            self.0.queue.place_freed();
        }
    }

    /// There was no answer.
    pub(super) fn failed_to_answer(&self, backend: &Backend) {
        if self.clock().is_some() {
            let now = Instant::now();
            backend.rtt().note(FAILURE, now);
            self.adapt(backend, Ended::Failed, now);
        }
    }
}
