//! An Engine that is only numbers: what SFLD sees of one, with shells and births that fail at times.

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;
use std::sync::Arc;

use super::random::Random;
use crate::control::{LifeState, TicketId as LocalTicket};
use crate::hosts::ids::{CheckpointId, IdRange};
use crate::hosts::message::{CloneGoal, CloneReport, CloneWish, Made, Room};
use crate::hosts::steward::{HostState, Order, Outcome};
use crate::memory::protocol::CheckpointId as LocalCheckpoint;
use crate::network::identity::CloneId;

/// What other hosts are told of a checkpoint.
fn parcel(checkpoint: CheckpointId) -> Vec<u8> {
    checkpoint.0.to_be_bytes().to_vec()
}

/// The dead are remembered, up to so many.
const REMEMBERED: usize = 4;

pub(super) struct FakeEngine {
    limit: u32,
    parent: bool,
    ids: Vec<IdRange>,
    used: BTreeSet<CloneId>,
    tickets: BTreeMap<LocalTicket, Vec<CloneId>>,
    last_ticket: u32,
    last_checkpoint: u32,
    checkpoints: BTreeSet<LocalCheckpoint>,
    clones: BTreeMap<CloneId, LifeState>,
}

impl FakeEngine {
    pub(super) fn new(limit: u32, parent: bool) -> Self {
        Self {
            limit,
            parent,
            ids: Vec::new(),
            used: BTreeSet::new(),
            tickets: BTreeMap::new(),
            last_ticket: 0,
            last_checkpoint: 0,
            checkpoints: BTreeSet::new(),
            clones: BTreeMap::new(),
        }
    }

    pub(super) fn alive(&self) -> impl Iterator<Item = CloneId> {
        self.clones.iter().filter(|(_, state)| state.is_alive()).map(|(id, _)| *id)
    }

    pub(super) fn shows(&self) -> HostState {
        let free = self.limit - self.alive().count() as u32;
        let ids = self.ids.iter().map(|range| range.count).sum::<u32>() - self.used.len() as u32;
        let report = |(id, state): (&CloneId, &LifeState)| CloneReport {
            clone: *id,
            state: state.clone(),
            ipv4: Ipv4Addr::from(0x0A00_0000 + id.0),
        };
        HostState {
            room: Room { limit: self.limit, free, ids },
            parent: self.parent.then_some(LifeState::Joined),
            shares: true,
            checkpoints: self.checkpoints.clone(),
            clones: self.clones.iter().map(report).collect(),
        }
    }

    pub(super) fn obey(&mut self, random: &mut Random, order: &Order) -> Option<Outcome> {
        let outcome = match order {
            Order::UseIds(ids) => {
                self.ids.clone_from(ids);
                Some(Outcome::UsesIds)
            }
            Order::Ticket(ticket, wanted) => Some(Outcome::Ticket(*ticket, self.grant(random, *wanted))),
            Order::Checkpoint(checkpoint) => Some(Outcome::Checkpoint(*checkpoint, self.freeze(random))),
            Order::Export(checkpoint, local) => {
                let known = self.checkpoints.contains(local);
                let parcel = known.then(|| Arc::new(parcel(*checkpoint))).ok_or("it has ended".to_owned());
                Some(Outcome::Exported(*checkpoint, parcel))
            }
            Order::Import(checkpoint, from, bytes) => {
                assert_eq!(**bytes, parcel(*checkpoint), "a parcel has changed on its way");
                assert!(!self.parent, "a host with a parent of its own copies nothing");
                Some(Outcome::Imported(*checkpoint, *from, self.freeze(random)))
            }
            Order::Hold(_) => None,
            Order::Release(local) => {
                self.checkpoints.remove(local);
                None
            }
            Order::Create(ticket, local, from) => {
                Some(Outcome::Created(*ticket, self.create(random, *local, *from)))
            }
            Order::Kill(ticket, local) => {
                for id in self.tickets.remove(local).into_iter().flatten() {
                    self.step(id, LifeState::Gone);
                }
                Some(Outcome::Killed(*ticket))
            }
            Order::Advance(wish) => {
                self.advance(wish);
                None
            }
        };
        self.forget();
        outcome
    }

    /// One of its clones ends by itself.
    pub(super) fn accident(&mut self, random: &mut Random) {
        let alive: Vec<CloneId> = self.alive().collect();
        if let Some(id) = alive.get(random.below(alive.len() as u64) as usize) {
            self.step(*id, LifeState::Failed("an accident".into()));
            self.forget();
        }
    }

    fn grant(&mut self, random: &mut Random, wanted: u32) -> Result<(LocalTicket, Vec<CloneId>), String> {
        let free = self.limit - self.alive().count() as u32;
        let unused = self.ids.iter().flat_map(|range| range.first..range.first + range.count).map(CloneId);
        let unused: Vec<CloneId> =
            unused.filter(|id| !self.used.contains(id)).take(wanted.min(free) as usize).collect();
        if unused.is_empty() || random.chance(50) {
            return Err("no room".into());
        }
        self.used.extend(&unused);
        self.clones.extend(unused.iter().map(|id| (*id, LifeState::Promised)));
        self.last_ticket += 1;
        let ticket = LocalTicket(self.last_ticket);
        self.tickets.insert(ticket, unused.clone());
        Ok((ticket, unused))
    }

    fn freeze(&mut self, random: &mut Random) -> Result<LocalCheckpoint, String> {
        if random.chance(50) {
            return Err("another fork is under way".into());
        }
        self.last_checkpoint += 1;
        let checkpoint = LocalCheckpoint(self.last_checkpoint);
        self.checkpoints.insert(checkpoint);
        if self.checkpoints.len() > 3 {
            self.checkpoints.pop_first();
        }
        Ok(checkpoint)
    }

    fn create(
        &mut self,
        random: &mut Random,
        ticket: LocalTicket,
        from: LocalCheckpoint,
    ) -> Result<Made, String> {
        if !self.checkpoints.contains(&from) {
            return Err("no such checkpoint".into());
        }
        let mut made = Made::default();
        for id in self.tickets.get(&ticket).cloned().ok_or("no such ticket")? {
            if self.clones.get(&id).is_some_and(LifeState::is_alive) && !random.chance(100) {
                self.step(id, LifeState::Joined);
                made.joined.push(id);
            } else {
                self.step(id, LifeState::Failed("not born".into()));
                made.failed.push((id, "not born".into()));
            }
        }
        Ok(made)
    }

    fn advance(&mut self, wish: &CloneWish) {
        match wish.goal {
            CloneGoal::Ready { .. } => self.step(wish.clone, LifeState::Ready),
            CloneGoal::Retiring => self.step(wish.clone, LifeState::Retiring),
            CloneGoal::Gone => self.step(wish.clone, LifeState::Gone),
        }
    }

    fn step(&mut self, id: CloneId, next: LifeState) {
        if let Some(state) = self.clones.get_mut(&id)
            && state.may_become(&next)
        {
            *state = next;
        }
    }

    fn forget(&mut self) {
        let dead: Vec<CloneId> =
            self.clones.iter().filter(|(_, state)| !state.is_alive()).map(|(id, _)| *id).collect();
        for id in &dead[..dead.len().saturating_sub(REMEMBERED)] {
            self.clones.remove(id);
        }
    }
}
