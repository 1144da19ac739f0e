//! The records behind the owner: VMs, tickets, shells, and what waits for them.
//! No I/O and no threads here, so its rules are tested without any.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Range;

use super::lifecycle::LifeState;
use super::ticket::{Refusal, Room, Ticket, TicketId, grant};
use crate::network::identity::CloneId;

/// Clone IDs: which are promised, to whom, and which shells must be started for them.
///
/// A shell is born with the clone ID that it will have, since network identity
/// follows from it and is set up ahead of the fork.
#[derive(Debug, Default)]
pub(super) struct Registry {
    last_clone: u32,
    /// The IDs to use, ascending; `None` for all.
    leased: Option<Vec<Range<u32>>>,
    last_ticket: u32,
    /// Shells that wait, not promised to anyone, oldest first.
    idle: VecDeque<CloneId>,
    /// Shells to be started, in this order. The first may be starting.
    to_start: VecDeque<CloneId>,
    /// Granted and not used up.
    open: BTreeMap<TicketId, Vec<CloneId>>,
    /// Started shells that are promised.
    promised: BTreeSet<CloneId>,
}

impl Registry {
    /// Grants a ticket as far as there is room: idle shells first, new IDs for the rest.
    pub(super) fn request(&mut self, wanted: u32, room: Room) -> Result<Ticket, Refusal> {
        let granted = grant(wanted, room)?;
        let mut clones = Vec::new();
        for _ in 0..granted {
            let idle = self.idle.pop_front();
            self.promised.extend(idle);
            let Some(id) = idle.or_else(|| self.enqueue()) else { break };
            clones.push(id);
        }
        if clones.is_empty() {
            return Err(Refusal::NoIds);
        }
        self.last_ticket += 1;
        let id = TicketId(self.last_ticket);
        self.open.insert(id, clones.clone());
        Ok(Ticket { id, clones })
    }

    /// Uses a ticket up, or gives it back.
    pub(super) fn redeem(&mut self, ticket: TicketId) -> Option<Vec<CloneId>> {
        self.open.remove(&ticket)
    }

    /// A promised clone is not made after all: its shell may serve another.
    pub(super) fn give_back(&mut self, id: CloneId) {
        if self.promised.remove(&id) && self.is_ours(id) {
            self.idle.push_back(id);
        }
    }

    /// Whether a shell with this ID may wait for a ticket that is still to come.
    pub(super) fn is_ours(&self, id: CloneId) -> bool {
        self.leased.as_ref().is_none_or(|leased| leased.iter().any(|range| range.contains(&id.0)))
    }

    /// Orders shells until so many wait or are coming.
    pub(super) fn keep_waiting(&mut self, shells: u32) {
        let promised_later: BTreeSet<CloneId> = self.open.values().flatten().copied().collect();
        let coming = self.to_start.iter().filter(|id| !promised_later.contains(id)).count();
        for _ in (self.idle.len() + coming)..shells as usize {
            self.enqueue();
        }
    }

    /// From now on only these IDs are used for further clones, those that were used before never again.
    /// Returns shells that wait with others: nobody may be promised them, and they are to be ended.
    pub(super) fn use_ids(&mut self, ids: Vec<Range<u32>>) -> Vec<CloneId> {
        self.leased = Some(ids);
        let promised: BTreeSet<CloneId> = self.open.values().flatten().copied().collect();
        let idle = std::mem::take(&mut self.idle);
        let (kept, orphans): (VecDeque<_>, VecDeque<_>) = idle.into_iter().partition(|id| self.is_ours(*id));
        self.idle = kept;
        let ordered = std::mem::take(&mut self.to_start);
        self.to_start = ordered.into_iter().filter(|id| promised.contains(id) || self.is_ours(*id)).collect();
        orphans.into()
    }

    /// IDs that are left; `None` for any number.
    pub(super) fn ids_left(&self) -> Option<u32> {
        let unused = |range: &Range<u32>| range.end.saturating_sub(range.start.max(self.last_clone + 1));
        self.leased.as_ref().map(|leased| leased.iter().map(unused).sum())
    }

    /// The shell to be started next.
    pub(super) fn next_to_start(&self) -> Option<CloneId> {
        self.to_start.front().copied()
    }

    /// The start of that shell has ended, well or not.
    pub(super) fn started(&mut self, id: CloneId, well: bool, is_promised: bool) {
        self.to_start.retain(|other| *other != id);
        if well && is_promised {
            self.promised.insert(id);
        } else if well && self.is_ours(id) {
            self.idle.push_back(id);
        }
    }

    /// A waiting shell is gone, or is used.
    pub(super) fn take(&mut self, id: CloneId) {
        self.idle.retain(|other| *other != id);
        self.promised.remove(&id);
    }

    /// Withdraws the order of a shell, or takes one that waits. False if it is `starting`, or in use: there
    /// is nothing to withdraw then.
    pub(super) fn forget(&mut self, id: CloneId, starting: Option<CloneId>) -> bool {
        self.take(id);
        let ordered = starting != Some(id) && self.to_start.contains(&id);
        if ordered {
            self.to_start.retain(|other| *other != id);
        }
        ordered
    }

    /// Whether a ticket that is still open promises this clone.
    pub(super) fn is_promised(&self, id: CloneId) -> bool {
        self.open.values().flatten().any(|other| *other == id)
    }

    /// Orders a shell; `None` if no ID is left for it.
    fn enqueue(&mut self) -> Option<CloneId> {
        let next = self.last_clone + 1;
        let within = |range: &Range<u32>| Some(range.start.max(next)).filter(|id| *id < range.end);
        self.last_clone = match &self.leased {
            None => Some(next).filter(|id| *id <= CloneId::LAST.0)?,
            Some(leased) => leased.iter().find_map(within)?,
        };
        let id = CloneId(self.last_clone);
        self.to_start.push_back(id);
        Some(id)
    }
}

/// How many states of living clones count against the limit.
pub(super) fn held<'a>(states: impl Iterator<Item = &'a LifeState>) -> u32 {
    states.filter(|state| state.is_alive()).count() as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: Room = Room { limit: 10, held: 0, available_mib: 1 << 20, needed_mib: 1 };

    fn with_idle(shells: u32) -> Registry {
        let mut registry = Registry::default();
        registry.keep_waiting(shells);
        while let Some(id) = registry.next_to_start() {
            registry.started(id, true, false);
        }
        registry
    }

    #[test]
    fn a_ticket_takes_waiting_shells_first_and_orders_the_rest() {
        let mut registry = with_idle(2);
        let ticket = registry.request(3, ROOM).unwrap();
        assert_eq!(ticket.clones, [CloneId(1), CloneId(2), CloneId(3)]);
        assert_eq!(registry.next_to_start(), Some(CloneId(3)));
        assert!(registry.is_promised(CloneId(3)));
    }

    #[test]
    fn a_ticket_is_used_once() {
        let mut registry = with_idle(1);
        let ticket = registry.request(1, ROOM).unwrap();
        assert_eq!(registry.redeem(ticket.id), Some(vec![CloneId(1)]));
        assert_eq!(registry.redeem(ticket.id), None);
    }

    #[test]
    fn the_shells_of_an_unused_ticket_serve_the_next() {
        let mut registry = with_idle(1);
        let first = registry.request(1, ROOM).unwrap();
        for id in registry.redeem(first.id).unwrap() {
            registry.give_back(id);
        }
        assert_eq!(registry.request(1, ROOM).unwrap().clones, first.clones);
    }

    #[test]
    fn shells_are_ordered_anew_when_some_are_taken_or_fail_to_start() {
        let mut registry = with_idle(2);
        registry.request(2, ROOM).unwrap();
        registry.keep_waiting(2);
        assert_eq!(registry.next_to_start(), Some(CloneId(3)));
        registry.started(CloneId(3), false, false);
        registry.started(CloneId(4), true, false);
        registry.keep_waiting(2);
        assert_eq!(registry.next_to_start(), Some(CloneId(5)));
    }

    #[test]
    fn an_order_is_withdrawn_unless_its_shell_is_starting() {
        let mut registry = Registry::default();
        registry.request(2, ROOM).unwrap();
        let starting = registry.next_to_start();
        assert!(!registry.forget(CloneId(1), starting));
        assert!(registry.forget(CloneId(2), starting));
        registry.started(CloneId(1), true, true);
        assert_eq!(registry.next_to_start(), None);
        assert!(!registry.forget(CloneId(1), None), "it has started");
    }

    #[test]
    fn only_leased_ids_are_used_in_order_and_none_twice() {
        let mut registry = Registry::default();
        assert_eq!(registry.ids_left(), None);
        registry.use_ids(vec![5..7, 20..21]);
        registry.keep_waiting(1);
        assert_eq!((registry.next_to_start(), registry.ids_left()), (Some(CloneId(5)), Some(2)));
        registry.started(CloneId(5), true, false);
        let ticket = registry.request(9, ROOM).unwrap();
        assert_eq!(ticket.clones, [CloneId(5), CloneId(6), CloneId(20)]);
        assert_eq!(registry.request(1, ROOM), Err(Refusal::NoIds));
        registry.use_ids(vec![5..7, 20..21, 40..50]);
        assert_eq!(registry.request(1, ROOM).unwrap().clones, [CloneId(40)]);
    }

    #[test]
    fn shells_with_ids_of_a_former_record_serve_nobody() {
        let mut registry = Registry::default();
        assert!(registry.use_ids(vec![1..2, 2..4]).is_empty());
        registry.keep_waiting(2);
        registry.started(CloneId(1), true, false);
        let ticket = registry.request(1, ROOM).unwrap();
        registry.started(CloneId(2), true, false);
        registry.keep_waiting(2);
        assert_eq!(registry.next_to_start(), Some(CloneId(3)));
        assert_eq!(registry.use_ids(vec![10..15, 15..20]), [CloneId(2)]);
        // The one that is starting comes too late.
        registry.started(CloneId(3), true, false);
        assert!(!registry.is_ours(CloneId(3)));
        registry.give_back(ticket.clones[0]);
        assert_eq!(registry.request(1, ROOM).unwrap().clones, [CloneId(10)]);
    }

    #[test]
    fn an_engine_alone_stops_before_the_gateways_address() {
        let mut registry = Registry { last_clone: CloneId::LAST.0 - 1, ..Registry::default() };
        assert_eq!(registry.request(2, ROOM).unwrap().clones, [CloneId::LAST]);
        assert_eq!(registry.request(1, ROOM), Err(Refusal::NoIds));
    }

    #[test]
    fn the_dead_do_not_count_against_the_limit() {
        let states = [LifeState::Ready, LifeState::Gone, LifeState::Failed("x".into()), LifeState::Promised];
        assert_eq!(held(states.iter()), 2);
    }
}
