//! Which backend gets the next request.
//!
//! By default the power of two choices: two different ready backends at random, the one
//! with fewer requests in flight wins.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;

use http::HeaderName;

use super::backend::{Backend, Permit};

/// A small random generator (xorshift64*): fast, seedable, no secrets.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// A generator; equal seeds give equal numbers.
    pub fn new(seed: u64) -> Self {
        Self(seed | 1)
    }

    /// A number below `limit`, which must not be 0.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32;
        ((high * limit as u64) >> 32) as usize
    }
}

/// How the next backend is chosen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Balance {
    /// Two at random; the less busy one wins.
    #[default]
    TwoChoices,
    /// One after the other.
    RoundRobin,
    /// The least busy of all.
    LeastRequests,
    /// Always the same one for the same key, unless it is much busier than the others.
    Hash(HashBy),
}

/// What requests for the same backend have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashBy {
    /// The address of the client.
    Client,
    /// The path of the request.
    Path,
    /// The value of a header field; requests without it are spread by [`Balance::TwoChoices`].
    Header(HeaderName),
}

/// A backend with a key of its own may have this many percent of the average load before
/// its requests go to the next one (consistent hashing with bounded loads).
const BOUND_PERCENT: u64 = 125;

/// What a request asks of the choice.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Wish {
    /// A backend (its serial) that is taken only if nothing else is free.
    pub(crate) avoid: Option<u64>,
    /// What it has in common with others, for [`Balance::Hash`].
    pub(crate) key: Option<u64>,
    /// It may be the one that a new backend gets before any answer.
    pub(crate) may_be_first: bool,
}

/// Takes a place at one of `ready`. `turn` counts the choices made one after the other.
pub(super) fn pick(
    ready: &[Arc<Backend>],
    balance: &Balance,
    wish: Wish,
    rng: &mut Rng,
    turn: &AtomicUsize,
) -> Option<Permit> {
    match ready {
        [] => return None,
        [only] => return only.try_take(),
        _ => {}
    }
    match (balance, wish.key) {
        (Balance::RoundRobin, _) => in_turn(ready, wish.avoid, turn),
        (Balance::LeastRequests, _) => least_busy(ready, wish.avoid, rng),
        (Balance::Hash(_), Some(key)) => by_key(ready, wish.avoid, key),
        (Balance::TwoChoices | Balance::Hash(_), _) => pick_of_many(ready, rng, wish.avoid),
    }
}

/// Takes the first that has room, those to avoid last.
fn first_free<'a>(
    order: impl Iterator<Item = &'a Arc<Backend>> + Clone,
    avoid: Option<u64>,
) -> Option<Permit> {
    let wanted = |backend: &&Arc<Backend>| avoid != Some(backend.serial());
    let mut others = order.clone().filter(wanted);
    others
        .find_map(Backend::try_take)
        .or_else(|| order.clone().find(|backend| !wanted(backend)).and_then(Backend::try_take))
}

fn in_turn(ready: &[Arc<Backend>], avoid: Option<u64>, turn: &AtomicUsize) -> Option<Permit> {
    let start = turn.fetch_add(1, Relaxed) % ready.len();
    first_free(ready[start..].iter().chain(&ready[..start]), avoid)
}

/// Among equals the choice is random, or all workers would send to the same one.
fn least_busy(ready: &[Arc<Backend>], avoid: Option<u64>, rng: &mut Rng) -> Option<Permit> {
    let start = rng.below(ready.len());
    let rotated = ready[start..].iter().chain(&ready[..start]);
    let mut order: Vec<&Arc<Backend>> = rotated.collect();
    order.sort_by_key(|backend| backend.in_flight());
    first_free(order.into_iter(), avoid)
}

/// Rendezvous hashing: each backend has a score for the key and the highest wins, so that
/// a backend that comes or goes moves only its own keys.
fn by_key(ready: &[Arc<Backend>], avoid: Option<u64>, key: u64) -> Option<Permit> {
    let total: u64 = ready.iter().map(|backend| u64::from(backend.in_flight())).sum();
    let bound = ((total + 1) * BOUND_PERCENT).div_ceil(100 * ready.len() as u64);
    let mut order: Vec<&Arc<Backend>> = ready.iter().collect();
    order.sort_by_cached_key(|backend| std::cmp::Reverse(hash(&(key, backend.id()))));
    let within = order.iter().copied().filter(|backend| u64::from(backend.in_flight()) < bound);
    first_free(within, avoid).or_else(|| first_free(order.iter().copied(), avoid))
}

/// The same for equal values in every process.
pub(crate) fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

fn pick_of_many(ready: &[Arc<Backend>], rng: &mut Rng, avoid: Option<u64>) -> Option<Permit> {
    let first = rng.below(ready.len());
    let second = (first + 1 + rng.below(ready.len() - 1)) % ready.len();
    let (first, second) = (&ready[first], &ready[second]);
    let cost = |backend: &Backend| (avoid == Some(backend.serial()), backend.in_flight());
    let (better, worse) = if cost(second) < cost(first) { (second, first) } else { (first, second) };
    let wanted = |backend: &&Arc<Backend>| avoid != Some(backend.serial());
    [better, worse]
        .into_iter()
        .filter(wanted)
        .find_map(Backend::try_take)
        .or_else(|| first_free(ready.iter(), avoid))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick(ready: &[Arc<Backend>], rng: &mut Rng, avoid: Option<u64>) -> Option<Permit> {
        by(&Balance::TwoChoices, ready, Wish { avoid, ..Wish::default() }, rng)
    }

    fn by(balance: &Balance, ready: &[Arc<Backend>], wish: Wish, rng: &mut Rng) -> Option<Permit> {
        super::pick(ready, balance, wish, rng, &AtomicUsize::new(0))
    }

    use crate::pool::test_backend;

    #[test]
    fn numbers_stay_below_their_limit_and_reach_all_of_it() {
        let mut rng = Rng::new(7);
        let mut seen = [0_u32; 5];
        (0..5000).for_each(|_| seen[rng.below(5)] += 1);
        assert!(seen.iter().all(|count| (800..1200).contains(count)), "{seen:?}");
    }

    #[test]
    fn the_less_busy_of_two_wins() {
        let backends = [test_backend(1, None), test_backend(2, None)];
        let _busy: Vec<_> = (0..3).map(|_| backends[0].try_take()).collect();
        let mut rng = Rng::new(1);
        for _ in 0..3 {
            let permit = pick(&backends, &mut rng, None).expect("both are ready");
            assert_eq!(permit.backend().serial(), 2);
            std::mem::forget(permit);
        }
    }

    #[test]
    fn requests_spread_within_two_of_each_other() {
        let backends: Vec<_> = (0..8).map(|serial| test_backend(serial, None)).collect();
        let mut rng = Rng::new(3);
        let held: Vec<_> = (0..800).map(|_| pick(&backends, &mut rng, None)).collect();
        assert!(held.iter().all(Option::is_some));
        let counts: Vec<u32> = backends.iter().map(|backend| backend.in_flight()).collect();
        let spread = counts.iter().max().unwrap() - counts.iter().min().unwrap();
        assert!(spread <= 6, "{counts:?}");
    }

    #[test]
    fn the_avoided_backend_is_the_last_resort() {
        let backends = [test_backend(1, Some(1)), test_backend(2, Some(1)), test_backend(3, Some(1))];
        let mut rng = Rng::new(1);
        let first = pick(&backends, &mut rng, Some(2)).unwrap();
        let second = pick(&backends, &mut rng, Some(2)).unwrap();
        assert!(first.backend().serial() != 2 && second.backend().serial() != 2);
        assert_eq!(pick(&backends, &mut rng, Some(2)).unwrap().backend().serial(), 2);
    }

    #[test]
    fn when_all_are_full_there_is_no_pick() {
        let backends = [test_backend(1, Some(1)), test_backend(2, Some(1))];
        let mut rng = Rng::new(1);
        let held: Vec<_> = (0..2).map(|_| pick(&backends, &mut rng, None).unwrap()).collect();
        assert!(pick(&backends, &mut rng, None).is_none());
        drop(held);
        assert!(pick(&backends, &mut rng, None).is_some());
    }

    fn backends(count: u64) -> Vec<Arc<Backend>> {
        (0..count).map(|serial| test_backend(serial, None)).collect()
    }

    fn serial(permit: Option<Permit>) -> u64 {
        permit.unwrap().backend().serial()
    }

    #[test]
    fn round_robin_takes_them_in_turn_and_passes_over_the_full() {
        let backends = [test_backend(0, None), test_backend(1, Some(1)), test_backend(2, None)];
        let (turn, mut rng) = (AtomicUsize::new(0), Rng::new(1));
        let held: Vec<Permit> = (0..6)
            .map(|_| super::pick(&backends, &Balance::RoundRobin, Wish::default(), &mut rng, &turn).unwrap())
            .collect();
        let order: Vec<u64> = held.iter().map(|permit| permit.backend().serial()).collect();
        assert_eq!(order, [0, 1, 2, 0, 2, 2]);
    }

    #[test]
    fn the_least_busy_of_all_wins() {
        let backends = backends(5);
        let _busy: Vec<_> = [0, 1, 2, 4].map(|index: usize| backends[index].try_take()).into_iter().collect();
        let mut rng = Rng::new(1);
        for _ in 0..20 {
            assert_eq!(serial(by(&Balance::LeastRequests, &backends, Wish::default(), &mut rng)), 3);
        }
    }

    fn owner(backends: &[Arc<Backend>], key: u64) -> u64 {
        let wish = Wish { avoid: None, key: Some(key), ..Wish::default() };
        serial(by(&Balance::Hash(HashBy::Client), backends, wish, &mut Rng::new(key)))
    }

    #[test]
    fn a_key_stays_with_its_backend_and_moves_only_if_that_one_goes() {
        let all = backends(8);
        let owners: Vec<u64> = (0..1000).map(|key| owner(&all, key)).collect();
        assert_eq!(owners, (0..1000).map(|key| owner(&all, key)).collect::<Vec<_>>());
        let without: Vec<_> = all.iter().filter(|it| it.serial() != 3).cloned().collect();
        for (key, old) in owners.iter().enumerate() {
            let new = owner(&without, key as u64);
            assert!(new == *old || *old == 3, "key {key} moved from {old} to {new}");
        }
        for serial in 0..8 {
            let share = owners.iter().filter(|owner| **owner == serial).count();
            assert!((80..180).contains(&share), "{serial} has {share} of 1000");
        }
    }

    #[test]
    fn a_popular_key_spills_over_before_its_backend_is_much_busier_than_others() {
        let all = backends(4);
        let wish = Wish { avoid: None, key: Some(7), ..Wish::default() };
        let mut rng = Rng::new(1);
        let held: Vec<_> =
            (0..100).map(|_| by(&Balance::Hash(HashBy::Client), &all, wish, &mut rng)).collect();
        let most = all.iter().map(|it| it.in_flight()).max().unwrap();
        assert!(most <= 100 * 125 / 400 + 1, "{most} of {}", held.len());
    }

    #[test]
    fn what_is_to_be_avoided_is_the_last_resort_of_every_policy() {
        for balance in [Balance::RoundRobin, Balance::LeastRequests, Balance::Hash(HashBy::Path)] {
            let backends = [test_backend(1, Some(1)), test_backend(2, Some(1))];
            let wish = Wish { avoid: Some(2), key: Some(1), ..Wish::default() };
            let mut rng = Rng::new(1);
            let first = by(&balance, &backends, wish, &mut rng).unwrap();
            assert_eq!(first.backend().serial(), 1, "{balance:?}");
            assert_eq!(serial(by(&balance, &backends, wish, &mut rng)), 2, "{balance:?}");
        }
    }
}
