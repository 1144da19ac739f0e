//! What is named across hosts: hosts, their epochs, tickets, checkpoints, requests.
//!
//! The Engine of a host has tickets and checkpoints with numbers of its own; these here are SFMD's.
//! A clone ID is the same everywhere: hosts number clones within ranges that SFMD leases to them.

use std::fmt;
use std::io::{self, Read};
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::network::identity::CloneId;

/// Longest host name: that of a DNS label.
const LONGEST_NAME: usize = 63;

/// The name of a host or of an operator, as its certificate has it: a DNS label in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Name(String);

/// A text is not a name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no name: give 1 to {LONGEST_NAME} of a-z, 0-9 and -, neither beginning nor ending with -")]
pub struct BadName(String);

impl Name {
    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for Name {
    type Error = BadName;

    fn try_from(text: String) -> Result<Self, BadName> {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let edges = !text.starts_with('-') && !text.ends_with('-');
        let fits = (1..=LONGEST_NAME).contains(&text.len()) && text.chars().all(plain) && edges;
        if fits { Ok(Self(text)) } else { Err(BadName(text)) }
    }
}

impl FromStr for Name {
    type Err = BadName;

    fn from_str(text: &str) -> Result<Self, BadName> {
        text.to_owned().try_into()
    }
}

impl From<Name> for String {
    fn from(name: Name) -> Self {
        name.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident, $word:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub u64);

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!($word, " {}"), self.0)
            }
        }
    };
}

number!(
    /// One membership of one host. A host that was given up comes back under a later one, so that nothing
    /// of the former is taken for its own.
    Epoch,
    "epoch"
);
number!(
    /// A ticket across hosts.
    TicketId,
    "ticket"
);
number!(
    /// A checkpoint across hosts.
    CheckpointId,
    "checkpoint"
);
number!(
    /// A connection of a host to SFMD; each is numbered higher than the last.
    Session,
    "session"
);

/// A number that nobody else has: of an SFMD's record, of a run of SFLD, of a request.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Unique(u64);

impl Unique {
    /// A fresh one, from the kernel's randomness.
    ///
    /// # Errors
    /// The kernel's source cannot be read.
    pub fn fresh() -> io::Result<Self> {
        let mut bytes = [0; 8];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(Self(u64::from_le_bytes(bytes)))
    }

    /// With this value.
    #[must_use]
    pub const fn of(value: u64) -> Self {
        Self(value)
    }
}

impl fmt::Display for Unique {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl fmt::Debug for Unique {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<Unique> for String {
    fn from(unique: Unique) -> Self {
        unique.to_string()
    }
}

impl TryFrom<String> for Unique {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits =
            text.len() == 16 && text.bytes().all(|b| b.is_ascii_hexdigit() && !b.is_ascii_uppercase());
        let value = digits.then(|| u64::from_str_radix(&text, 16).ok()).flatten();
        value.map(Self).ok_or_else(|| format!("{text:?} is not 16 digits of 0-9 and a-f"))
    }
}

/// Clone IDs from `first` on, `count` of them, for one host alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct IdRange {
    /// The first.
    pub first: u32,
    /// How many.
    pub count: u32,
}

impl IdRange {
    /// Whether this ID is one of them.
    #[must_use]
    pub fn holds(self, id: CloneId) -> bool {
        id.0 >= self.first && id.0 - self.first < self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_a_dns_label_in_lower_case() {
        for good in ["a", "rack-3", "7", &"x".repeat(63)] {
            assert!(good.parse::<Name>().is_ok(), "{good}");
        }
        for bad in ["", "-a", "a-", "A", "a.b", "a b", "ä", &"x".repeat(64)] {
            assert_eq!(bad.parse::<Name>(), Err(BadName(bad.into())));
        }
        assert!(serde_json::from_str::<Name>("\"../x\"").is_err());
    }

    #[test]
    fn a_unique_number_is_written_with_sixteen_digits_and_read_again() {
        let text = serde_json::to_string(&Unique::of(0xAB)).unwrap();
        assert_eq!(text, "\"00000000000000ab\"");
        assert_eq!(serde_json::from_str::<Unique>(&text).unwrap(), Unique::of(0xAB));
        for bad in ["\"ab\"", "\"00000000000000AB\"", "\"+0000000000000ab\"", "7"] {
            assert!(serde_json::from_str::<Unique>(bad).is_err(), "{bad}");
        }
        assert_ne!(Unique::fresh().unwrap(), Unique::fresh().unwrap());
    }

    #[test]
    fn a_range_holds_its_ids_up_to_the_last_there_is() {
        let range = IdRange { first: 5, count: 2 };
        let held = [4, 5, 6, 7].map(|id| range.holds(CloneId(id)));
        assert_eq!(held, [false, true, true, false]);
        assert!(IdRange { first: u32::MAX, count: 1 }.holds(CloneId(u32::MAX)));
    }
}
