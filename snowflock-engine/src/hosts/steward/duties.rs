//! What follows from wishes: orders for the Engine, each once.

use std::time::Duration;

use super::{HostState, LifeState, LocalCheckpoint, LocalTicket, Order, Outcome, Output, Steward};
use crate::hosts::ids::{CheckpointId, TicketId};
use crate::hosts::message::{
    CheckpointReport, CheckpointState, CloneGoal, CloneWish, Made, ShareState, TicketReport, TicketWish,
};
use crate::hosts::parcel::Assembly;
use crate::network::identity::CloneId;

/// A ticket's share, and what ends each state.
#[derive(Debug)]
pub(super) enum Share {
    /// The Engine is being asked. Ends with its word; `unwanted`: and is given back at once.
    Asked { unwanted: bool },
    /// Nothing is promised. Ends when it is wished no more.
    Refused(String),
    /// Ends when the clones are to be made, or are wished no more.
    Promised(LocalTicket, Vec<CloneId>),
    /// Ends with the Engine's word.
    Creating(LocalTicket, Vec<CloneId>),
    /// Ends when it is wished no more.
    Created(LocalTicket, Made),
    /// Ends with the Engine's word.
    Ending,
}

/// A checkpoint of the parent, or a copy of another host's.
#[derive(Debug)]
pub(super) enum Frozen {
    /// A copy. Ends with the last piece of its parcel.
    Wanted(Assembly),
    /// A copy. Ends with the Engine's word.
    Coming,
    /// Ends with the Engine's word.
    Taking,
    Taken(LocalCheckpoint),
    Failed(String),
}

impl Steward {
    /// Takes over what the Engine shows.
    pub(super) fn shows(&mut self, host: HostState) {
        for frozen in self.checkpoints.values_mut() {
            if let Frozen::Taken(local) = frozen
                && !host.checkpoints.contains(local)
            {
                *frozen = Frozen::Failed("a newer checkpoint has replaced it".into());
            }
        }
        let lives = |id: &CloneId| host.clones.iter().any(|c| c.clone == *id && c.state.is_alive());
        self.advanced.retain(|id, _| lives(id));
        self.host = host;
    }

    /// Takes over what came of an order.
    pub(super) fn done(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Ticket(ticket, answer) => self.ticket_answered(ticket, answer),
            Outcome::Checkpoint(checkpoint, answer) => {
                let frozen = match answer {
                    Ok(local) => Frozen::Taken(local),
                    Err(why) => Frozen::Failed(why),
                };
                if let Some(taking) = self.checkpoints.get_mut(&checkpoint) {
                    *taking = frozen;
                }
            }
            Outcome::Exported(checkpoint, answer) => self.exported(checkpoint, answer),
            Outcome::Imported(checkpoint, from, answer) => self.imported((checkpoint, from), answer),
            Outcome::Created(ticket, answer) => {
                let Some(share) = self.tickets.get_mut(&ticket) else { return };
                if let Share::Creating(local, clones) = share {
                    let none = |why: String| clones.iter().map(|id| (*id, why.clone())).collect();
                    let made = answer.unwrap_or_else(|why| Made { joined: Vec::new(), failed: none(why) });
                    *share = Share::Created(*local, made);
                }
            }
            Outcome::Killed(ticket) => drop(self.tickets.remove(&ticket)),
            Outcome::UsesIds => drop(self.ids_coming.pop_front()),
        }
    }

    fn ticket_answered(&mut self, ticket: TicketId, answer: Result<(LocalTicket, Vec<CloneId>), String>) {
        let Some(Share::Asked { unwanted }) = self.tickets.get(&ticket) else { return };
        let next = match (answer, unwanted) {
            (Ok((local, clones)), false) => Share::Promised(local, clones),
            (Ok((local, _)), true) => {
                self.order(Order::Kill(ticket, local));
                Share::Ending
            }
            (Err(why), false) => Share::Refused(why),
            (Err(_), true) => {
                self.tickets.remove(&ticket);
                return;
            }
        };
        self.tickets.insert(ticket, next);
    }

    /// Orders what is wished and not ordered yet.
    pub(super) fn do_duties(&mut self, now: Duration) {
        if self.fenced {
            let all: Vec<TicketId> = self.tickets.keys().copied().collect();
            all.into_iter().for_each(|ticket| self.end(ticket));
            return;
        }
        let Some(wishes) = self.wishes.clone() else { return };
        if self.ids != wishes.ids {
            let new = wishes.ids.iter().filter(|range| !self.ids.contains(range));
            self.ids_coming.push_back(new.map(|range| range.count).sum());
            self.ids.clone_from(&wishes.ids);
            self.order(Order::UseIds(wishes.ids));
        }
        self.copy_checkpoints(&wishes.copies);
        let copies = &self.copies;
        self.checkpoints.retain(|id, _| wishes.checkpoints.contains(id) || copies.contains_key(id));
        for checkpoint in wishes.checkpoints {
            self.take_checkpoint(checkpoint);
        }
        self.tell_parcels(now, &wishes.parcels);
        self.hold_checkpoints(&wishes.held);
        let wished = |id: &TicketId| wishes.tickets.iter().any(|wish| wish.ticket == *id);
        let unwished: Vec<TicketId> = self.tickets.keys().filter(|id| !wished(id)).copied().collect();
        unwished.into_iter().for_each(|ticket| self.end(ticket));
        wishes.tickets.iter().for_each(|wish| self.grant(wish));
        wishes.clones.iter().for_each(|wish| self.advance(wish));
    }

    pub(super) fn order(&mut self, order: Order) {
        self.outputs.push_back(Output::Order(order));
    }

    fn take_checkpoint(&mut self, checkpoint: CheckpointId) {
        if let std::collections::btree_map::Entry::Vacant(entry) = self.checkpoints.entry(checkpoint) {
            entry.insert(Frozen::Taking);
            self.order(Order::Checkpoint(checkpoint));
        }
    }

    fn grant(&mut self, wish: &TicketWish) {
        let ticket = wish.ticket;
        match (self.tickets.get(&ticket), wish.create_from) {
            (None, _) => {
                self.tickets.insert(ticket, Share::Asked { unwanted: false });
                self.order(Order::Ticket(ticket, wish.clones));
            }
            (Some(Share::Promised(local, clones)), Some(from)) => {
                let (local, clones) = (*local, clones.clone());
                match self.checkpoints.get(&from) {
                    Some(Frozen::Taken(checkpoint)) => {
                        let create = Order::Create(ticket, local, *checkpoint);
                        self.tickets.insert(ticket, Share::Creating(local, clones));
                        self.order(create);
                    }
                    Some(Frozen::Taking | Frozen::Wanted(_) | Frozen::Coming) => {}
                    frozen @ (Some(Frozen::Failed(_)) | None) => {
                        let why = match frozen {
                            Some(Frozen::Failed(why)) => format!("{from} is not on this host: {why}"),
                            _ => format!("{from} is not on this host any more"),
                        };
                        let failed = clones.into_iter().map(|id| (id, why.clone())).collect();
                        let made = Made { joined: Vec::new(), failed };
                        self.tickets.insert(ticket, Share::Created(local, made));
                    }
                }
            }
            _ => {}
        }
    }

    fn end(&mut self, ticket: TicketId) {
        let Some(share) = self.tickets.get_mut(&ticket) else { return };
        match share {
            Share::Asked { unwanted } => *unwanted = true,
            Share::Refused(_) => drop(self.tickets.remove(&ticket)),
            Share::Promised(local, _) | Share::Creating(local, _) | Share::Created(local, _) => {
                let kill = Order::Kill(ticket, *local);
                *share = Share::Ending;
                self.order(kill);
            }
            Share::Ending => {}
        }
    }

    fn advance(&mut self, wish: &CloneWish) {
        let clone = self.host.clones.iter().find(|clone| clone.clone == wish.clone);
        let Some(state) = clone.map(|clone| &clone.state).filter(|state| state.is_alive()) else { return };
        // Only one that has joined can answer.
        let too_early = matches!(wish.goal, CloneGoal::Ready { .. })
            && state.is_starting()
            && *state != LifeState::Joined;
        if too_early || self.advanced.get(&wish.clone) >= Some(&wish.goal) {
            return;
        }
        self.advanced.insert(wish.clone, wish.goal);
        self.order(Order::Advance(wish.clone()));
    }

    pub(super) fn checkpoint_reports(&self) -> Vec<CheckpointReport> {
        let report = |(id, frozen): (&CheckpointId, &Frozen)| CheckpointReport {
            checkpoint: *id,
            state: match frozen {
                Frozen::Wanted(_) => CheckpointState::Wanted,
                Frozen::Taking | Frozen::Coming => CheckpointState::Taking,
                Frozen::Taken(_) => CheckpointState::Taken,
                Frozen::Failed(why) => CheckpointState::Failed(why.clone()),
            },
        };
        self.checkpoints.iter().map(report).collect()
    }

    pub(super) fn ticket_reports(&self) -> Vec<TicketReport> {
        let report = |(id, share): (&TicketId, &Share)| TicketReport {
            ticket: *id,
            state: match share {
                Share::Asked { .. } => ShareState::Asked,
                Share::Refused(why) => ShareState::Refused(why.clone()),
                Share::Promised(_, clones) => ShareState::Promised(clones.clone()),
                Share::Creating(_, clones) => ShareState::Creating(clones.clone()),
                Share::Created(_, made) => ShareState::Created(made.clone()),
                Share::Ending => ShareState::Ending,
            },
        };
        self.tickets.iter().map(report).collect()
    }
}
