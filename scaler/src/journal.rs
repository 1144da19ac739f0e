//! What a scaler was told and what it decided, as lines that can be played again.
//!
//! A line is one JSON object: the time, and one thing that happened. Playing the lines
//! to a new scaler with the same policy gives the same decisions; with another policy
//! it tells what would have been different.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::decision::Decision;
use crate::forecast::Record;
use crate::name::Name;
use crate::policy::{Mode, Policy};
use crate::pool::PoolView;
use crate::sample::Sample;
use crate::scaler::Scaler;
use crate::yaml::Complaints;

/// Something that happened to a scaler.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// When, seconds since the start of whoever runs the scaler.
    pub at_seconds: f64,
    /// What.
    #[serde(flatten)]
    pub what: Happened,
}

/// What can happen to a scaler.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum Happened {
    /// A new scaler began, which knows nothing but this; times count anew.
    Started {
        /// Seconds since 1970.
        unix_seconds: f64,
        /// What it remembered of former days.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        record: Option<Record>,
    },
    /// Entries are missing here: they could not be written, or the file was begun anew.
    Cut {
        /// How many were lost; 0 if they stand in the older file.
        lost: u64,
    },
    /// A sample came.
    Sample {
        /// The sample.
        sample: Sample,
    },
    /// A value of a signal of the policy came.
    Signal {
        /// The signal.
        signal: String,
        /// The value.
        value: f64,
    },
    /// The time of day was told.
    Clock {
        /// Seconds since 1970.
        unix_seconds: f64,
    },
    /// Clones were asked for.
    Granted {
        /// How many.
        asked: u32,
        /// How many came of it.
        granted: u32,
    },
    /// Clones answered for the first time, or never will.
    Births {
        /// How many answered.
        born: u32,
        /// How many never will.
        failed: u32,
    },
    /// Clones were timed.
    CloneTime {
        /// From asking for one to its first answer, seconds.
        seconds: f64,
    },
    /// A size was asked for by hand.
    HoldAt {
        /// Backends.
        backends: u32,
        /// For how long; `None` for until further notice.
        for_seconds: Option<f64>,
    },
    /// The policy decides again.
    Resume,
    /// It acts, recommends, or pauses from now on.
    Mode {
        /// Which.
        mode: Mode,
    },
    /// It decided.
    Decision {
        /// The pool it decided for.
        pool: PoolView,
        /// `grow`, `shrink` or `hold`.
        action: String,
        /// Clones that come or go.
        by: u32,
        /// Backends wanted.
        to: u32,
        /// Why.
        reason: String,
        /// What would change it; only for decisions that say something new.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        would_change: Vec<String>,
    },
    /// A clone came to another state of its life.
    Clone {
        /// Its name.
        id: String,
        /// The state.
        state: String,
        /// More about it, e.g. why it failed.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        detail: Option<String>,
    },
}

impl Entry {
    /// A decision as an entry.
    pub fn decision(decision: &Decision, pool: &PoolView, would_change: Vec<String>) -> Self {
        let what = Happened::Decision {
            pool: *pool,
            action: decision.action.name().to_owned(),
            by: decision.action.by(),
            to: decision.to,
            reason: decision.reason.to_string(),
            would_change,
        };
        Self { at_seconds: decision.at.as_secs_f64(), what }
    }
}

/// A decision that came out differently.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Difference {
    /// Line of the journal, from 1.
    pub line: usize,
    /// When, seconds.
    pub at_seconds: f64,
    /// What was decided then.
    pub then: String,
    /// What is decided now.
    pub now: String,
}

/// What playing a journal again came to.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Replayed {
    /// Decisions made again.
    pub decisions: usize,
    /// Those of them that were not compared: so soon after a cut nobody knows what the
    /// scaler had seen.
    pub not_compared: usize,
    /// Those that differ.
    pub differences: Vec<Difference>,
}

/// Plays a journal to a new scaler.
///
/// # Errors
/// All complaints about the policy.
pub fn replay(policy: &Policy, entries: &[Entry]) -> Result<Replayed, Complaints> {
    let mut scaler = Scaler::new(policy.clone())?;
    let mut replayed = Replayed::default();
    let mut unsure_until = Duration::ZERO;
    for (index, entry) in entries.iter().enumerate() {
        let at = seconds(entry.at_seconds);
        match &entry.what {
            Happened::Started { record, .. } => {
                scaler = Scaler::new(policy.clone())?;
                // One that does not fit was left out then, too.
                if let Some(record) = record {
                    scaler.remember(record.clone());
                }
                unsure_until = Duration::ZERO;
            }
            Happened::Cut { .. } => {
                scaler = Scaler::new(policy.clone())?;
                unsure_until = at.saturating_add(longest_memory(policy));
            }
            _ => {}
        }
        let Some(decision) = play(&mut scaler, &entry.what, at) else { continue };
        let Happened::Decision { action, by, to, reason, .. } = &entry.what else { continue };
        replayed.decisions += 1;
        if at < unsure_until {
            replayed.not_compared += 1;
            continue;
        }
        let same = decision.action.name() == action && decision.action.by() == *by && decision.to == *to;
        if !same {
            let then = format!("{action} by {by} to {to}: {reason}");
            let now = decision.to_string();
            let at_seconds = entry.at_seconds;
            replayed.differences.push(Difference { line: index + 1, at_seconds, then, now });
        }
    }
    Ok(replayed)
}

/// Lets an entry happen to a scaler; returns what is decided, if that was the entry.
fn play(scaler: &mut Scaler, what: &Happened, at: Duration) -> Option<Decision> {
    match what {
        Happened::Sample { sample } => drop(scaler.observe(sample, at)),
        Happened::Births { born, failed } => scaler.births(*born, *failed, at),
        Happened::CloneTime { seconds: taken } => scaler.clones_take(seconds(*taken)),
        Happened::Signal { signal, value } => {
            // A name or value that cannot be was left out then, too.
            let _ = Name::new(signal).map(|name| scaler.observe_own(name, *value, at));
        }
        Happened::Clock { unix_seconds } => scaler.set_wall_clock(seconds(*unix_seconds), at),
        Happened::Granted { asked, granted } => scaler.granted(*asked, *granted, at),
        Happened::HoldAt { backends, for_seconds } => {
            scaler.hold_at(*backends, for_seconds.map(seconds), at);
        }
        Happened::Resume => scaler.resume(),
        Happened::Mode { mode } => scaler.set_mode(*mode),
        Happened::Decision { pool, .. } => return Some(scaler.decide(pool, at)),
        Happened::Started { .. } | Happened::Cut { .. } | Happened::Clone { .. } => {}
    }
    None
}

/// After this time nothing of what a scaler saw before matters any more.
fn longest_memory(policy: &Policy) -> Duration {
    let (up, down) = (&policy.scale_up, &policy.scale_down);
    let rates = up.rate.iter().chain(&down.rate).map(|rate| rate.per);
    let others =
        [down.stabilisation, up.stabilisation, up.cool_down, down.cool_down, policy.retry_refused_after];
    // Twice the stable window: a panic may have begun at the end of one.
    let longest = rates.chain(others).max().unwrap_or_default();
    longest.saturating_add(policy.stable_window.saturating_mul(2))
}

/// Seconds of a journal; what is no time counts as the beginning.
fn seconds(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decision::Action;

    /// A tier under a leap of load, as lines.
    fn journal(policy: &Policy) -> Vec<String> {
        let mut scaler = Scaler::new(policy.clone()).expect("valid");
        let mut pool = PoolView { ready: 1, ..PoolView::default() };
        let mut entries = vec![];
        for tick in 0..400_u32 {
            let at = Duration::from_millis(250) * tick;
            let at_seconds = at.as_secs_f64();
            pool.ready += std::mem::take(&mut pool.starting);
            let load = if (40..160).contains(&tick) { 26.0 } else { 2.0 };
            let sample = Sample { in_flight: Some(load), ..Sample::default() };
            scaler.observe(&sample, at);
            entries.push(Entry { at_seconds, what: Happened::Sample { sample } });
            if tick == 200 {
                scaler.hold_at(3, Some(Duration::from_secs(5)), at);
                let what = Happened::HoldAt { backends: 3, for_seconds: Some(5.0) };
                entries.push(Entry { at_seconds, what });
            }
            let decision = scaler.decide(&pool, at);
            entries.push(Entry::decision(&decision, &pool, vec![]));
            match decision.action {
                Action::Grow { by } => pool.starting += by,
                Action::Shrink { by } => pool.ready -= by,
                Action::Hold => {}
            }
        }
        entries.iter().map(|entry| serde_json::to_string(entry).expect("serializes")).collect()
    }

    fn read(lines: &[String]) -> Vec<Entry> {
        lines.iter().map(|line| serde_json::from_str(line).expect(line)).collect()
    }

    #[test]
    fn the_same_policy_decides_the_same_again() {
        let policy = Policy::default();
        let replayed = replay(&policy, &read(&journal(&policy))).expect("valid");
        assert_eq!((replayed.decisions, replayed.differences), (400, vec![]));
    }

    #[test]
    fn a_journal_of_two_runs_is_played_to_two_scalers() {
        let policy = Policy::default();
        let started = r#"{"at_seconds":0.1,"event":"started","unix_seconds":9.0}"#.to_owned();
        let once = journal(&policy);
        let twice = [&once[..], &[started], &once[..]].concat();
        let replayed = replay(&policy, &read(&twice)).expect("valid");
        assert_eq!((replayed.decisions, replayed.differences), (800, vec![]));
        let unmarked = [&once[..], &once[..]].concat();
        assert!(!replay(&policy, &read(&unmarked)).expect("valid").differences.is_empty());
    }

    #[test]
    fn after_a_cut_nothing_is_compared_until_all_that_is_missing_is_forgotten() {
        let policy = Policy::default();
        let once = journal(&policy);
        let middle = once.len() / 2;
        let cut = r#"{"at_seconds":50.0,"event":"cut","lost":3}"#.to_owned();
        let lines = [&once[..60], &[cut], &once[middle..]].concat();
        let replayed = replay(&policy, &read(&lines)).expect("valid");
        assert_eq!(replayed.differences, vec![]);
        assert!(replayed.not_compared > 100 && replayed.not_compared < replayed.decisions, "{replayed:?}");
    }

    #[test]
    fn another_policy_is_told_by_line_and_time() {
        let lines = journal(&Policy::default());
        let narrow = Policy { max: 4, ..Policy::default() };
        let replayed = replay(&narrow, &read(&lines)).expect("valid");
        let first = &replayed.differences[0];
        assert!(first.then.starts_with("grow by 6 to 7: panic"), "{first:?}");
        assert!(first.now.starts_with("grow from 1 to 4: panic"), "{first:?}");
        assert!(lines[first.line - 1].contains("\"event\":\"decision\""));
    }

    #[test]
    fn events_of_clones_and_absurd_times_change_nothing() {
        let entry = Entry {
            at_seconds: f64::NAN,
            what: Happened::Clone { id: "clone-1".into(), state: "failed".into(), detail: Some("x".into()) },
        };
        let odd = Entry { at_seconds: -3.0, what: Happened::Signal { signal: "No".into(), value: 1.0 } };
        let replayed = replay(&Policy::default(), &[entry, odd]).expect("valid");
        assert_eq!(replayed, Replayed::default());
    }
}
