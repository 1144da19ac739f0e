//! `flurry policy`: what a user expects of a policy, run as a check, and journals played
//! again. No VM, no clock: the decisions are those of `flurry up`.

mod expectations;
mod run;

use std::path::{Path, PathBuf};

use scaler::Policy;
use scaler::journal::{Entry, Happened, Replayed, replay};
use scaler::yaml::Complaints;

use crate::config::{Config, ConfigError};

pub use expectations::{Case, Expectation, Expectations, Phase};
pub use run::{Missed, Outcome, run};

/// The largest journal that is read, bytes: twice what one grows to.
const MAX_JOURNAL_BYTES: u64 = 128 << 20;

/// Why nothing was checked.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The configuration has no policy.
    #[error("{}: vm: is missing, and without VMs nothing is scaled (give a section `vm`)", .0.display())]
    NoPolicy(PathBuf),
    /// A file cannot be read.
    #[error("{}: cannot be read: {why}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// A file is wrong; all that is.
    #[error("{}", located(path, complaints))]
    Wrong {
        /// The file.
        path: PathBuf,
        /// All that is wrong with it.
        complaints: Vec<String>,
    },
}

fn located(path: &Path, complaints: &[String]) -> String {
    let line = |complaint: &String| format!("{}: {complaint}", path.display());
    complaints.iter().map(line).collect::<Vec<_>>().join("\n")
}

fn all(complaints: &Complaints) -> Vec<String> {
    complaints.as_slice().iter().map(ToString::to_string).collect()
}

/// Runs the expectations of a file.
///
/// # Errors
/// See [`PolicyError`]. Expectations that are missed are no error: see [`Outcome`].
pub fn test(path: &Path) -> Result<Vec<Outcome>, PolicyError> {
    let wrong = |complaints| PolicyError::Wrong { path: path.to_owned(), complaints };
    let expectations = Expectations::parse(&read(path, 1 << 20)?).map_err(|found| wrong(all(&found)))?;
    let policy = policy_of(&path.parent().unwrap_or(Path::new("")).join(&expectations.config))?;
    let unknown = expectations.unknown_signals(&policy);
    if !unknown.is_empty() {
        return Err(wrong(unknown));
    }
    let outcomes: Result<Vec<_>, Complaints> =
        expectations.cases.iter().map(|case| run(&policy, case)).collect();
    outcomes.map_err(|found| wrong(all(&found)))
}

/// Plays a journal to the policy of a configuration.
///
/// # Errors
/// See [`PolicyError`]; every line of the journal that is none.
pub fn play(config: &Path, journal: &Path) -> Result<Replayed, PolicyError> {
    let wrong = |complaints| PolicyError::Wrong { path: journal.to_owned(), complaints };
    let policy = policy_of(config)?;
    let entries = entries(&read(journal, MAX_JOURNAL_BYTES)?).map_err(wrong)?;
    replay(&policy, &entries).map_err(|found| wrong(all(&found)))
}

/// The entries of a journal. A line may be cut off by a crash: the last one, or one before
/// what a new start or a gap begins with.
fn entries(text: &str) -> Result<Vec<Entry>, Vec<String>> {
    const MOST_TOLD: usize = 20;
    let (mut entries, mut wrong) = (Vec::new(), Vec::new());
    for (index, line) in text.lines().enumerate() {
        match serde_json::from_str(line) {
            Ok(entry) => entries.push(entry),
            Err(_) if index > 0 && begins_anew(text.lines().nth(index + 1), text) => {}
            Err(error) => wrong.push(format!("line {}: is no event: {error}", index + 1)),
        }
    }
    wrong.truncate(MOST_TOLD);
    if wrong.is_empty() { Ok(entries) } else { Err(wrong) }
}

/// Whether the line after one that is no event explains it.
fn begins_anew(next: Option<&str>, text: &str) -> bool {
    let Some(next) = next else { return !text.ends_with('\n') };
    let entry = serde_json::from_str::<Entry>(next);
    entry.is_ok_and(|entry| matches!(entry.what, Happened::Started { .. } | Happened::Cut { .. }))
}

fn policy_of(config: &Path) -> Result<Policy, PolicyError> {
    let read = Config::load_elsewhere(config)?;
    Ok(read.vm.ok_or_else(|| PolicyError::NoPolicy(config.to_owned()))?.scaling)
}

fn read(path: &Path, most: u64) -> Result<String, PolicyError> {
    let unreadable = |why: String| PolicyError::Unreadable { path: path.to_owned(), why };
    let size = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if size > most {
        return Err(unreadable(format!("its {size} bytes are more than {most}")));
    }
    std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LINE: &str = "{\"at_seconds\":1.0,\"event\":\"resume\"}\n";
    const STARTED: &str = "{\"at_seconds\":0.1,\"event\":\"started\",\"unix_seconds\":5.0}\n";

    #[test]
    fn a_line_that_a_crash_cut_off_is_left_out_wherever_it_stands() {
        for text in [format!("{LINE}{{\"at_sec"), format!("{LINE}{{\"at_sec\n{STARTED}")] {
            assert!(entries(&text).is_ok(), "{text}");
        }
        for text in [format!("{LINE}{{\"at_sec\n{LINE}"), format!("{LINE}nonsense\n")] {
            assert!(entries(&text).is_err_and(|wrong| wrong[0].starts_with("line 2: is no event")), "{text}");
        }
    }
}
