//! The memory tests: a buffer with a seeded pattern that a clone must find as its parent left it.

use std::sync::{Mutex, PoisonError};

use crate::pattern::{self, Digest};

/// The buffer.
#[derive(Default)]
pub(crate) struct Buffer(Mutex<Vec<u8>>);

impl Buffer {
    /// Makes the buffer this long, in bytes, and fills it.
    pub(crate) fn fill(&self, bytes: usize, seed: u64) {
        let mut buffer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        buffer.clear();
        buffer.resize(bytes, 0);
        pattern::fill(&mut buffer, seed, 0);
    }

    /// Fills the buffer anew, in its old place and length.
    pub(crate) fn overwrite(&self, seed: u64) {
        pattern::fill(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner), seed, 0);
    }

    /// Length in bytes and digest.
    pub(crate) fn checksum(&self) -> (usize, String) {
        let buffer = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut digest = Digest::new();
        digest.add(&buffer);
        (buffer.len(), digest.hex())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_filled_is_what_is_summed_and_overwriting_changes_it() {
        let buffer = Buffer::default();
        buffer.fill(1 << 16, 1);
        let first = buffer.checksum();
        assert_eq!(first.0, 1 << 16);
        buffer.overwrite(2);
        assert_ne!(buffer.checksum(), first);
        buffer.overwrite(1);
        assert_eq!(buffer.checksum(), first);
    }
}
