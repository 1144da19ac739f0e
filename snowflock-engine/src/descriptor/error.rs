//! What a refusal says: which file, which section, at which byte, what is there, what would be right.

use std::fmt;
use std::io;
use std::path::PathBuf;

use super::section::Section;

/// Why a descriptor cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DescriptorError {
    /// It is damaged, foreign, or describes what cannot be.
    #[error("{} is refused: {faults}", name(path))]
    Refused {
        /// The file, if it came from or was to go to one.
        path: Option<PathBuf>,
        /// Never empty. More than one only if all of them are of [`Check::Meaning`].
        faults: Faults,
    },
    /// A file could not be read or written.
    #[error("cannot {tried} {}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// A verb: what was tried with it.
        tried: &'static str,
        /// The system's reason.
        source: io::Error,
    },
    /// It is sound, but clones of it cannot run on this host.
    #[error("a clone cannot run on this host: {}", joined(.0))]
    DoesNotFit(Vec<Mismatch>),
}

impl DescriptorError {
    /// What is wrong with the descriptor itself; empty if it is something else.
    #[must_use]
    pub fn faults(&self) -> &[Fault] {
        match self {
            Self::Refused { faults, .. } => &faults.0,
            Self::File { .. } | Self::DoesNotFit(_) => &[],
        }
    }

    /// The same, said of a file.
    pub(super) fn of_file(self, file: &std::path::Path) -> Self {
        match self {
            Self::Refused { faults, .. } => Self::Refused { path: Some(file.into()), faults },
            other => other,
        }
    }
}

impl From<Fault> for DescriptorError {
    fn from(fault: Fault) -> Self {
        Self::Refused { path: None, faults: Faults(vec![fault]) }
    }
}

fn name(path: &Option<PathBuf>) -> String {
    path.as_ref()
        .map_or_else(|| "the VM descriptor".into(), |path| format!("the VM descriptor {}", path.display()))
}

/// All that is wrong with a descriptor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Faults(pub Vec<Fault>);

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&joined(&self.0))
    }
}

/// The checks in their order: bytes that fail one are not asked the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Check {
    /// Is it a descriptor at all?
    Magic,
    /// Is it of a version that is known here?
    Version,
    /// Are all its bytes here, and not too many?
    Length,
    /// Are they the bytes that were written?
    Checksum,
    /// Are its sections and fields whole, known and within their limits?
    Structure,
    /// Does it describe a VM that can be?
    Meaning,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Which check found it.
    pub check: Check,
    /// Where; `None` if it is outside of all known sections.
    pub section: Option<Section>,
    /// Where in the file, bytes from its start (of the section, where several fields are at odds);
    /// `None` if there is no file yet.
    pub offset: Option<usize>,
    /// What is there.
    pub found: String,
    /// What would be right.
    pub wanted: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(section) = self.section {
            write!(f, "section {section}: ")?;
        }
        if let Some(offset) = self.offset {
            write!(f, "at byte {offset}: ")?;
        }
        write!(f, "found {}, expected {}", self.found, self.wanted)
    }
}

/// A property in which a descriptor and a host differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mismatch {
    /// Its name.
    pub property: &'static str,
    /// The descriptor's.
    pub descriptor: String,
    /// The host's.
    pub host: String,
}

impl fmt::Display for Mismatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { property, descriptor, host } = self;
        write!(f, "{property}: the descriptor needs {descriptor}, the host has {host}")
    }
}

fn joined<T: fmt::Display>(all: &[T]) -> String {
    all.iter().map(T::to_string).collect::<Vec<_>>().join("; ")
}
