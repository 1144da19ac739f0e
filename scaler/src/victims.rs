//! Who leaves when a tier shrinks.

use std::cmp::Reverse;
use std::time::Duration;

/// A backend as the choice of victims sees it.
#[derive(Debug, Clone, PartialEq)]
pub struct BackendView<Id> {
    /// The caller's name for it; the last tie break.
    pub id: Id,
    /// What it is doing.
    pub phase: Phase,
    /// The parent and fixed backends stay whatever happens.
    pub stays: bool,
    /// Requests being served.
    pub in_flight: u64,
    /// Memory that goes with it, in pages: those that no sibling shares. 0 if not known.
    pub private_pages: u64,
    /// When it joined, since the caller's start.
    pub joined: Duration,
}

/// What a backend is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// On its way.
    Starting,
    /// Takes new requests.
    Ready,
    /// Alive but ejected or not yet probed; not a victim: its end frees no capacity.
    Unready,
    /// Finishes what it has.
    Retiring,
}

/// Chooses up to `n` ready backends to retire: fewest requests in flight first, then
/// the least memory of its own (the warmest stay), then the newest, then the greatest id. Never one that stays, and never so many that
/// fewer than `min` (but one at least) are left ready.
pub fn choose_victims<Id: Clone + Ord>(backends: &[BackendView<Id>], n: u32, min: u32) -> Vec<Id> {
    let ready: Vec<_> = backends.iter().filter(|backend| backend.phase == Phase::Ready).collect();
    let spare = ready.len().saturating_sub(min.max(1) as usize);
    let mut candidates: Vec<_> = ready.into_iter().filter(|backend| !backend.stays).collect();
    let order = |backend: &&BackendView<Id>| {
        (backend.in_flight, backend.private_pages, Reverse(backend.joined), Reverse(backend.id.clone()))
    };
    let leaving = spare.min(n as usize).min(candidates.len());
    if leaving < candidates.len() {
        // Only those who leave are put in order: a large tier may shrink by a few.
        candidates.select_nth_unstable_by_key(leaving, order);
        candidates.truncate(leaving);
    }
    candidates.sort_by_key(order);
    candidates.into_iter().map(|backend| backend.id.clone()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clone(id: u32, in_flight: u64, joined: u64) -> BackendView<u32> {
        let joined = Duration::from_secs(joined);
        BackendView { id, phase: Phase::Ready, stays: false, in_flight, private_pages: 0, joined }
    }

    fn parent() -> BackendView<u32> {
        BackendView { stays: true, ..clone(0, 0, 0) }
    }

    #[test]
    fn the_least_busy_leave_first_then_the_newest() {
        let pool = [parent(), clone(1, 5, 10), clone(2, 0, 20), clone(3, 0, 30), clone(4, 0, 30)];
        assert_eq!(choose_victims(&pool, 1, 1), [4]);
        assert_eq!(choose_victims(&pool, 4, 1), [4, 3, 2, 1]);
    }

    #[test]
    fn of_those_as_busy_the_one_with_the_least_memory_of_its_own_leaves() {
        let of = |id, in_flight, private_pages| BackendView { private_pages, ..clone(id, in_flight, 1) };
        let pool = [parent(), of(1, 0, 900), of(2, 0, 30), of(3, 1, 1)];
        assert_eq!(choose_victims(&pool, 2, 1), [2, 1]);
    }

    #[test]
    fn the_parent_never_leaves() {
        assert_eq!(choose_victims(&[parent(), clone(1, 9, 1)], 9, 1), [1]);
        assert!(choose_victims(&[parent()], 1, 1).is_empty());
    }

    #[test]
    fn no_fewer_than_min_are_left_ready() {
        let pool = [parent(), clone(1, 0, 1), clone(2, 0, 2)];
        assert_eq!(choose_victims(&pool, 2, 2), [2]);
        assert!(choose_victims(&pool, 2, 3).is_empty());
        assert!(choose_victims(&pool, 0, 1).is_empty());
    }

    #[test]
    fn the_last_ready_backend_never_leaves_even_with_a_min_of_zero() {
        let ejected_parent = BackendView { phase: Phase::Unready, ..parent() };
        assert!(choose_victims(&[ejected_parent, clone(1, 0, 1)], 1, 0).is_empty());
    }

    #[test]
    fn only_ready_backends_are_victims() {
        let pool = [
            parent(),
            BackendView { phase: Phase::Starting, ..clone(1, 0, 1) },
            BackendView { phase: Phase::Retiring, ..clone(2, 0, 2) },
            BackendView { phase: Phase::Unready, ..clone(3, 0, 3) },
            clone(4, 7, 0),
        ];
        assert_eq!(choose_victims(&pool, 5, 1), [4]);
    }
}
