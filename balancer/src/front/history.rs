//! What was a while ago: one moment a second, for whoever begins to look later.

use std::collections::VecDeque;

use crate::admin::status::{History, LoadStatus, ScalingStatus};

/// Moments that are kept: a quarter of an hour.
const MAX_MOMENTS: usize = 900;

/// The status at one moment, without what is listed.
struct Moment {
    at_seconds: f64,
    load: LoadStatus,
    desired: u32,
    ready: u32,
}

/// The last moments, oldest first.
#[derive(Default)]
pub(super) struct Moments(VecDeque<Moment>);

impl Moments {
    /// Keeps a moment, and forgets the oldest if there are too many.
    pub(super) fn keep(&mut self, at_seconds: f64, load: LoadStatus, scaling: &ScalingStatus) {
        if self.0.len() == MAX_MOMENTS {
            self.0.pop_front();
        }
        self.0.push_back(Moment { at_seconds, load, desired: scaling.desired, ready: scaling.ready });
    }

    /// The document.
    pub(super) fn document(&self) -> History {
        let mut document = History::default();
        for moment in &self.0 {
            let load = &moment.load;
            document.at_seconds.push(moment.at_seconds);
            document.requests_per_second.push(load.requests_per_second);
            document.in_flight.push(load.in_flight);
            document.queued.push(load.queued);
            document.p50_seconds.push(load.p50_seconds);
            document.p95_seconds.push(load.p95_seconds);
            document.p99_seconds.push(load.p99_seconds);
            document.failed_total.push(load.failed_total);
            document.desired.push(moment.desired);
            document.ready.push(moment.ready);
        }
        document
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_last_quarter_of_an_hour_is_kept() {
        let mut moments = Moments::default();
        for second in 0..1000_u32 {
            let scaling = ScalingStatus { ready: second, ..ScalingStatus::default() };
            moments.keep(f64::from(second), LoadStatus::default(), &scaling);
        }
        let document = moments.document();
        assert_eq!((document.ready.first(), document.ready.last()), (Some(&100), Some(&999)));
        assert_eq!((document.at_seconds.len(), document.p99_seconds.len()), (900, 900));
    }
}
