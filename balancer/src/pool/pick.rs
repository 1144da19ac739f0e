//! Which backend gets the next request: the power of two choices.
//!
//! Two different ready backends at random, the one with fewer requests in flight
//! wins. Not for affinity or weights.

use std::sync::Arc;

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

/// Takes a place at one of `ready`. `avoid` (a serial) is used only if nothing else is free.
pub(super) fn pick(ready: &[Arc<Backend>], rng: &mut Rng, avoid: Option<u64>) -> Option<Permit> {
    match ready {
        [] => None,
        [only] => only.try_take(),
        _ => pick_of_many(ready, rng, avoid),
    }
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
        .or_else(|| ready.iter().filter(wanted).find_map(Backend::try_take))
        .or_else(|| ready.iter().find(|backend| !wanted(backend)).and_then(Backend::try_take))
}

#[cfg(test)]
mod tests {
    use super::*;
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
}
