//! How long backends take to answer, for those settings that go by it. Others read no clock.

use std::sync::Arc;
use std::time::Instant;

use http::StatusCode;

use super::Pool;
use super::backend::Backend;
use super::pick::Balance;
use super::rtt::FAILURE;

impl Pool {
    /// The time, if the pool goes by how long answers take.
    #[inline]
    pub(crate) fn clock(&self) -> Option<Instant> {
        (self.0.settings.load().balance == Balance::PeakEwma).then(Instant::now)
    }

    /// The head of an answer is there, to a request sent at `sent`. An error counts as a long wait:
    /// who fails at once is not quick.
    pub(crate) fn answered_after(&self, backend: &Arc<Backend>, status: StatusCode, sent: Option<Instant>) {
        let Some(sent) = sent else { return };
        let now = Instant::now();
        let took = now.saturating_duration_since(sent);
        let counted = if status.is_server_error() { took.max(FAILURE) } else { took };
        backend.rtt().note(counted, now);
    }

    /// There was no answer.
    pub(super) fn failed_to_answer(&self, backend: &Backend) {
        if self.clock().is_some() {
            backend.rtt().note(FAILURE, Instant::now());
        }
    }
}
