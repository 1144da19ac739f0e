//! A tier of backends as a queue: births, work, backlog.

use std::collections::VecDeque;
use std::time::Duration;

use super::queue::Capacity;
use crate::pool::PoolView;
use crate::sample::Sample;

#[derive(Debug)]
pub(super) struct Tier {
    capacity: Capacity,
    /// Of the first clone of an order, and what each further one adds.
    birth: (Duration, Duration),
    /// When each ready backend became so, in order; the first is the parent.
    ready_since: Vec<Duration>,
    /// When each clone on its way will be ready, in order.
    due: VecDeque<Duration>,
    backlog: f64,
    /// The last answer of the queue formula, and what it was for.
    known_wait: (f64, u32, Option<f64>),
}

/// What a step of time brought.
#[derive(Debug, Clone, Copy)]
pub(super) struct Step {
    pub(super) sample: Sample,
    /// 95th percentile of the wait, seconds.
    pub(super) wait: f64,
}

impl Tier {
    /// A tier of backends that have been ready for long.
    pub(super) fn new(capacity: Capacity, birth: (Duration, Duration), ready: u32) -> Self {
        let ready_since = vec![Duration::ZERO; ready.max(1) as usize];
        Self { capacity, birth, ready_since, due: VecDeque::new(), backlog: 0.0, known_wait: (0.0, 0, None) }
    }

    pub(super) fn pool(&self) -> PoolView {
        PoolView { ready: self.ready(), starting: self.due.len() as u32, ..PoolView::default() }
    }

    pub(super) fn ready_since(&self) -> &[Duration] {
        &self.ready_since
    }

    fn ready(&self) -> u32 {
        self.ready_since.len() as u32
    }

    /// Lets time pass up to `now` under a load.
    pub(super) fn pass(&mut self, load: f64, step: Duration, now: Duration) -> Step {
        while self.due.front().is_some_and(|due| *due <= now) {
            self.due.pop_front();
            self.ready_since.push(now);
        }
        let seconds = step.as_secs_f64();
        let rate = self.capacity.requests_per_second() * f64::from(self.ready());
        let work = self.backlog + load * seconds;
        let served = work.min(rate * seconds);
        self.backlog = work - served;
        let service = self.capacity.service_time.as_secs_f64();
        let in_flight = served / seconds * service;
        // Until the backlog is gone everything waits for it; then requests wait for
        // each other only.
        let waiting = self.backlog / rate;
        let wait = if self.backlog > 0.0 { waiting } else { self.own_wait(load) };
        let sample = Sample {
            in_flight: Some(in_flight),
            queued: Some(self.backlog),
            requests_per_second: Some(load),
            p95_seconds: (load > 0.0).then_some(wait + service),
            service_seconds: (load > 0.0).then_some(service),
            queue_wait_seconds: Some(waiting),
            cpu_share: Some(in_flight / (f64::from(self.ready()) * f64::from(self.capacity.slots))),
            ..Sample::default()
        };
        Step { sample, wait }
    }

    fn own_wait(&mut self, load: f64) -> f64 {
        let ready = self.ready();
        if (self.known_wait.0, self.known_wait.1) != (load, ready) {
            self.known_wait = (load, ready, self.capacity.p95_wait(load, ready));
        }
        self.known_wait.2.unwrap_or(f64::INFINITY)
    }

    /// Asks for clones; they are ready a birth later.
    pub(super) fn grow(&mut self, by: u32, now: Duration) {
        let (first, each) = self.birth;
        self.due.extend((0..by).map(|index| now + first + each.saturating_mul(index)));
        // A later order may be done before the last of a large one.
        self.due.make_contiguous().sort_unstable();
    }

    /// Retires the newest ready backends, never the first.
    pub(super) fn shrink(&mut self, by: u32) {
        let left = self.ready_since.len().saturating_sub(by as usize).max(1);
        self.ready_since.truncate(left);
    }

    /// Brings the tier to a size; clones on their way are given up first.
    pub(super) fn scale(&mut self, to: u32, now: Duration) {
        let current = self.pool().capacity();
        if to > current {
            return self.grow(to - current, now);
        }
        let surplus = current - to.max(1);
        let given_up = surplus.min(self.due.len() as u32);
        self.due.truncate(self.due.len() - given_up as usize);
        self.shrink(surplus - given_up);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const S: Duration = Duration::from_secs(1);

    /// Ten requests per second and backend.
    fn tier(ready: u32) -> Tier {
        let capacity = Capacity { slots: 1, service_time: Duration::from_millis(100) };
        Tier::new(capacity, (2 * S, Duration::ZERO), ready)
    }

    #[test]
    fn what_cannot_be_served_waits_and_is_served_later() {
        let mut tier = tier(1);
        let step = tier.pass(30.0, S, S);
        assert_eq!((step.sample.in_flight, step.sample.queued), (Some(1.0), Some(20.0)));
        assert_eq!(step.wait, 2.0);
        tier.pass(0.0, S, 2 * S);
        let step = tier.pass(0.0, S, 3 * S);
        assert_eq!((step.sample.queued, step.wait), (Some(0.0), 0.0));
    }

    #[test]
    fn clones_serve_once_they_are_born() {
        let mut tier = tier(1);
        tier.grow(2, Duration::ZERO);
        tier.pass(0.0, S, S);
        assert_eq!(tier.pool(), PoolView { ready: 1, starting: 2, ..PoolView::default() });
        tier.pass(0.0, S, 2 * S);
        assert_eq!(tier.pool(), PoolView { ready: 3, starting: 0, ..PoolView::default() });
        assert_eq!(tier.ready_since(), [Duration::ZERO, 2 * S, 2 * S]);
    }

    #[test]
    fn clones_of_one_order_come_one_after_the_other() {
        let mut tier = Tier { birth: (2 * S, S), ..tier(1) };
        tier.grow(3, Duration::ZERO);
        let ready = [2, 3, 4].map(|second| {
            tier.pass(0.0, S, second * S);
            tier.pool().ready
        });
        assert_eq!(ready, [2, 3, 4]);
    }

    #[test]
    fn scaling_down_gives_up_the_unborn_first_and_keeps_one() {
        let mut tier = tier(2);
        tier.scale(5, S);
        tier.scale(4, S);
        assert_eq!(tier.pool(), PoolView { ready: 2, starting: 2, ..PoolView::default() });
        tier.scale(0, S);
        assert_eq!(tier.pool(), PoolView { ready: 1, starting: 0, ..PoolView::default() });
    }
}
