//! Randomness that a seed replays.

use crate::hypervisor::plain::content::mix;

/// splitmix64 (Steele et al. 2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Any number.
    pub fn number(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(1);
        mix(mix(self.0))
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.number() % limit
    }

    /// `true` so often, 0 to 1.
    pub fn chance(&mut self, share: f64) -> bool {
        share > 0.0 && (self.number() as f64) < share * u64::MAX as f64
    }
}
