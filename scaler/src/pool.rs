//! What there is: the pool as its owner last saw it.

use serde::{Deserialize, Serialize};

/// The backends of a tier by what they are doing, the parent included.
///
/// It has to show what earlier decisions set off: a clone that was asked for is
/// `starting` at once, a victim is `retiring` at once. Otherwise it is asked for twice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PoolView {
    /// Backends that take new requests.
    pub ready: u32,
    /// Clones on their way. They count as capacity.
    pub starting: u32,
    /// Clones that have answered and do not any more. They serve nothing, and take up room
    /// all the same: they count against `max` only.
    #[serde(default)]
    pub unready: u32,
    /// Clones that only finish what they have. They do not count.
    pub retiring: u32,
}

impl PoolView {
    /// Backends that serve or are about to.
    pub fn capacity(&self) -> u32 {
        self.ready.saturating_add(self.starting)
    }
}
