//! Buckets by key, in bounded memory: those used least lately are forgotten first.
//!
//! Each shard has two generations. A key that is used moves to the young one; when that is as
//! large as half of the shard may be, it becomes the old one, and the former old one is dropped.
//! So whatever was among the last keys used is kept, and nothing has to be kept in order. A key
//! is remembered by a digest with a seed of this process: 16 bytes for each, however long it is.

use std::collections::HashMap;
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Shards, so that workers seldom wait for each other.
const SHARDS: usize = 16;

#[derive(Default)]
struct Shard {
    young: HashMap<u64, u64>,
    old: HashMap<u64, u64>,
}

/// Buckets by key.
pub(super) struct Keyed {
    seed: RandomState,
    /// Keys of one generation of one shard.
    room: usize,
    shards: [Mutex<Shard>; SHARDS],
}

impl Keyed {
    /// Room for so many keys, rounded down to what shards have in common, but 2 for each.
    pub(super) fn new(max_keys: usize) -> Self {
        let room = (max_keys / SHARDS / 2).max(1);
        Self { seed: RandomState::new(), room, shards: Default::default() }
    }

    /// Gives a bucket to work on; a new one is 0, which is full.
    pub(super) fn with<R>(&self, key: &impl Hash, work: impl FnOnce(&mut u64) -> R) -> R {
        let digest = self.seed.hash_one(key);
        let mut shard = lock(&self.shards[digest as usize % SHARDS]);
        let mut bucket = match shard.young.get(&digest) {
            Some(bucket) => *bucket,
            None => shard.old.remove(&digest).unwrap_or(0),
        };
        let result = work(&mut bucket);
        if shard.young.len() >= self.room && !shard.young.contains_key(&digest) {
            shard.old = std::mem::take(&mut shard.young);
        }
        shard.young.insert(digest, bucket);
        result
    }

    /// Keys that are remembered.
    pub(super) fn len(&self) -> usize {
        self.shards.iter().map(lock).map(|shard| shard.young.len() + shard.old.len()).sum()
    }
}

fn lock(shard: &Mutex<Shard>) -> MutexGuard<'_, Shard> {
    shard.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_in_use_is_not_forgotten_whoever_else_comes() {
        let keyed = Keyed::new(64);
        keyed.with(&"mine", |bucket| *bucket = 7);
        for other in 0..10_000 {
            keyed.with(&other, |bucket| *bucket = 1);
            keyed.with(&"mine", |bucket| assert_eq!(*bucket, 7, "after {other}"));
        }
        assert!(keyed.len() <= 64, "{}", keyed.len());
    }

    #[test]
    fn a_key_that_is_not_used_is_forgotten_in_time() {
        let keyed = Keyed::new(32);
        keyed.with(&"mine", |bucket| *bucket = 7);
        (0..1000).for_each(|other| keyed.with(&other, |bucket| *bucket = 1));
        keyed.with(&"mine", |bucket| assert_eq!(*bucket, 0));
    }
}
