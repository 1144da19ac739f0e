//! When a backend is taken out and when it is let in again: pure rules.
//!
//! Not here: sending probes (see `probe.rs`) and the states themselves
//! (see `backend.rs`).

use std::time::Duration;

use super::backend::State;

/// What a probe asks.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum ProbeKind {
    /// `GET` of the path; 200 to 399 is a good answer.
    #[default]
    Http,
    /// Whether this service serves, by gRPC's own health check; the empty name is for the whole server.
    Grpc(String),
    /// Nothing: a connection that comes to be, TLS included, is a good answer.
    Connect,
}

/// How backends are probed and judged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HealthSettings {
    /// What is asked.
    pub kind: ProbeKind,
    /// Path of the probe request of [`ProbeKind::Http`].
    pub path: String,
    /// Time from one probe of a ready backend to the next.
    pub interval: Duration,
    /// The longest time from the start of a probe to the head of its answer.
    pub timeout: Duration,
    /// Bad probes in a row that eject a ready backend.
    pub unhealthy_after: u32,
    /// Good probes in a row that readmit an ejected backend.
    pub healthy_after: u32,
    /// Requests in a row that ended without an answer, and eject a backend.
    pub eject_after: u32,
}

impl Default for HealthSettings {
    fn default() -> Self {
        Self {
            kind: ProbeKind::default(),
            path: "/".to_owned(),
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            unhealthy_after: 3,
            healthy_after: 1,
            eject_after: 5,
        }
    }
}

/// What a run of probes says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing changes.
    Keep,
    /// It may take requests.
    Admit,
    /// It must not take requests.
    Eject,
}

/// Probe results in a row.
#[derive(Debug, Clone, Default)]
pub struct Streak {
    good: u32,
    bad: u32,
}

impl Streak {
    /// Notes a probe of a backend in `state` and says what follows.
    /// A new backend is admitted by its first good probe: it was never judged bad.
    pub fn note(&mut self, good: bool, state: State, settings: &HealthSettings) -> Verdict {
        if good {
            self.bad = 0;
            self.good = self.good.saturating_add(1);
        } else {
            self.good = 0;
            self.bad = self.bad.saturating_add(1);
        }
        match state {
            State::Probing if good => Verdict::Admit,
            State::Ejected if self.good >= settings.healthy_after => Verdict::Admit,
            State::Ready if self.bad >= settings.unhealthy_after => Verdict::Eject,
            State::Probing | State::Ready | State::Ejected | State::Draining | State::Gone => Verdict::Keep,
        }
    }
}

/// The gap from one probe to the next.
///
/// A clone is born within 100 ms, so a new backend is asked every 5 ms at first; one that
/// does not come is asked less and less often. `since` is the time in this state.
pub fn probe_gap(state: State, since: Duration, settings: &HealthSettings) -> Duration {
    const FIRST: Duration = Duration::from_millis(5);
    const EAGER: Duration = Duration::from_secs(1);
    match state {
        State::Probing if since < EAGER => FIRST.min(settings.interval),
        State::Probing | State::Ejected => (since / 10).clamp(FIRST, settings.interval.max(FIRST)),
        State::Ready | State::Draining | State::Gone => settings.interval,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> HealthSettings {
        HealthSettings { healthy_after: 2, unhealthy_after: 3, ..HealthSettings::default() }
    }

    #[test]
    fn a_new_backend_is_admitted_by_its_first_answer() {
        let mut streak = Streak::default();
        assert_eq!(streak.note(false, State::Probing, &settings()), Verdict::Keep);
        assert_eq!(streak.note(true, State::Probing, &settings()), Verdict::Admit);
    }

    #[test]
    fn only_a_row_of_bad_probes_ejects() {
        let mut streak = Streak::default();
        for good in [false, false, true, false, false] {
            assert_eq!(streak.note(good, State::Ready, &settings()), Verdict::Keep);
        }
        assert_eq!(streak.note(false, State::Ready, &settings()), Verdict::Eject);
    }

    #[test]
    fn only_a_row_of_good_probes_readmits() {
        let mut streak = Streak::default();
        assert_eq!(streak.note(true, State::Ejected, &settings()), Verdict::Keep);
        assert_eq!(streak.note(false, State::Ejected, &settings()), Verdict::Keep);
        assert_eq!(streak.note(true, State::Ejected, &settings()), Verdict::Keep);
        assert_eq!(streak.note(true, State::Ejected, &settings()), Verdict::Admit);
    }

    #[test]
    fn a_draining_backend_stays_draining() {
        let mut streak = Streak::default();
        for good in [true, true, true, false, false, false, false] {
            assert_eq!(streak.note(good, State::Draining, &settings()), Verdict::Keep);
        }
    }

    #[test]
    fn a_new_backend_is_asked_every_five_milliseconds() {
        let ms = Duration::from_millis;
        assert_eq!(probe_gap(State::Probing, ms(0), &settings()), ms(5));
        assert_eq!(probe_gap(State::Probing, ms(900), &settings()), ms(5));
        assert_eq!(probe_gap(State::Probing, ms(2_000), &settings()), ms(200));
        assert_eq!(probe_gap(State::Probing, ms(60_000), &settings()), ms(1_000));
    }

    #[test]
    fn an_ejected_backend_is_asked_soon_and_then_at_the_interval() {
        let ms = Duration::from_millis;
        assert_eq!(probe_gap(State::Ejected, ms(1), &settings()), ms(5));
        assert_eq!(probe_gap(State::Ejected, ms(500), &settings()), ms(50));
        assert_eq!(probe_gap(State::Ejected, ms(90_000), &settings()), ms(1_000));
        assert_eq!(probe_gap(State::Ready, ms(1), &settings()), ms(1_000));
    }
}
