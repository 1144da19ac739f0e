//! What is wrong with a configuration, and what would be right.

use std::cell::RefCell;
use std::fmt;

use serde::Serialize;

/// One thing that is wrong with a configuration.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Complaint {
    /// Path of the key, e.g. `scaling.target_concurrency` or `backends[2].address`.
    pub key: String,
    /// What is wrong, with the value that was given: `must be above 0, got -3`.
    pub problem: String,
    /// What would be right: `give the number of requests ..., e.g. 4`.
    pub remedy: String,
}

impl Complaint {
    /// A complaint about `key`.
    pub fn new(key: impl Into<String>, problem: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { key: key.into(), problem: problem.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Complaint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.key, self.problem, self.remedy)
    }
}

/// Everything that is wrong with a configuration; never empty. Displays one line each.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Complaints(Vec<Complaint>);

impl Complaints {
    /// The complaints in the order in which they were found.
    pub fn as_slice(&self) -> &[Complaint] {
        &self.0
    }
}

impl From<Vec<Complaint>> for Complaints {
    fn from(complaints: Vec<Complaint>) -> Self {
        debug_assert!(!complaints.is_empty(), "no complaints are no error");
        Self(complaints)
    }
}

impl IntoIterator for Complaints {
    type Item = Complaint;
    type IntoIter = std::vec::IntoIter<Complaint>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for Complaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, complaint) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { "\n" };
            write!(f, "{separator}{complaint}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Complaints {}

/// Where the sections of one document note their complaints.
#[derive(Debug, Default)]
pub(super) struct Sink(RefCell<Vec<Complaint>>);

impl Sink {
    pub(super) fn note(&self, complaint: Complaint) {
        self.0.borrow_mut().push(complaint);
    }

    pub(super) fn into_inner(self) -> Vec<Complaint> {
        self.0.into_inner()
    }
}
