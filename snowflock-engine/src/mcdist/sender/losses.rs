//! Who lost what, and what helps the most at the least cost.
//!
//! Losses of a group are collected for one interval of reports, so that every
//! receiver has told its own; then they are made good together.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use crate::mcdist::geometry::{Group, Place};

/// What one receiver lost of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Loss {
    /// Pages.
    pub(super) pages: u128,
    /// Repairs that it holds or that are on their way to it.
    pub(super) repaired: u32,
    /// The report that told it.
    pub(super) report: u32,
    /// The highest multicast counter it had seen.
    pub(super) high: u64,
}

/// What is done about the losses of a group.
#[derive(Debug, PartialEq, Eq, Default)]
pub(super) struct Plan {
    /// Pages that are sent to all again.
    pub(super) again: u128,
    /// New repairs for all.
    pub(super) repairs: u32,
    /// Pages for one receiver alone.
    pub(super) alone: Option<(usize, u128)>,
}

/// Pages of a group that can be repaired, or must be sent themselves.
pub(super) type Key = (Group, bool);

/// Losses that wait to be made good.
#[derive(Debug, Default)]
pub(super) struct Losses {
    open: HashMap<Key, HashMap<usize, Loss>>,
    due: VecDeque<(Duration, Key)>,
}

impl Losses {
    pub(super) fn add(&mut self, due: Duration, key: Key, receiver: usize, loss: Loss) {
        let due_queue = &mut self.due;
        let wants = self.open.entry(key).or_insert_with(|| {
            due_queue.push_back((due, key));
            HashMap::new()
        });
        wants.insert(receiver, loss);
    }

    /// When the next ones are due.
    pub(super) fn next(&self) -> Option<Duration> {
        self.due.front().map(|(due, _)| *due)
    }

    pub(super) fn take(&mut self, now: Duration) -> Option<(Key, HashMap<usize, Loss>)> {
        let (_, key) = self.due.front().copied().filter(|(due, _)| *due <= now)?;
        self.due.pop_front();
        Some((key, self.open.remove(&key).unwrap_or_default()))
    }
}

/// Decides. `can_repair`: the group has gone out whole, and has so many repairs left.
pub(super) fn plan(losses: &[(usize, Loss)], can_repair: u32) -> Plan {
    let need = |loss: &Loss| loss.pages.count_ones().saturating_sub(loss.repaired);
    let mut needy: Vec<_> = losses.iter().map(|(who, loss)| (need(loss), *who, loss.pages)).collect();
    needy.retain(|(need, ..)| *need > 0);
    needy.sort_unstable_by(|a, b| b.cmp(a));
    let Some((worst, who, pages)) = needy.first().copied() else { return Plan::default() };
    let second = needy.get(1).map_or(0, |(need, ..)| *need);
    if second == 0 {
        return Plan { alone: Some((who, first_of(pages, worst))), ..Plan::default() };
    }
    let lost_by_any = needy.iter().fold(0, |all, (_, _, pages)| all | pages);
    if lost_by_any.count_ones() <= worst || second > can_repair {
        return Plan { again: lost_by_any, ..Plan::default() };
    }
    let rest = first_of(pages, worst - second);
    Plan { again: 0, repairs: second, alone: (rest != 0).then_some((who, rest)) }
}

/// The lowest `count` pages of a mask.
pub(super) fn first_of(mask: u128, count: u32) -> u128 {
    Group(0).places(mask).take(count as usize).map(Place::bit).fold(0, |all, bit| all | bit)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loss(pages: u128, repaired: u32) -> Loss {
        Loss { pages, repaired, report: 1, high: 0 }
    }

    #[test]
    fn different_losses_of_many_are_made_good_by_the_same_repairs() {
        let losses = [(4, loss(0b1, 0)), (5, loss(0b10, 0)), (6, loss(0b100, 0))];
        assert_eq!(plan(&losses, 128), Plan { repairs: 1, ..Plan::default() });
    }

    #[test]
    fn the_same_loss_of_many_is_sent_again() {
        let losses = [(4, loss(0b11, 0)), (5, loss(0b11, 0))];
        assert_eq!(plan(&losses, 128), Plan { again: 0b11, ..Plan::default() });
    }

    #[test]
    fn the_loss_of_one_is_its_own_affair() {
        assert_eq!(
            plan(&[(4, loss(0b110, 0)), (5, loss(1, 1))], 128),
            Plan { alone: Some((4, 0b110)), ..Plan::default() }
        );
        let worst = [(4, loss(0b1111, 0)), (5, loss(0b1_0000, 0))];
        assert_eq!(plan(&worst, 128), Plan { again: 0, repairs: 1, alone: Some((4, 0b111)) });
    }

    #[test]
    fn what_cannot_be_repaired_is_sent_again() {
        assert_eq!(plan(&[(4, loss(1, 0)), (5, loss(2, 0))], 0), Plan { again: 3, ..Plan::default() });
        assert_eq!(plan(&[(4, loss(1, 1))], 0), Plan::default(), "enough is on its way");
    }

    #[test]
    fn losses_wait_until_they_are_due_and_a_newer_report_replaces_an_older_one() {
        let (mut losses, key) = (Losses::default(), (Group(3), true));
        losses.add(Duration::from_millis(10), key, 1, loss(1, 0));
        losses.add(Duration::from_millis(20), key, 1, loss(2, 0));
        assert_eq!(
            (losses.next(), losses.take(Duration::from_millis(9))),
            (Some(Duration::from_millis(10)), None)
        );
        assert_eq!(losses.take(Duration::from_millis(10)), Some((key, HashMap::from([(1, loss(2, 0))]))));
        assert_eq!(losses.next(), None);
    }
}
