//! Which backend gets the next request.
//!
//! By default the power of two choices: two different ready backends at random, the one
//! with fewer requests in flight for its weight wins.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use http::HeaderName;

use super::backend::{Backend, FULL_SCALE, Permit};
use super::queue::Priority;

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
    /// One after the other, as often as their weights say and as evenly spread as can be.
    RoundRobin,
    /// The least busy of all, for its weight.
    LeastRequests,
    /// Two at random; the one that is expected to answer sooner wins.
    PeakEwma,
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
    /// The value of a cookie; requests without it are spread by [`Balance::TwoChoices`].
    Cookie(Arc<str>),
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
    /// A backend (its serial) that is taken if it has room.
    pub(crate) prefer: Option<u64>,
    /// Where it stands if there is a line.
    pub(crate) priority: Priority,
    /// How long it waits, if that is not the pool's to say.
    pub(crate) patience: Option<Duration>,
    /// It may be the one that a new backend gets before any answer.
    pub(crate) may_be_first: bool,
}

/// The choices that are made one after the other.
#[derive(Debug, Default)]
pub(super) struct Turns {
    turn: AtomicUsize,
    /// Held while credits of backends change.
    smooth: Mutex<()>,
}

/// Takes a place at one of `ready`.
pub(super) fn pick(
    ready: &[Arc<Backend>],
    balance: &Balance,
    wish: Wish,
    rng: &mut Rng,
    turns: &Turns,
) -> Option<Permit> {
    match ready {
        [] => return None,
        [only] => return only.try_take(),
        _ => {}
    }
    if let Some(permit) = preferred(ready, wish) {
        return Some(permit);
    }
    match (balance, wish.key) {
        (Balance::RoundRobin, _) => in_turn(ready, wish.avoid, turns),
        (Balance::LeastRequests, _) => least_busy(ready, wish.avoid, rng),
        (Balance::Hash(_), Some(key)) => by_key(ready, wish.avoid, key),
        (Balance::PeakEwma, _) => {
            let now = Instant::now();
            let cost =
                |backend: &Backend| backend.rtt().cost(backend.in_flight(), now) / backend.share() as f64;
            of_two(ready, rng, wish.avoid, |a, b, _| cost(b) < cost(a))
        }
        (Balance::TwoChoices | Balance::Hash(_), _) => of_two(ready, rng, wish.avoid, second_is_idler),
    }
}

/// The backend that a client sticks to.
fn preferred(ready: &[Arc<Backend>], wish: Wish) -> Option<Permit> {
    let serial = wish.prefer.filter(|serial| wish.avoid != Some(*serial))?;
    ready.iter().find(|backend| backend.serial() == serial).and_then(Backend::try_take)
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

fn in_turn(ready: &[Arc<Backend>], avoid: Option<u64>, turns: &Turns) -> Option<Permit> {
    let even = ready.windows(2).all(|pair| pair[0].share() == pair[1].share());
    if !even {
        return in_weighted_turn(ready, avoid, turns);
    }
    let start = turns.turn.fetch_add(1, Relaxed) % ready.len();
    first_free(ready[start..].iter().chain(&ready[..start]), avoid)
}

/// Smooth weighted round robin, as nginx has it: everybody earns its weight, the richest one pays
/// what all have earned. Of 5, 1, 1 that makes a a b a c a a.
fn in_weighted_turn(ready: &[Arc<Backend>], avoid: Option<u64>, turns: &Turns) -> Option<Permit> {
    let _one_at_a_time = turns.smooth.lock().unwrap_or_else(PoisonError::into_inner);
    let total: i64 = ready.iter().map(|backend| backend.share() as i64).sum();
    // Who is full for long is owed no more than two rounds, and nobody owes more.
    let credit = |backend: &Backend| {
        (backend.credit().load(Relaxed) + backend.share() as i64).clamp(-2 * total, 2 * total)
    };
    let mut order: Vec<(i64, &Arc<Backend>)> = ready.iter().map(|it| (credit(it), it)).collect();
    order.sort_by_key(|(credit, _)| std::cmp::Reverse(*credit));
    let permit = first_free(order.iter().map(|(_, backend)| *backend), avoid)?;
    for (credit, backend) in order {
        let paid = if Arc::ptr_eq(backend, permit.backend()) { total } else { 0 };
        backend.credit().store(credit - paid, Relaxed);
    }
    Some(permit)
}

/// Among equals the choice is random, or all workers would send to the same one.
fn least_busy(ready: &[Arc<Backend>], avoid: Option<u64>, rng: &mut Rng) -> Option<Permit> {
    let start = by_weight(ready, rng);
    let rotated = ready[start..].iter().chain(&ready[..start]);
    let mut order: Vec<&Arc<Backend>> = rotated.collect();
    order.sort_by_cached_key(|backend| u64::from(backend.in_flight()) * FULL_SCALE / backend.share());
    first_free(order.into_iter(), avoid)
}

/// One at random, as often as its weight says.
fn by_weight(ready: &[Arc<Backend>], rng: &mut Rng) -> usize {
    let total: u64 = ready.iter().map(|backend| backend.share()).sum();
    let mut left = rng.below(total as usize) as u64;
    let taken = |backend: &Arc<Backend>| match left.checked_sub(backend.share()) {
        Some(less) => {
            left = less;
            false
        }
        None => true,
    };
    ready.iter().position(taken).unwrap_or(0)
}

/// Rendezvous hashing: each backend has a score for the key and the highest wins, so that
/// a backend that comes or goes moves only its own keys.
fn by_key(ready: &[Arc<Backend>], avoid: Option<u64>, key: u64) -> Option<Permit> {
    let total: u64 = ready.iter().map(|backend| u64::from(backend.in_flight())).sum();
    let weights: u64 = ready.iter().map(|backend| u64::from(backend.weight())).sum();
    let bound = |backend: &Backend| {
        ((total + 1) * BOUND_PERCENT * u64::from(backend.weight())).div_ceil(100 * weights)
    };
    let mut order: Vec<(f64, &Arc<Backend>)> = ready.iter().map(|it| (score(key, it), it)).collect();
    order.sort_by(|(a, _), (b, _)| b.total_cmp(a));
    let order = order.iter().map(|(_, backend)| *backend);
    let within = order.clone().filter(|backend| u64::from(backend.in_flight()) < bound(backend));
    first_free(within, avoid).or_else(|| first_free(order, avoid))
}

/// The score of a backend for a key. With -weight / ln(u), u even in 0 to 1, each backend wins as
/// often as its weight says, and another weight moves no key between two others.
fn score(key: u64, backend: &Backend) -> f64 {
    let even = (hash(&(key, backend.id())) >> 11) as f64 / (1_u64 << 53) as f64;
    // 0 would be a score of 0 for any weight.
    -f64::from(backend.weight()) / even.max(f64::MIN_POSITIVE).ln()
}

/// The same for equal values in every process.
pub(crate) fn hash(value: &impl Hash) -> u64 {
    let mut hasher = DefaultHasher::new();
    value.hash(&mut hasher);
    hasher.finish()
}

/// Whether the second has fewer requests for its weight; among equals a coin as uneven as their
/// weights decides.
fn second_is_idler(first: &Backend, second: &Backend, rng: &mut Rng) -> bool {
    let (a, b) = (first.share(), second.share());
    match (u64::from(second.in_flight()) * a).cmp(&(u64::from(first.in_flight()) * b)) {
        std::cmp::Ordering::Less => true,
        std::cmp::Ordering::Greater => false,
        std::cmp::Ordering::Equal => a != b && rng.below((a + b) as usize) as u64 >= a,
    }
}

/// Two different ones at random, the better one first; then whoever has room.
fn of_two(
    ready: &[Arc<Backend>],
    rng: &mut Rng,
    avoid: Option<u64>,
    second_is_better: impl FnOnce(&Backend, &Backend, &mut Rng) -> bool,
) -> Option<Permit> {
    let first = rng.below(ready.len());
    let second = (first + 1 + rng.below(ready.len() - 1)) % ready.len();
    let (first, second) = (&ready[first], &ready[second]);
    let (better, worse) = match second_is_better(first, second, rng) {
        true => (second, first),
        false => (first, second),
    };
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
        super::pick(ready, balance, wish, rng, &Turns::default())
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
        let (turn, mut rng) = (Turns::default(), Rng::new(1));
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

    fn weighted(weights: &[u32]) -> Vec<Arc<Backend>> {
        let all = backends(weights.len() as u64);
        all.iter().zip(weights).for_each(|(backend, weight)| backend.set_weight(*weight));
        all
    }

    fn shares(balance: &Balance, all: &[Arc<Backend>], requests: usize) -> Vec<usize> {
        let (turns, mut rng, mut counts) = (Turns::default(), Rng::new(5), vec![0; all.len()]);
        for key in 0..requests as u64 {
            let wish = Wish { key: Some(key), ..Wish::default() };
            counts[serial(super::pick(all, balance, wish, &mut rng, &turns)) as usize] += 1;
        }
        counts
    }

    #[test]
    fn weighted_turns_are_smooth() {
        let (all, turns, mut rng) = (weighted(&[5, 1, 1]), Turns::default(), Rng::new(1));
        let order: Vec<u64> = (0..14)
            .map(|_| serial(super::pick(&all, &Balance::RoundRobin, Wish::default(), &mut rng, &turns)))
            .collect();
        assert_eq!(order, [0, 0, 1, 0, 2, 0, 0].repeat(2));
    }

    #[test]
    fn weighted_turns_pass_over_the_full_and_owe_it_two_rounds_at_most() {
        let all = [test_backend(0, Some(1)), test_backend(1, None)];
        all[0].set_weight(3);
        let held = all[0].try_take();
        assert_eq!(shares(&Balance::RoundRobin, &all, 100), [0, 100]);
        drop(held);
        let counts = shares(&Balance::RoundRobin, &all, 40);
        assert!((30..=34).contains(&counts[0]), "{counts:?}");
    }

    #[test]
    fn idle_backends_are_chosen_as_often_as_their_weights_say() {
        for balance in [Balance::TwoChoices, Balance::LeastRequests] {
            let counts = shares(&balance, &weighted(&[1, 3]), 4000);
            assert!((900..1100).contains(&counts[0]), "{balance:?}: {counts:?}");
        }
        let counts = shares(&Balance::Hash(HashBy::Client), &weighted(&[1, 3]), 4000);
        assert!((900..1100).contains(&counts[0]), "{counts:?}");
    }

    #[test]
    fn busy_backends_hold_as_many_requests_as_their_weights_say() {
        for balance in [Balance::TwoChoices, Balance::LeastRequests] {
            let (all, mut rng) = (weighted(&[1, 3]), Rng::new(2));
            let _held: Vec<_> = (0..400).map(|_| by(&balance, &all, Wish::default(), &mut rng)).collect();
            assert!(all[0].in_flight().abs_diff(100) < 5, "{balance:?}: {all:?}");
        }
    }

    #[test]
    fn another_weight_moves_keys_to_its_backend_or_from_it_only() {
        let before = weighted(&[1, 1, 1, 1]);
        let after = weighted(&[1, 1, 2, 1]);
        let moved: Vec<(u64, u64)> = (0..1000)
            .map(|key| (owner(&before, key), owner(&after, key)))
            .filter(|(old, new)| old != new)
            .collect();
        assert!(!moved.is_empty() && moved.iter().all(|(_, new)| *new == 2), "{moved:?}");
    }

    #[test]
    fn a_cold_clone_gets_a_smaller_share_and_keeps_its_keys() {
        let all = weighted(&[1, 1]);
        let keys: Vec<u64> = (0..100).map(|key| owner(&all, key)).collect();
        all[0].set_warmth(0.25);
        let counts = shares(&Balance::TwoChoices, &all, 5000);
        assert!((900..1100).contains(&counts[0]), "{counts:?}");
        assert_eq!(keys, (0..100).map(|key| owner(&all, key)).collect::<Vec<_>>());
    }

    #[test]
    fn the_one_that_answers_sooner_is_preferred_until_it_is_busier() {
        let (all, mut rng, now) = (backends(2), Rng::new(1), Instant::now());
        all[0].rtt().note(Duration::from_millis(10), now);
        all[1].rtt().note(Duration::from_millis(40), now);
        let held: Vec<_> = (0..10).map(|_| by(&Balance::PeakEwma, &all, Wish::default(), &mut rng)).collect();
        assert_eq!((all[0].in_flight(), all[1].in_flight()), (8, 2), "{}", held.len());
    }

    #[test]
    fn who_sticks_to_a_backend_gets_it_unless_it_failed_or_is_full() {
        let all = [test_backend(0, None), test_backend(1, Some(1)), test_backend(2, None)];
        let mut rng = Rng::new(1);
        let wish = Wish { prefer: Some(1), ..Wish::default() };
        let avoiding = by(&Balance::TwoChoices, &all, Wish { avoid: Some(1), ..wish }, &mut rng);
        assert_ne!(serial(avoiding), 1);
        let first = by(&Balance::TwoChoices, &all, wish, &mut rng).unwrap();
        assert_eq!(first.backend().serial(), 1);
        assert_ne!(serial(by(&Balance::TwoChoices, &all, wish, &mut rng)), 1);
    }
}
