//! A file of expectations: load over time, and how many backends there should be when.
//!
//! ```yaml
//! config: flurry.yaml
//! tests:
//!   - name: a leap is met within two seconds
//!     load:
//!       - {for: 30s, signals: {concurrency: 2}}
//!       - {for: 10s, signals: {concurrency: 28}}
//!     expect:
//!       - {at: 32s, at_least: 7}
//! ```

use std::path::PathBuf;
use std::time::Duration;

use scaler::yaml::{self, Complaints, Entry, Section};
use scaler::{Policy, Signal};

/// Longest test; it also bounds the time that a check takes.
const LONGEST: Duration = Duration::from_secs(7 * 24 * 3600);

/// A file of expectations.
#[derive(Debug, Clone, PartialEq)]
pub struct Expectations {
    /// The configuration with the policy, relative to the file.
    pub config: PathBuf,
    /// The tests.
    pub cases: Vec<Case>,
}

/// One test.
#[derive(Debug, Clone, PartialEq)]
pub struct Case {
    /// What is expected, in a few words.
    pub name: String,
    /// Backends ready at the start, the parent included.
    pub ready: u32,
    /// From asking for a clone until it is ready.
    pub clone_time: Duration,
    /// Time since 1970 at the start, for schedules.
    pub starts: Option<Duration>,
    /// The load.
    pub load: Vec<Phase>,
    /// What should be when.
    pub expect: Vec<Expectation>,
    /// Changes of direction within five minutes that are put up with; `None` for any number.
    pub reversals: Option<u32>,
}

/// Load for some time.
#[derive(Debug, Clone, PartialEq)]
pub struct Phase {
    /// For how long.
    pub lasts: Duration,
    /// What each signal says; those left out are missing.
    pub signals: Vec<(Signal, f64)>,
}

/// What should be at a moment.
#[derive(Debug, Clone, PartialEq)]
pub struct Expectation {
    /// When, since the start.
    pub at: Duration,
    /// Backends ready or on their way, at least.
    pub at_least: Option<u32>,
    /// At most.
    pub at_most: Option<u32>,
    /// Words that the newest reason holds.
    pub because: Option<String>,
}

impl Case {
    /// How long it takes.
    pub fn length(&self) -> Duration {
        self.load.iter().map(|phase| phase.lasts).sum()
    }
}

impl Expectations {
    /// Reads a file's text.
    ///
    /// # Errors
    /// All complaints at once, each with key and remedy.
    pub fn parse(text: &str) -> Result<Self, Complaints> {
        yaml::read(text, |root| {
            let config = root.path_buf("config", "give the configuration, e.g. flurry.yaml").required();
            let entries = root.list("tests", "give a list of tests").not_empty().required();
            let cases: Vec<Option<Case>> =
                entries.into_iter().flatten().map(|entry| entry.section(case)).collect();
            let cases: Option<Vec<Case>> = cases.into_iter().collect();
            Some(Self { config: config?, cases: cases? })
        })
    }

    /// Complaints about signals that the policy does not know.
    pub fn unknown_signals(&self, policy: &Policy) -> Vec<String> {
        let known = |signal: &Signal| match signal {
            Signal::Custom(name) => policy.signals.iter().any(|own| own.name == *name),
            _ => true,
        };
        let mut unknown = Vec::new();
        for (test, case) in self.cases.iter().enumerate() {
            for (index, phase) in case.load.iter().enumerate() {
                for (signal, _) in phase.signals.iter().filter(|(signal, _)| !known(signal)) {
                    let name = signal.name();
                    unknown.push(format!(
                        "tests[{test}].load[{index}].signals.{name}: is no signal of the policy"
                    ));
                }
            }
        }
        unknown
    }
}

fn case(s: &mut Section<'_>) -> Option<Case> {
    let name = s.string("name", "say what is expected, in a few words").not_empty().required();
    let ready = s.u32("ready", "give the backends at the start, e.g. 1").at_least(1).or(1);
    let clone_time = s
        .duration("clone_time", "give the time until a clone is ready, e.g. 250ms")
        .at_most(Duration::from_secs(3600))
        .or(Policy::ASSUMED_CLONE_TIME);
    let starts = s.string("starts", "give a time, e.g. 2026-01-13T07:00:00Z").try_map(|text| unix(&text));
    let starts = starts.optional();
    let load = s.list("load", "give a list of {for, signals}").not_empty().required();
    let load: Vec<Option<Phase>> = load.into_iter().flatten().map(|entry| entry.section(phase)).collect();
    let expect = s.list("expect", "give a list of {at, at_least, at_most, because}").optional();
    let expect: Vec<Option<Expectation>> =
        expect.into_iter().flatten().map(|entry| entry.section(expectation)).collect();
    let reversals = s.u32("reversals_at_most", "give a number, e.g. 0").optional();
    let load: Option<Vec<Phase>> = load.into_iter().collect();
    let expect: Option<Vec<Expectation>> = expect.into_iter().collect();
    let case = Case { name: name?, ready, clone_time, starts, load: load?, expect: expect?, reversals };
    if case.expect.is_empty() && reversals.is_none() {
        s.complain("expect", "is missing", "give a list of {at, at_least, at_most, because}");
    }
    let length = case.length();
    if length > LONGEST {
        s.complain("load", "is longer than a week", "give a shorter load");
    }
    for (index, late) in case.expect.iter().enumerate().filter(|(_, expected)| expected.at > length) {
        let problem = format!("is after the end, which is at {}", yaml::show_duration(length));
        s.complain(&format!("expect[{index}].at"), problem, format!("not {}", yaml::show_duration(late.at)));
    }
    Some(case)
}

fn phase(s: &mut Section<'_>) -> Option<Phase> {
    let lasts = s.duration("for", "give how long it lasts, e.g. 30s").above(Duration::ZERO).required();
    let pairs = s.pairs("signals", "give signals with their values, e.g. {concurrency: 4}").optional();
    let signals = pairs.into_iter().flatten().filter_map(|(name, entry)| signal(&name, entry)).collect();
    Some(Phase { lasts: lasts?, signals })
}

fn signal(name: &str, entry: Entry<'_>) -> Option<(Signal, f64)> {
    let value = entry.f64("give a number; seconds for times, 0 to 1 for shares").at_least(0.0);
    let named = value.try_map(|value| Signal::of_name(name).map(|signal| (signal, value)));
    named.optional()
}

fn expectation(s: &mut Section<'_>) -> Option<Expectation> {
    let at = s.duration("at", "give the time since the start, e.g. 32s").required();
    let at_least = s.u32("at_least", "give a number of backends, e.g. 7").optional();
    let at_most = s.u32("at_most", "give a number of backends, e.g. 8").optional();
    let because = s.string("because", "give words of the reason, e.g. max is 8").not_empty().optional();
    if at_least.is_none() && at_most.is_none() && because.is_none() {
        s.complain("", "expects nothing", "give at_least, at_most or because");
    }
    Some(Expectation { at: at?, at_least, at_most, because })
}

/// Seconds since 1970 of a time such as `2026-01-13T07:00:00Z`.
fn unix(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_rfc3339(text).map_err(|_| format!("must be a time in UTC, got `{text}`"))?;
    time.duration_since(std::time::UNIX_EPOCH).map_err(|_| format!("must be after 1970, got `{text}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_wrong_with_a_file_is_said_at_once() {
        let text = "
tests:
  - load: [{signals: {concurrency: -1}}]
    expect: [{at: 5s}]
  - {name: b, starts: noon, load: [{for: 5s}], expect: [{at: 9s, at_least: 1}], what: 1}
  - {name: c, load: [{for: 8d}]}
";
        let found = Expectations::parse(text).unwrap_err().to_string();
        for complaint in [
            "config: is missing",
            "tests[0].name: is missing",
            "tests[0].load[0].for: is missing",
            "tests[0].load[0].signals.concurrency: must be at least 0, got -1",
            "tests[0].expect[0]: expects nothing",
            "tests[1].starts: must be a time in UTC, got `noon`",
            "tests[1].expect[0].at: is after the end, which is at 5s",
            "tests[1].what: is not a known key",
            "tests[2].expect: is missing",
            "tests[2].load: is longer than a week",
        ] {
            assert!(found.contains(complaint), "{complaint} in\n{found}");
        }
    }

    #[test]
    fn a_signal_that_the_policy_does_not_know_is_named() {
        let text =
            "{config: a, tests: [{name: x, load: [{for: 1s, signals: {jobs: 3}}], reversals_at_most: 0}]}";
        let unknown = Expectations::parse(text).unwrap().unknown_signals(&Policy::default());
        assert_eq!(unknown, ["tests[0].load[0].signals.jobs: is no signal of the policy"]);
    }
}
