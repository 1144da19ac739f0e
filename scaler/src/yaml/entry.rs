//! One place in a document, to be read as what it should be.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use serde_yaml::Value;

use super::complaint::{Complaint, Sink};
use super::field::{Field, Found};
use super::section::Section;
use super::units::{parse_bytes, parse_duration, parse_share};

/// One place in a document: the value of a key, or an item of a list.
#[derive(Debug)]
pub struct Entry<'a> {
    path: String,
    found: Found<&'a Value>,
    sink: &'a Sink,
}

/// Why a value cannot be read: it is of another kind, or has a problem of its own.
enum Wrong {
    Kind,
    Problem(String),
}

impl<'a> Entry<'a> {
    pub(super) fn root(value: &'a Value, sink: &'a Sink) -> Self {
        Self { path: String::new(), found: Found::Value(value), sink }
    }

    pub(super) fn new(path: String, found: Found<&'a Value>, sink: &'a Sink) -> Self {
        Self { path, found, sink }
    }

    /// Where this is, e.g. `backends[2].address`; empty for the whole document.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether anything was given here.
    pub fn is_present(&self) -> bool {
        !matches!(self.found, Found::Absent)
    }

    /// Whether a section was given here, rather than text, a number or a list.
    pub fn is_section(&self) -> bool {
        matches!(self.found, Found::Value(Value::Mapping(_)))
    }

    /// Whether text was given here.
    pub fn is_text(&self) -> bool {
        matches!(self.found, Found::Value(Value::String(_)))
    }

    /// Reads a whole number of 0 or more that fits 32 bits.
    pub fn u32(self, remedy: &str) -> Field<'a, u32> {
        self.u64(remedy).try_map(|number| {
            u32::try_from(number).map_err(|_| format!("must be at most {}, got {number}", u32::MAX))
        })
    }

    /// Reads a whole number of 0 or more.
    pub fn u64(self, remedy: &str) -> Field<'a, u64> {
        self.scalar("a whole number of 0 or more", remedy, |value| value.as_u64().ok_or(Wrong::Kind))
    }

    /// Reads a finite number.
    pub fn f64(self, remedy: &str) -> Field<'a, f64> {
        self.scalar("a number", remedy, |value| {
            value.as_f64().filter(|number| number.is_finite()).ok_or(Wrong::Kind)
        })
    }

    /// Reads `true` or `false`.
    pub fn bool(self, remedy: &str) -> Field<'a, bool> {
        self.scalar("true or false", remedy, |value| value.as_bool().ok_or(Wrong::Kind))
    }

    /// Reads text.
    pub fn string(self, remedy: &str) -> Field<'a, String> {
        self.scalar("text", remedy, |value| value.as_str().map(str::to_owned).ok_or(Wrong::Kind))
    }

    /// Reads the path of a file; that it exists is not checked. Empty text is refused.
    pub fn path_buf(self, remedy: &str) -> Field<'a, PathBuf> {
        self.string(remedy).not_empty().try_map(|text| Ok(PathBuf::from(text)))
    }

    /// Reads a duration with its unit: `500ms`, `10s`, `1m30s`.
    pub fn duration(self, remedy: &str) -> Field<'a, Duration> {
        self.scalar("a duration with a unit", remedy, |value| {
            parse_duration(value.as_str().ok_or(Wrong::Kind)?).map_err(Wrong::Problem)
        })
    }

    /// Reads a size in bytes: a whole number, or a number with a unit such as `64KiB`.
    pub fn bytes(self, remedy: &str) -> Field<'a, u64> {
        self.scalar("a size", remedy, |value| match value {
            Value::Number(number) => number.as_u64().ok_or(Wrong::Kind),
            Value::String(text) => parse_bytes(text).map_err(Wrong::Problem),
            _ => Err(Wrong::Kind),
        })
    }

    /// Reads a share: `25%`, or the number 0.25.
    pub fn share(self, remedy: &str) -> Field<'a, f64> {
        self.scalar("a share", remedy, |value| match value {
            Value::Number(number) => number.as_f64().filter(|share| share.is_finite()).ok_or(Wrong::Kind),
            Value::String(text) => parse_share(text).map_err(Wrong::Problem),
            _ => Err(Wrong::Kind),
        })
    }

    /// Reads an address with a port: `127.0.0.1:8080`, `[::1]:8080`. Names are not resolved.
    pub fn socket_addr(self, remedy: &str) -> Field<'a, SocketAddr> {
        self.string(remedy).try_map(|text| {
            text.parse().map_err(|_| format!("must be an IP address with a port, got `{text}`"))
        })
    }

    /// Reads one of the given words and returns what it stands for.
    pub fn choice<T: Clone>(self, words: &[(&str, T)], remedy: &str) -> Field<'a, T> {
        self.string(remedy).try_map(|given| {
            let chosen = words.iter().find(|(word, _)| *word == given).map(|(_, choice)| choice.clone());
            chosen.ok_or_else(|| {
                let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                format!("must be one of {}, got `{given}`", words.join(", "))
            })
        })
    }

    /// Reads a list; its items are entries `key[0]`, `key[1]`, ...
    pub fn list(self, remedy: &str) -> Field<'a, Vec<Entry<'a>>> {
        let (path, sink) = (self.path.clone(), self.sink);
        self.scalar("a list", remedy, |value| {
            let items = value.as_sequence().ok_or(Wrong::Kind)?;
            let entry = |(index, item)| Entry::new(format!("{path}[{index}]"), Found::Value(item), sink);
            Ok(items.iter().enumerate().map(entry).collect())
        })
    }

    /// Reads a mapping whose keys the user chooses, e.g. header names.
    pub fn pairs(self, remedy: &str) -> Field<'a, Vec<(String, Entry<'a>)>> {
        let (path, sink) = (self.path.clone(), self.sink);
        self.scalar("a mapping of keys to values", remedy, |value| {
            let mapping = value.as_mapping().ok_or(Wrong::Kind)?;
            let pair = |(key, value): (&'a Value, &'a Value)| {
                let key = key.as_str().ok_or_else(|| {
                    Wrong::Problem(format!("must have text for keys, got {}", describe(key)))
                })?;
                Ok((key.to_owned(), Entry::new(join(&path, key), Found::Value(value), sink)))
            };
            mapping.iter().map(pair).collect()
        })
    }

    /// Reads a section. The reader also runs when the section is absent, empty or wrong:
    /// it then finds no keys, and so gives the defaults.
    ///
    /// Afterwards the keys that the reader did not ask for are complained about.
    pub fn section<R>(self, reader: impl FnOnce(&mut Section<'a>) -> R) -> R {
        let Self { path, found, sink } = self;
        let found = match found {
            Found::Value(Value::Mapping(mapping)) => Found::Value(mapping),
            Found::Value(Value::Null) | Found::Absent => Found::Absent,
            Found::Value(other) => {
                let key = if path.is_empty() { "configuration" } else { &path };
                let problem = format!("must be a section of keys and values, got {}", describe(other));
                sink.note(Complaint::new(key, problem, "put `key: value` lines under it"));
                Found::Wrong
            }
            Found::Wrong => Found::Wrong,
        };
        let mut section = Section::new(path, found, sink);
        let read = reader(&mut section);
        section.finish();
        read
    }

    fn scalar<T>(
        self,
        kind: &str,
        remedy: &str,
        take: impl FnOnce(&'a Value) -> Result<T, Wrong>,
    ) -> Field<'a, T> {
        let Self { path, found, sink } = self;
        let field = Field { path, remedy: remedy.to_owned(), found, sink };
        field.try_map(|value| {
            // serde_yaml looks through tags; nothing here is tagged, so a tag is a mistake.
            let taken = if matches!(value, Value::Tagged(_)) { Err(Wrong::Kind) } else { take(value) };
            taken.map_err(|wrong| match wrong {
                Wrong::Kind => format!("must be {kind}, got {}", describe(value)),
                Wrong::Problem(problem) => problem,
            })
        })
    }
}

/// `parent.key`, or `key` at the top.
pub(super) fn join(parent: &str, key: &str) -> String {
    if parent.is_empty() { key.to_owned() } else { format!("{parent}.{key}") }
}

/// The value in a few words, for a complaint.
pub(super) fn describe(value: &Value) -> String {
    match value {
        Value::Null => "nothing".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => number.to_string(),
        Value::String(text) => format!("`{}`", shortened(text)),
        Value::Sequence(items) => format!("a list of {}", items.len()),
        Value::Mapping(_) => "a section".to_owned(),
        Value::Tagged(tagged) => format!("a value with the tag {}", tagged.tag),
    }
}

/// At most 40 characters of a text that a user gave.
fn shortened(text: &str) -> String {
    const LONGEST: usize = 40;
    if text.chars().count() <= LONGEST {
        return text.to_owned();
    }
    text.chars().take(LONGEST).chain("...".chars()).collect()
}
