//! A mapping of a document, read key by key.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_yaml::Mapping;

use super::complaint::{Complaint, Sink};
use super::entry::{Entry, describe, join};
use super::field::{Field, Found};
use super::nearest::nearest;

/// A mapping of a document. It remembers the keys it was asked for, so that the
/// others can be refused.
#[derive(Debug)]
pub struct Section<'a> {
    path: String,
    found: Found<&'a Mapping>,
    asked: Vec<String>,
    sink: &'a Sink,
}

impl<'a> Section<'a> {
    pub(super) fn new(path: String, found: Found<&'a Mapping>, sink: &'a Sink) -> Self {
        Self { path, found, asked: Vec::new(), sink }
    }

    /// Where this is, e.g. `scaling`; empty for the whole document.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Asks for a key, whatever it holds.
    pub fn entry(&mut self, key: &str) -> Entry<'a> {
        self.asked.push(key.to_owned());
        let found = match self.found {
            Found::Value(mapping) => mapping.get(key).map_or(Found::Absent, Found::Value),
            Found::Absent => Found::Absent,
            // Its keys are unknown rather than missing: no complaint for each of them.
            Found::Wrong => Found::Wrong,
        };
        Entry::new(join(&self.path, key), found, self.sink)
    }

    /// Whether a key is given. It counts as asked for.
    pub fn has(&mut self, key: &str) -> bool {
        self.entry(key).is_present()
    }

    /// Notes a complaint that the limits of one field cannot express,
    /// e.g. `min` above `max`. An empty key is the section itself.
    pub fn complain(&self, key: &str, problem: impl Into<String>, remedy: impl Into<String>) {
        let key = if key.is_empty() { self.path.clone() } else { join(&self.path, key) };
        self.sink.note(Complaint::new(key, problem, remedy));
    }

    /// Reads a section below this one, see [`Entry::section`].
    pub fn section<R>(&mut self, key: &str, reader: impl FnOnce(&mut Section<'a>) -> R) -> R {
        self.entry(key).section(reader)
    }

    /// Reads a section below this one if it is given, even if it is empty.
    pub fn optional_section<R>(
        &mut self,
        key: &str,
        reader: impl FnOnce(&mut Section<'a>) -> R,
    ) -> Option<R> {
        let entry = self.entry(key);
        entry.is_present().then(|| entry.section(reader))
    }

    /// See [`Entry::u32`].
    pub fn u32(&mut self, key: &str, remedy: &str) -> Field<'a, u32> {
        self.entry(key).u32(remedy)
    }

    /// See [`Entry::u64`].
    pub fn u64(&mut self, key: &str, remedy: &str) -> Field<'a, u64> {
        self.entry(key).u64(remedy)
    }

    /// See [`Entry::f64`].
    pub fn f64(&mut self, key: &str, remedy: &str) -> Field<'a, f64> {
        self.entry(key).f64(remedy)
    }

    /// See [`Entry::bool`].
    pub fn bool(&mut self, key: &str, remedy: &str) -> Field<'a, bool> {
        self.entry(key).bool(remedy)
    }

    /// See [`Entry::string`].
    pub fn string(&mut self, key: &str, remedy: &str) -> Field<'a, String> {
        self.entry(key).string(remedy)
    }

    /// See [`Entry::path_buf`].
    pub fn path_buf(&mut self, key: &str, remedy: &str) -> Field<'a, PathBuf> {
        self.entry(key).path_buf(remedy)
    }

    /// See [`Entry::duration`].
    pub fn duration(&mut self, key: &str, remedy: &str) -> Field<'a, Duration> {
        self.entry(key).duration(remedy)
    }

    /// See [`Entry::bytes`].
    pub fn bytes(&mut self, key: &str, remedy: &str) -> Field<'a, u64> {
        self.entry(key).bytes(remedy)
    }

    /// See [`Entry::share`].
    pub fn share(&mut self, key: &str, remedy: &str) -> Field<'a, f64> {
        self.entry(key).share(remedy)
    }

    /// See [`Entry::socket_addr`].
    pub fn socket_addr(&mut self, key: &str, remedy: &str) -> Field<'a, SocketAddr> {
        self.entry(key).socket_addr(remedy)
    }

    /// See [`Entry::choice`].
    pub fn choice<T: Clone>(&mut self, key: &str, words: &[(&str, T)], remedy: &str) -> Field<'a, T> {
        self.entry(key).choice(words, remedy)
    }

    /// See [`Entry::list`].
    pub fn list(&mut self, key: &str, remedy: &str) -> Field<'a, Vec<Entry<'a>>> {
        self.entry(key).list(remedy)
    }

    /// See [`Entry::pairs`].
    pub fn pairs(&mut self, key: &str, remedy: &str) -> Field<'a, Vec<(String, Entry<'a>)>> {
        self.entry(key).pairs(remedy)
    }

    /// Complains about every key that was not asked for.
    pub(super) fn finish(self) {
        let Found::Value(mapping) = self.found else { return };
        for key in mapping.keys() {
            match key.as_str() {
                Some(key) if self.asked.iter().any(|asked| asked == key) => {}
                Some(key) => self.complain(key, "is not a known key", self.suggestion(key)),
                None => {
                    self.complain(&describe(key), "is not a known key", "keys are text");
                }
            }
        }
    }

    fn suggestion(&self, key: &str) -> String {
        match nearest(key, &self.asked) {
            Some(near) => format!("did you mean `{near}`?"),
            None => {
                let mut known: Vec<&str> = self.asked.iter().map(String::as_str).collect();
                known.sort_unstable();
                known.dedup();
                format!("known keys here: {}", known.join(", "))
            }
        }
    }
}
