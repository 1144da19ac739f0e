//! `vm.warm`: requests that make the parent worth forking.

use scaler::yaml::{Entry, Section};

use super::health::{is_path, not_a_path};

/// What a path holds where the number goes.
const NUMBER: &str = "{n}";
/// Most requests of one entry.
const MOST: u64 = 1_000_000;

/// Requests to be played to the parent: one path, or one per number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WarmRequests {
    /// The path; `{n}` stands for the number.
    pub path: String,
    /// The first number.
    pub from: u64,
    /// The last number.
    pub to: u64,
}

impl WarmRequests {
    /// The paths to ask for, in order.
    pub fn paths(&self) -> impl Iterator<Item = String> + '_ {
        (self.from..=self.to).map(|n| self.path.replace(NUMBER, &n.to_string()))
    }
}

/// Reads the list; empty if it is not given.
pub(super) fn read(section: &mut Section<'_>) -> Vec<WarmRequests> {
    let entries = section.list("warm", "give a list of sections with path, from, to").optional();
    entries.unwrap_or_default().into_iter().filter_map(read_one).collect()
}

fn read_one(entry: Entry<'_>) -> Option<WarmRequests> {
    entry.section(|section| {
        let path = section
            .string("path", "give a path, e.g. /item/{n}")
            .check(|path| is_path(&path.replace(NUMBER, "1")).map_err(|_| not_a_path(path)))
            .required();
        let from = section.u64("from", "give the first number, e.g. 1").optional();
        let to = section.u64("to", "give the last number, e.g. 200").optional();
        let numbered = path.as_ref().is_some_and(|path| path.contains(NUMBER));
        if path.is_some() && !numbered && (from.is_some() || to.is_some()) {
            section.complain("path", "has no {n}, but numbers are given", "write {n} where the number goes");
        }
        if numbered && to.is_none() {
            section.complain("to", "is missing", "give the last number, e.g. 200");
        }
        let from = from.unwrap_or(1);
        let to = to.unwrap_or(from);
        if from > to || to - from >= MOST {
            let problem = format!("must be from `from`, which is {from}, to {MOST} more, got {to}");
            section.complain("to", problem, "give the last number, e.g. 200");
        }
        Some(WarmRequests { path: path?, from, to })
    })
}
