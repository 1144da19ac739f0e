//! The circuit of one backend: what it answered lately, and whether it sits out.
//!
//! Counters are relaxed atomics that all workers write: an answer costs one add, and a
//! store if the row of errors ends. The hold has a lock that only ejections and those who
//! look at an ejected backend take.

use std::sync::atomic::Ordering::Relaxed;
use std::sync::atomic::{AtomicU32, AtomicU64};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::outlier::{Answers, Outcome, OutlierSettings, Reason, time_out};

/// A time out of service.
#[derive(Debug, Clone, Copy)]
struct Hold {
    until: Instant,
    reason: Reason,
}

/// What is shown of a circuit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CircuitState {
    /// Requests pass.
    Closed,
    /// None pass, for so long, for this reason.
    Open(Duration, Reason),
    /// The time is over; a good probe closes it.
    HalfOpen(Reason),
}

impl CircuitState {
    /// The word for it in the status document and in metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open(..) => "open",
            Self::HalfOpen(_) => "half_open",
        }
    }
}

/// The circuit of one backend.
#[derive(Debug, Default)]
pub struct Circuit {
    errors_in_a_row: AtomicU32,
    gateway_in_a_row: AtomicU32,
    good: AtomicU32,
    bad: AtomicU32,
    strikes: AtomicU32,
    ejections: [AtomicU64; Reason::ALL.len()],
    hold: Mutex<Option<Hold>>,
}

impl Circuit {
    /// Notes what an exchange says; returns why the backend should be ejected, if it should.
    pub(super) fn note(&self, outcome: Outcome, settings: &OutlierSettings) -> Option<Reason> {
        if outcome == Outcome::Fine {
            self.good.fetch_add(1, Relaxed);
            clear(&self.errors_in_a_row);
            clear(&self.gateway_in_a_row);
            return None;
        }
        self.bad.fetch_add(1, Relaxed);
        let errors = self.errors_in_a_row.fetch_add(1, Relaxed) + 1;
        let gateway = match outcome {
            Outcome::Gateway => self.gateway_in_a_row.fetch_add(1, Relaxed) + 1,
            Outcome::Error | Outcome::Fine => {
                clear(&self.gateway_in_a_row);
                0
            }
        };
        // A row that did not eject (the share was used up) asks again when it is as long again.
        let full = |row: u32, limit: Option<u32>| row > 0 && limit.is_some_and(|it| row % it == 0);
        if full(gateway, settings.gateway_errors) {
            Some(Reason::GatewayErrors)
        } else {
            full(errors, settings.errors).then_some(Reason::Errors)
        }
    }

    /// Takes the answers of the interval that ends.
    pub(super) fn take_answers(&self) -> Answers {
        Answers { good: self.good.swap(0, Relaxed), bad: self.bad.swap(0, Relaxed) }
    }

    /// An interval went by in service: an earlier ejection counts less.
    pub(super) fn forgive(&self) {
        let _ = self.strikes.fetch_update(Relaxed, Relaxed, |strikes| strikes.checked_sub(1));
    }

    /// Opens it; returns for how long.
    pub(super) fn open(&self, reason: Reason, settings: &OutlierSettings, now: Instant) -> Duration {
        let strikes = self.strikes.fetch_add(1, Relaxed) + 1;
        self.ejections[reason as usize].fetch_add(1, Relaxed);
        let time = time_out(strikes, settings);
        *self.hold() = Some(Hold { until: now + time, reason });
        time
    }

    /// Whether its time is not over.
    pub(super) fn is_open(&self, now: Instant) -> bool {
        self.hold().is_some_and(|hold| now < hold.until)
    }

    /// Closes it: the backend is in service again.
    pub(super) fn close(&self) {
        *self.hold() = None;
        clear(&self.errors_in_a_row);
        clear(&self.gateway_in_a_row);
        self.take_answers();
    }

    /// What is shown of it.
    pub fn state(&self, now: Instant) -> CircuitState {
        match *self.hold() {
            None => CircuitState::Closed,
            Some(hold) if now < hold.until => CircuitState::Open(hold.until - now, hold.reason),
            Some(hold) => CircuitState::HalfOpen(hold.reason),
        }
    }

    /// Ejections so far for a reason.
    pub fn ejections(&self, reason: Reason) -> u64 {
        self.ejections[reason as usize].load(Relaxed)
    }

    fn hold(&self) -> MutexGuard<'_, Option<Hold>> {
        self.hold.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A load is cheaper than a store that changes nothing.
fn clear(counter: &AtomicU32) {
    if counter.load(Relaxed) != 0 {
        counter.store(0, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noted(circuit: &Circuit, outcomes: &[Outcome]) -> Vec<Option<Reason>> {
        let settings = OutlierSettings { errors: Some(3), gateway_errors: Some(2), ..Default::default() };
        outcomes.iter().map(|outcome| circuit.note(*outcome, &settings)).collect()
    }

    #[test]
    fn errors_in_a_row_eject_and_a_good_answer_ends_the_row() {
        use Outcome::{Error, Fine};
        let circuit = Circuit::default();
        let why = noted(&circuit, &[Error, Error, Fine, Error, Error, Error]);
        assert_eq!(why, [None, None, None, None, None, Some(Reason::Errors)]);
    }

    #[test]
    fn gateway_errors_have_a_row_of_their_own() {
        use Outcome::{Error, Gateway};
        let circuit = Circuit::default();
        assert_eq!(noted(&circuit, &[Gateway, Error]), [None, None]);
        assert_eq!(noted(&circuit, &[Gateway]), [Some(Reason::Errors)], "three 5xx, of whatever kind");
        assert_eq!(noted(&circuit, &[Gateway]), [Some(Reason::GatewayErrors)]);
    }

    #[test]
    fn a_row_that_could_not_eject_asks_again_when_it_is_as_long_again() {
        let circuit = Circuit::default();
        let asked = noted(&circuit, &[Outcome::Error; 9]).iter().filter(|why| why.is_some()).count();
        assert_eq!(asked, 3);
    }

    #[test]
    fn without_limits_no_row_ejects() {
        let settings = OutlierSettings { errors: None, gateway_errors: None, ..Default::default() };
        let circuit = Circuit::default();
        assert!((0..100).all(|_| circuit.note(Outcome::Gateway, &settings).is_none()));
        assert_eq!(circuit.take_answers(), Answers { good: 0, bad: 100 });
        assert_eq!(circuit.take_answers(), Answers::default());
    }

    #[test]
    fn it_opens_for_longer_each_time_and_forgives_with_time() {
        let (circuit, settings, now) = (Circuit::default(), OutlierSettings::default(), Instant::now());
        assert_eq!(circuit.state(now), CircuitState::Closed);
        assert_eq!(circuit.open(Reason::Errors, &settings, now), settings.ejection_time);
        let in_ten = now + Duration::from_secs(10);
        assert_eq!(circuit.state(in_ten), CircuitState::Open(Duration::from_secs(20), Reason::Errors));
        let later = now + settings.ejection_time;
        assert!(circuit.is_open(in_ten) && !circuit.is_open(later));
        assert_eq!(circuit.state(later), CircuitState::HalfOpen(Reason::Errors));
        circuit.close();
        assert_eq!(circuit.open(Reason::SuccessRate, &settings, later), 2 * settings.ejection_time);
        (0..5).for_each(|_| circuit.forgive());
        assert_eq!(circuit.open(Reason::Errors, &settings, later), settings.ejection_time);
        assert_eq!((circuit.ejections(Reason::Errors), circuit.ejections(Reason::SuccessRate)), (2, 1));
    }
}
