//! Settings from the environment, checked all at once.

use std::path::PathBuf;
use std::time::Duration;

/// More places than this would mean more threads than a small guest has memory for.
const MOST_WORKERS: u64 = 1024;
const MOST_WAIT_MS: u64 = 60_000;
/// About 0.2 s of one emulated CPU: clearly cold, not yet annoying.
const DEFAULT_ROUNDS: u64 = 2_000_000;
const MOST_ROUNDS: u64 = 10_000_000_000;

/// Where to listen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Listen {
    /// A unix socket's path.
    Unix(PathBuf),
    /// `address:port`.
    Tcp(String),
}

/// How the application behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settings {
    /// `FLURRY_DEMO_LISTEN`: a path or address:port.
    pub(crate) listen: Listen,
    /// `FLURRY_DEMO_WORKERS`: items worked on at the same time.
    pub(crate) workers: usize,
    /// `FLURRY_DEMO_WAIT_MS`: how long each item request waits, as for a database.
    pub(crate) wait: Duration,
    /// `FLURRY_DEMO_ROUNDS`: hash rounds of an item's first computation.
    pub(crate) rounds: u64,
    /// `FLURRY_DEMO_FILE`: the file of the disk tests.
    pub(crate) file: PathBuf,
}

impl Settings {
    /// Reads the environment through `get`.
    pub(crate) fn read(get: impl Fn(&str) -> Option<String>) -> Result<Self, Vec<String>> {
        let mut complaints = Vec::new();
        let mut number = |name: &str, default: u64, least: u64, most: u64| {
            let Some(text) = get(name) else { return default };
            match text.parse() {
                Ok(value) if (least..=most).contains(&value) => value,
                _ => {
                    complaints.push(format!("{name}: must be {least}..={most}, got {text:?}"));
                    default
                }
            }
        };
        let workers = number("FLURRY_DEMO_WORKERS", 4, 1, MOST_WORKERS) as usize;
        let wait = Duration::from_millis(number("FLURRY_DEMO_WAIT_MS", 40, 0, MOST_WAIT_MS));
        let rounds = number("FLURRY_DEMO_ROUNDS", DEFAULT_ROUNDS, 1, MOST_ROUNDS);
        let listen = get("FLURRY_DEMO_LISTEN").unwrap_or_else(|| "127.0.0.1:8081".into());
        let listen = if listen.starts_with('/') { Listen::Unix(listen.into()) } else { Listen::Tcp(listen) };
        let file = get("FLURRY_DEMO_FILE").map_or_else(|| "/var/tmp/flurry-demo".into(), PathBuf::from);
        if complaints.is_empty() { Ok(Self { listen, workers, wait, rounds, file }) } else { Err(complaints) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_any_environment_one_guest_serves_a_hundred_items_a_second() {
        let settings = Settings::read(|_| None).expect("defaults");
        assert_eq!((settings.workers, settings.wait), (4, Duration::from_millis(40)));
        assert_eq!(settings.listen, Listen::Tcp("127.0.0.1:8081".into()));
    }

    #[test]
    fn all_wrong_settings_are_named_at_once() {
        let get = |name: &str| match name {
            "FLURRY_DEMO_WORKERS" => Some("0".into()),
            "FLURRY_DEMO_WAIT_MS" => Some("soon".into()),
            "FLURRY_DEMO_LISTEN" => Some("/run/demo.sock".into()),
            _ => None,
        };
        let complaints = Settings::read(get).expect_err("two are wrong");
        assert_eq!(
            complaints,
            [
                "FLURRY_DEMO_WORKERS: must be 1..=1024, got \"0\"",
                "FLURRY_DEMO_WAIT_MS: must be 0..=60000, got \"soon\""
            ]
        );
    }
}
