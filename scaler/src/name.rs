//! Names that users give to signals: short, and cheap to copy.

use std::fmt;

use serde::{Serialize, Serializer};

/// A name of 1 to 32 of `a-z`, `0-9` and `_` that begins with a letter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    bytes: [u8; Self::LONGEST],
    length: u8,
}

impl Name {
    /// Longest name, bytes.
    pub const LONGEST: usize = 32;

    /// Makes a name of a text.
    ///
    /// # Errors
    /// What would be right, to be put after the key.
    pub fn new(text: &str) -> Result<Self, String> {
        let plain = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'_';
        let fits = (1..=Self::LONGEST).contains(&text.len())
            && text.bytes().all(plain)
            && text.starts_with(|c: char| c.is_ascii_lowercase());
        if !fits {
            let longest = Self::LONGEST;
            return Err(format!(
                "must be 1 to {longest} of a-z, 0-9 and _, beginning with a letter, got `{text}`"
            ));
        }
        let mut bytes = [0; Self::LONGEST];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self { bytes, length: text.len() as u8 })
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        // Only ASCII was let in.
        std::str::from_utf8(&self.bytes[..usize::from(self.length)]).unwrap_or_default()
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_str().fmt(f)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_plain_and_short() {
        let longest = "a".repeat(Name::LONGEST);
        for good in ["a", "jobs_2", longest.as_str()] {
            assert_eq!(Name::new(good).map(|name| name.to_string()), Ok(good.to_owned()));
        }
        let too_long = "a".repeat(Name::LONGEST + 1);
        for bad in ["", "Jobs", "2jobs", "_x", "a-b", "ä", too_long.as_str()] {
            assert!(Name::new(bad).is_err_and(|why| why.starts_with("must be 1 to 32 of")), "{bad}");
        }
    }
}
