//! Items: expensive to compute once, then in memory. A fork inherits the warm cache.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use crate::pattern;

/// A bound on memory: an item takes about 100 bytes here.
const MOST_ITEMS: usize = 100_000;

/// The cache and the cost of a miss.
pub(crate) struct Cache {
    rounds: u64,
    items: Mutex<HashMap<u64, Arc<OnceLock<u64>>>>,
}

impl Cache {
    /// An empty cache whose misses cost so many hash rounds.
    pub(crate) fn new(rounds: u64) -> Self {
        Self { rounds, items: Mutex::default() }
    }

    /// The item's digest, and whether it was there already. Two who miss the same item compute it once.
    pub(crate) fn item(&self, number: u64) -> (u64, bool) {
        let slot = {
            let mut items = self.items.lock().unwrap_or_else(PoisonError::into_inner);
            if items.len() >= MOST_ITEMS && !items.contains_key(&number) {
                items.clear();
            }
            Arc::clone(items.entry(number).or_default())
        };
        let hit = slot.get().is_some();
        (*slot.get_or_init(|| pattern::rounds(number, self.rounds)), hit)
    }

    /// How many items are cached.
    pub(crate) fn len(&self) -> usize {
        self.items.lock().unwrap_or_else(PoisonError::into_inner).len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_request_for_an_item_finds_it() {
        let cache = Cache::new(10);
        let (first, hit) = cache.item(7);
        assert!(!hit);
        assert_eq!(cache.item(7), (first, true));
        assert_ne!(cache.item(8).0, first);
        assert_eq!(cache.len(), 2);
    }
}
