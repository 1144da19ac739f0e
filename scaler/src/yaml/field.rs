//! A value as read, on its way to its limits and its default.

use std::fmt;
use std::time::Duration;

use super::complaint::{Complaint, Sink};
use super::units::show_duration;

/// Values that can be given limits, and how they are shown in a complaint.
pub trait Limited: PartialOrd {
    /// The value as a user would write it.
    fn shown(&self) -> String;
}

impl Limited for u32 {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Limited for u64 {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Limited for f64 {
    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Limited for Duration {
    fn shown(&self) -> String {
        show_duration(*self)
    }
}

/// What was found under a key.
#[derive(Debug)]
pub(super) enum Found<T> {
    Absent,
    /// Wrong, and already complained about.
    Wrong,
    Value(T),
}

/// The answer of a section for one key: give it limits, then [`or`](Self::or) a default,
/// [`optional`](Self::optional) or [`required`](Self::required).
///
/// A value outside its limits is complained about once and then counts as wrong.
#[must_use = "a field does nothing until its value is taken"]
pub struct Field<'a, T> {
    pub(super) path: String,
    pub(super) remedy: String,
    pub(super) found: Found<T>,
    pub(super) sink: &'a Sink,
}

impl<'a, T> Field<'a, T> {
    /// The value, or `default` if the key is absent (or wrong, and so complained about).
    pub fn or(self, default: T) -> T {
        self.optional().unwrap_or(default)
    }

    /// The value, or `None` if the key is absent (or wrong, and so complained about).
    pub fn optional(self) -> Option<T> {
        match self.found {
            Found::Value(value) => Some(value),
            Found::Absent | Found::Wrong => None,
        }
    }

    /// The value; complains if the key is absent. Take it out of the `Option` only
    /// after all keys of the section were asked for.
    pub fn required(self) -> Option<T> {
        if matches!(self.found, Found::Absent) {
            self.sink.note(Complaint::new(&self.path, "is missing", &self.remedy));
        }
        self.optional()
    }

    /// Complains unless `check` is content; its error is the problem, e.g. `must not be empty`.
    pub fn check(self, check: impl FnOnce(&T) -> Result<(), String>) -> Self {
        self.try_map(|value| check(&value).map(|()| value))
    }

    /// Turns the value into another one; an error is the problem to complain about.
    pub fn try_map<U>(self, map: impl FnOnce(T) -> Result<U, String>) -> Field<'a, U> {
        let Self { path, remedy, found, sink } = self;
        let found = match found {
            Found::Absent => Found::Absent,
            Found::Wrong => Found::Wrong,
            Found::Value(value) => match map(value) {
                Ok(value) => Found::Value(value),
                Err(problem) => {
                    sink.note(Complaint::new(&path, problem, &remedy));
                    Found::Wrong
                }
            },
        };
        Field { path, remedy, found, sink }
    }
}

impl<T: Limited> Field<'_, T> {
    /// Complains unless the value is above `limit`.
    pub fn above(self, limit: T) -> Self {
        self.limit("must be above", limit, |value, limit| value > limit)
    }

    /// Complains unless the value is below `limit`.
    pub fn below(self, limit: T) -> Self {
        self.limit("must be below", limit, |value, limit| value < limit)
    }

    /// Complains unless the value is `limit` or above.
    pub fn at_least(self, limit: T) -> Self {
        self.limit("must be at least", limit, |value, limit| value >= limit)
    }

    /// Complains unless the value is `limit` or below.
    pub fn at_most(self, limit: T) -> Self {
        self.limit("must be at most", limit, |value, limit| value <= limit)
    }

    fn limit(self, rule: &str, limit: T, holds: impl FnOnce(&T, &T) -> bool) -> Self {
        self.check(|value| {
            holds(value, &limit)
                .then_some(())
                .ok_or_else(|| format!("{rule} {}, got {}", limit.shown(), value.shown()))
        })
    }
}

impl Field<'_, String> {
    /// Complains about empty or blank text.
    pub fn not_empty(self) -> Self {
        self.check(|text| {
            (!text.trim().is_empty()).then_some(()).ok_or_else(|| "must not be empty".to_owned())
        })
    }
}

impl<T> Field<'_, Vec<T>> {
    /// Complains about a list without entries.
    pub fn not_empty(self) -> Self {
        self.check(|list| (!list.is_empty()).then_some(()).ok_or_else(|| "must not be empty".to_owned()))
    }
}

impl<T: fmt::Debug> fmt::Debug for Field<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Field").field("path", &self.path).field("found", &self.found).finish_non_exhaustive()
    }
}
