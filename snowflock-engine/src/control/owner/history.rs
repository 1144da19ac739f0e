//! Times of the last pauses and forks.

use std::collections::VecDeque;
use std::time::Duration;

use super::super::view::{ForkTimes, PauseTimes};
use crate::network::identity::CloneId;

/// So many of each are kept: enough for medians, and little to copy into every view.
pub(super) const KEPT: usize = 256;

/// The last pauses and forks, oldest first.
#[derive(Debug, Default)]
pub(super) struct History {
    pauses: VecDeque<PauseTimes>,
    forks: VecDeque<ForkTimes>,
    forks_total: u64,
}

impl History {
    pub(super) fn paused(&mut self, times: PauseTimes) {
        keep(&mut self.pauses, times);
    }

    pub(super) fn forked(&mut self, times: ForkTimes) {
        self.forks_total += 1;
        keep(&mut self.forks, times);
    }

    pub(super) fn answered(&mut self, id: CloneId, first_response: Duration) {
        if let Some(times) = self.forks.iter_mut().rfind(|times| times.id == id) {
            times.first_response.get_or_insert(first_response);
        }
    }

    pub(super) fn pauses(&self) -> Vec<PauseTimes> {
        self.pauses.iter().copied().collect()
    }

    pub(super) fn forks(&self) -> Vec<ForkTimes> {
        self.forks.iter().copied().collect()
    }

    pub(super) fn forks_total(&self) -> u64 {
        self.forks_total
    }
}

fn keep<T>(times: &mut VecDeque<T>, newest: T) {
    if times.len() == KEPT {
        times.pop_front();
    }
    times.push_back(newest);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fork(id: u32) -> ForkTimes {
        let zero = Duration::ZERO;
        ForkTimes { id: CloneId(id), seeded: zero, running: zero, joined: zero, first_response: None }
    }

    #[test]
    fn the_newest_forks_are_kept_and_all_are_counted() {
        let mut history = History::default();
        (1..=KEPT as u32 + 1).for_each(|id| history.forked(fork(id)));
        let forks = history.forks();
        assert_eq!((forks.len(), history.forks_total()), (KEPT, KEPT as u64 + 1));
        assert_eq!((forks[0].id, forks[KEPT - 1].id), (CloneId(2), CloneId(KEPT as u32 + 1)));
    }

    #[test]
    fn the_first_response_counts_and_a_forgotten_fork_has_none() {
        let mut history = History::default();
        history.forked(fork(1));
        history.answered(CloneId(1), Duration::from_millis(5));
        history.answered(CloneId(1), Duration::from_millis(9));
        history.answered(CloneId(7), Duration::from_millis(9));
        assert_eq!(history.forks()[0].first_response, Some(Duration::from_millis(5)));
    }
}
