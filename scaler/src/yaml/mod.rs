//! Reads a YAML configuration and reports every complaint about it at once.
//!
//!   text -> parse -> Value -> read_value(|section| ...) -> T, or all Complaints
//!
//! A reader asks a [`Section`] for its keys, one after the other; each answer is
//! a [`Field`] that is given its limits and then its default. What is wrong is
//! noted and reading goes on, so that one run tells a user everything. After a
//! section's reader returns, keys that it never asked for are complained about,
//! with the nearest known key.
//!
//! ```
//! use scaler::yaml;
//!
//! let read = yaml::read("scaling:\n  target: -3\n  maximum: 4\n", |root| {
//!     root.section("scaling", |scaling| {
//!         let target = scaling.f64("target", "give a number of requests, e.g. 4").above(0.0).or(4.0);
//!         let max = scaling.u32("max", "give a number of backends, e.g. 8").at_least(1).or(8);
//!         Some((target, max))
//!     })
//! });
//! assert_eq!(
//!     read.unwrap_err().to_string(),
//!     "scaling.target: must be above 0, got -3 (give a number of requests, e.g. 4)\n\
//!      scaling.maximum: is not a known key (did you mean `max`?)"
//! );
//! ```
//!
//! It is not a serde front end: serde stops at the first error and knows no remedy.
//!
//! Rule for readers: ask for *all* keys of a section before the first `?`.
//! A key that was never asked for looks unknown.

mod complaint;
mod entry;
mod field;
mod nearest;
mod section;
mod units;

pub use complaint::{Complaint, Complaints};
pub use entry::Entry;
pub use field::{Field, Limited};
pub use section::Section;
pub use units::{parse_bytes, parse_duration, parse_share, show_duration};

use complaint::Sink;
use serde_yaml::Value;

/// Parses one YAML document. An empty text is an empty mapping.
///
/// # Errors
/// The syntax error, or a key given twice, with its line and column as the key.
pub fn parse(text: &str) -> Result<Value, Complaint> {
    let mut value: Value = serde_yaml::from_str(text).map_err(|error| syntax(&error))?;
    value.apply_merge().map_err(|error| syntax(&error))?;
    Ok(value)
}

/// Reads a configuration from its text: [`parse`], then [`read_value`].
///
/// # Errors
/// All complaints: a syntax error alone, or everything the reader noted.
pub fn read<T>(text: &str, reader: impl FnOnce(&mut Section<'_>) -> Option<T>) -> Result<T, Complaints> {
    let value = parse(text).map_err(|complaint| Complaints::from(vec![complaint]))?;
    read_value(&value, reader)
}

/// Reads a configuration from a parsed document.
///
/// The reader returns `None` when a required key is missing or wrong; it has
/// been complained about by then.
///
/// # Errors
/// Everything that was noted while reading, in the order of reading.
pub fn read_value<T>(
    value: &Value,
    reader: impl FnOnce(&mut Section<'_>) -> Option<T>,
) -> Result<T, Complaints> {
    let sink = Sink::default();
    let read = Entry::root(value, &sink).section(reader);
    let noted = sink.into_inner();
    match read {
        Some(read) if noted.is_empty() => Ok(read),
        None if noted.is_empty() => Err(vec![Complaint::new(
            "configuration",
            "could not be read, for a reason that its reader did not name",
            "report this with the file",
        )]
        .into()),
        _ => Err(noted.into()),
    }
}

fn syntax(error: &serde_yaml::Error) -> Complaint {
    let key = match error.location() {
        Some(at) => format!("line {}, column {}", at.line(), at.column()),
        None => "configuration".to_owned(),
    };
    Complaint::new(key, format!("is not valid YAML: {error}"), "correct the syntax; indent with spaces")
}

#[cfg(test)]
mod tests;
