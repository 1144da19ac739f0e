//! Whether the pages that clones wait for still come: told by a memory process, judged by the engine.
//!
//! ```text
//!   a page is waited for -> it comes                                   -> all is well
//!                        -> it can be neither read nor stored          -> given up after the limit
//!                        -> nothing at all is heard of its source      -> given up after the limit
//!                        -> its source is heard, this page never comes -> slow; given up after SLOW limits
//! ```
//!
//! What nobody waits for is not missed: a clone that has all that it touches lives without its source.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::PageIndex;

/// A source that is heard may take so many times longer than one that is silent.
pub const SLOW: u32 = 4;
/// A fault that was not tried again for so long waits no more: its guest is gone.
const FORGOTTEN: Duration = Duration::from_secs(3);

/// How the supply of a checkpoint with pages stands.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Supply {
    /// Pages of which nothing is known.
    pub missing: u32,
    /// For how long the oldest page that a guest waits for has been waited for, milliseconds.
    pub waiting_ms: u64,
    /// For how long nothing has been heard of another host that has them, milliseconds; `None` if they are
    /// on this one.
    pub silent_ms: Option<u64>,
    /// Why a page could be neither read nor stored when that was tried last.
    pub failure: Option<String>,
}

/// Why pages are given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shortage {
    /// They cannot be read or stored.
    Failing(String),
    /// Their host is not heard any more.
    Silent(Duration),
    /// Their host is heard, but one of them does not come.
    Slow(Duration),
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Failing(why) => f.write_str(why),
            Self::Silent(span) => {
                write!(f, "nothing was heard of their host for {:.1} s", span.as_secs_f64())
            }
            Self::Slow(span) => {
                write!(f, "one has not come for {:.1} s though their host is heard", span.as_secs_f64())
            }
        }
    }
}

impl Supply {
    /// Whether pages are to be given up, with this limit.
    #[must_use]
    pub fn shortage(&self, limit: Duration) -> Option<Shortage> {
        let waiting = Duration::from_millis(self.waiting_ms);
        let silent = self.silent_ms.map(Duration::from_millis);
        if self.missing == 0 || waiting < limit {
            return None;
        }
        match (&self.failure, silent) {
            (Some(why), _) => Some(Shortage::Failing(why.clone())),
            (None, Some(silent)) if silent >= limit => Some(Shortage::Silent(silent)),
            (None, _) => (waiting >= limit * SLOW).then_some(Shortage::Slow(waiting)),
        }
    }
}

/// Faults on pages that cannot be read or stored. They are tried again and again.
#[derive(Debug, Default)]
pub(super) struct Failing(BTreeMap<PageIndex, Failure>);

#[derive(Debug)]
struct Failure {
    first: Instant,
    last: Instant,
    why: String,
}

impl Failing {
    pub(super) fn failed(&mut self, now: Instant, page: PageIndex, error: &io::Error) {
        let why = error.to_string();
        let failure =
            self.0.entry(page).or_insert_with(|| Failure { first: now, last: now, why: String::new() });
        (failure.last, failure.why) = (now, why);
    }

    pub(super) fn worked(&mut self, page: PageIndex) {
        self.0.remove(&page);
    }

    /// For how long the oldest has been failing, and why it did the last time.
    pub(super) fn oldest(&mut self, now: Instant) -> Option<(Duration, String)> {
        self.0.retain(|_, failure| now.saturating_duration_since(failure.last) < FORGOTTEN);
        let oldest = self.0.values().min_by_key(|failure| failure.first)?;
        Some((now.saturating_duration_since(oldest.first), oldest.why.clone()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: Duration = Duration::from_secs(5);

    fn supply(waiting_ms: u64, silent_ms: u64) -> Supply {
        Supply { missing: 7, waiting_ms, silent_ms: Some(silent_ms), failure: None }
    }

    #[test]
    fn a_silent_source_is_given_up_at_the_limit_and_a_slow_one_later() {
        assert_eq!(supply(4_999, 60_000).shortage(LIMIT), None);
        assert_eq!(supply(5_000, 5_000).shortage(LIMIT), Some(Shortage::Silent(LIMIT)));
        assert_eq!(supply(19_999, 50).shortage(LIMIT), None, "it is slow");
        assert_eq!(supply(20_000, 50).shortage(LIMIT), Some(Shortage::Slow(LIMIT * SLOW)));
    }

    #[test]
    fn a_silent_source_of_which_nothing_is_wanted_or_missing_is_no_shortage() {
        assert_eq!(supply(0, 3_600_000).shortage(LIMIT), None);
        let complete = Supply { missing: 0, ..supply(60_000, 60_000) };
        assert_eq!(complete.shortage(LIMIT), None);
    }

    #[test]
    fn what_cannot_be_stored_is_told_by_its_reason() {
        let full = Supply { failure: Some("no space left".into()), ..supply(6_000, 10) };
        assert_eq!(full.shortage(LIMIT).unwrap().to_string(), "no space left");
        let said = supply(6_000, 6_000).shortage(LIMIT).unwrap().to_string();
        assert_eq!(said, "nothing was heard of their host for 6.0 s");
    }

    #[test]
    fn a_failing_fault_counts_from_its_first_try_until_it_works_or_nobody_tries() {
        let (start, mut failing) = (Instant::now(), Failing::default());
        let at = |seconds| start + Duration::from_secs(seconds);
        let error = io::Error::other("no");
        for second in 0..6 {
            failing.failed(at(second), PageIndex(1), &error);
        }
        failing.failed(at(5), PageIndex(2), &error);
        assert_eq!(failing.oldest(at(6)), Some((Duration::from_secs(6), "no".into())));
        failing.worked(PageIndex(1));
        assert_eq!(failing.oldest(at(6)), Some((Duration::from_secs(1), "no".into())));
        assert_eq!(failing.oldest(at(8)), None, "its guest is gone");
    }
}
