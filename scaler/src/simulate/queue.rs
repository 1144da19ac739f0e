//! How long requests wait: a tier as one queue before all its slots.
//!
//! Arrivals within an interval are taken as Poisson and service times as exponential
//! (M/M/c, Erlang's C formula), since a recorded load is a mean and real requests come
//! in bunches: a tier that is just large enough on average makes them wait.

use std::time::Duration;

/// What one backend can do.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Capacity {
    /// Requests it serves at once (its workers).
    pub slots: u32,
    /// Mean time one request takes.
    pub service_time: Duration,
}

/// The share of requests that may wait longer than the objective.
const TAIL: f64 = 0.05;

impl Capacity {
    /// Requests per second of one backend.
    pub fn requests_per_second(&self) -> f64 {
        f64::from(self.slots) / self.service_time.as_secs_f64()
    }

    /// Fewest backends with which 95 % of requests wait no longer than `limit`; one at least.
    pub(super) fn backends_for(&self, load: f64, limit: f64) -> u32 {
        let service = self.service_time.as_secs_f64();
        let offered = load * service;
        let mut blocked = 1.0;
        let mut servers = 0_u32;
        loop {
            for _ in 0..self.slots {
                servers += 1;
                blocked = next_blocked(blocked, offered, servers);
            }
            if tail_wait(blocked, offered, servers, service).is_some_and(|wait| wait <= limit) {
                return servers / self.slots;
            }
        }
    }

    /// The wait in seconds that 95 % of requests stay under in the long run; `None` if
    /// the backends cannot carry the load.
    pub(super) fn p95_wait(&self, load: f64, backends: u32) -> Option<f64> {
        let service = self.service_time.as_secs_f64();
        let offered = load * service;
        let servers = backends.saturating_mul(self.slots);
        if offered >= f64::from(servers) {
            return None;
        }
        let blocked = (1..=servers).fold(1.0, |blocked, n| next_blocked(blocked, offered, n));
        tail_wait(blocked, offered, servers, service)
    }
}

/// Erlang's B formula, one more server at a time.
fn next_blocked(blocked: f64, offered: f64, servers: u32) -> f64 {
    let waiting = offered * blocked;
    waiting / (f64::from(servers) + waiting)
}

/// The wait that all but [`TAIL`] stay under, from Erlang's B.
fn tail_wait(blocked: f64, offered: f64, servers: u32, service: f64) -> Option<f64> {
    let servers = f64::from(servers);
    if offered >= servers {
        return None;
    }
    let must_wait = blocked / (1.0 - offered / servers * (1.0 - blocked));
    let drain = (servers - offered) / service;
    Some(((must_wait / TAIL).ln() / drain).max(0.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const CAPACITY: Capacity = Capacity { slots: 1, service_time: Duration::from_millis(100) };

    #[test]
    fn one_server_at_half_load_has_the_known_tail() {
        // M/M/1: P(wait > t) = rho exp(-(mu - lambda) t), 5 % at ln(0.5 / 0.05) / 5.
        let wait = CAPACITY.p95_wait(5.0, 1).expect("it can carry that");
        assert!((wait - 10.0_f64.ln() / 5.0).abs() < 1e-9, "{wait}");
    }

    #[test]
    fn erlang_c_of_ten_servers_at_eight_erlangs_is_known() {
        // Tables give a probability of waiting of 0.409.
        let wait = CAPACITY.p95_wait(80.0, 10).expect("it can carry that");
        assert!((wait - (0.409_f64 / 0.05).ln() / 20.0).abs() < 1e-3, "{wait}");
    }

    #[test]
    fn load_beyond_capacity_waits_without_end_and_none_does_not_wait() {
        assert_eq!(CAPACITY.p95_wait(10.0, 1), None);
        assert_eq!(CAPACITY.p95_wait(0.0, 1), Some(0.0));
        assert_eq!(CAPACITY.backends_for(0.0, 0.0), 1);
    }

    #[test]
    fn the_fewest_backends_suffice_and_one_less_does_not() {
        let capacity = Capacity { slots: 4, service_time: Duration::from_millis(20) };
        for load in [1.0, 150.0, 700.0, 3587.0] {
            let backends = capacity.backends_for(load, 0.02);
            assert!(capacity.p95_wait(load, backends).is_some_and(|wait| wait <= 0.02));
            assert!(backends == 1 || capacity.p95_wait(load, backends - 1).is_none_or(|wait| wait > 0.02));
        }
    }
}
