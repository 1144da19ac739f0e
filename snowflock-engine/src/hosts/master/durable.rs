//! What SFMD must not forget: memberships, tickets with their clones, checkpoints, answers given.
//!
//! It changes by a [`Change`] alone, and each is written to the record (`record.rs`) before anything that
//! follows from it is said. So replaying the record gives the same again.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::control::LifeState;
use crate::hosts::ids::{CheckpointId, Epoch, IdRange, Name, TicketId, Unique};
use crate::hosts::message::{Answer, CloneGoal, Made};
use crate::network::identity::CloneId;

/// Answers to so many requests are remembered, the newest ones.
pub const ANSWERS_KEPT: usize = 4096;
/// Clone IDs in one lease.
pub const IDS_AT_ONCE: u32 = 256;

/// Names a request: who asks, and the request's own name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RequestKey {
    /// The operator.
    pub by: Name,
    /// The request.
    pub id: Unique,
}

/// All that is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Durable {
    /// Names this record.
    pub master: Unique,
    /// Starts of SFMD so far.
    pub starts: u64,
    next_epoch: u64,
    next_ticket: u64,
    next_checkpoint: u64,
    next_clone: u32,
    /// The newest membership of each host.
    pub hosts: BTreeMap<Name, Membership>,
    /// Tickets that have not ended.
    pub tickets: BTreeMap<TicketId, Ticket>,
    /// Checkpoints under way, and those that clones can be made from.
    pub checkpoints: BTreeMap<CheckpointId, Checkpoint>,
    /// Answers given, oldest first.
    pub answers: VecDeque<(RequestKey, Answer)>,
}

/// A membership of a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Membership {
    /// Its number.
    pub epoch: Epoch,
    /// The run of SFLD that has it.
    pub instance: Unique,
    /// The clone IDs leased to it.
    pub ids: Vec<IdRange>,
    /// It was given up.
    pub lost: bool,
}

/// A ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ticket {
    /// The request that asked for it.
    pub key: RequestKey,
    /// Clones asked for.
    pub wanted: u32,
    /// The job of the cluster software that it holds.
    pub job: Option<String>,
    /// How far it is.
    pub stage: Stage,
    /// Its clones, living and dead; none before they are promised.
    pub clones: BTreeMap<CloneId, CloneRecord>,
}

/// How far a ticket is, and what ends each stage.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stage {
    /// Ends with the word of the cluster software.
    Allocating,
    /// Ends when each host has answered, is lost, or is late.
    Placing(BTreeMap<Name, Share>),
    /// Ends when its clones are to be made, or at its kill.
    Granted,
    /// Ends when each host has told what became of its clones, or is lost.
    Creating(CheckpointId, RequestKey),
    /// Ends with its last clone, or at its kill.
    Created(CheckpointId, Made),
    /// Ends when none of these hosts has anything of it.
    Ending(BTreeMap<Name, Epoch>),
}

/// What a host is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Share {
    /// The host's membership.
    pub epoch: Epoch,
    /// Clones asked for.
    pub clones: u32,
}

/// A clone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CloneRecord {
    /// Where it is.
    pub host: Name,
    /// The membership under which it was promised.
    pub epoch: Epoch,
    /// Where it is in its life.
    pub state: LifeState,
    /// Its address, once known.
    pub ipv4: Option<Ipv4Addr>,
    /// What is wished of it.
    pub goal: Option<CloneGoal>,
}

/// A checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Checkpoint {
    /// The request that asked for it.
    pub key: RequestKey,
    /// Hosts that are to take it, or have taken it.
    pub hosts: BTreeMap<Name, Epoch>,
    /// Whether all have answered.
    pub taken: bool,
}

/// A step of what is remembered. What it means for a request is part of it: no crash comes between.
#[expect(missing_docs, reason = "fields are called what they are, as in the structs above")]
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Change {
    /// SFMD has started.
    Started,
    /// A host has a new membership. A former one is over, and its clones with it.
    Admitted { host: Name, instance: Unique, epoch: Epoch, ids: Vec<IdRange> },
    /// A host may use further clone IDs.
    Leased { host: Name, ids: IdRange },
    /// A host was given up, its clones with it.
    Lost { host: Name },
    /// A ticket was asked for.
    Opened { ticket: TicketId, key: RequestKey, wanted: u32 },
    /// The cluster software has a job for it.
    Allocated { ticket: TicketId, job: String },
    /// Hosts are to be asked.
    Placed { ticket: TicketId, shares: BTreeMap<Name, Share> },
    /// Clones are promised. This answers the request for the ticket.
    Granted { ticket: TicketId, clones: BTreeMap<CloneId, Name> },
    /// Clones are to be made.
    Creating { ticket: TicketId, checkpoint: CheckpointId, key: RequestKey },
    /// Each has joined or failed. This answers the request to make them.
    Created { ticket: TicketId, made: Made },
    /// A clone has gone on in its life.
    Moved { ticket: TicketId, clone: CloneId, state: LifeState, ipv4: Option<Ipv4Addr> },
    /// Something is wished of a clone.
    Wished { ticket: TicketId, clone: CloneId, goal: CloneGoal },
    /// A ticket is to be ended. Who still waits for something of it is refused.
    Killed { ticket: TicketId, why: String },
    /// Nothing of a ticket is left.
    Ended { ticket: TicketId },
    /// A checkpoint is to be taken.
    CheckpointWished { checkpoint: CheckpointId, key: RequestKey, hosts: BTreeMap<Name, Epoch> },
    /// These hosts have it, and nobody else will; if none, it is forgotten. The first time this answers.
    CheckpointHeld { checkpoint: CheckpointId, hosts: BTreeSet<Name>, why: String },
    /// A request is refused that nothing else stands for.
    Refused { key: RequestKey, why: String },
}

impl Durable {
    /// The memory of an SFMD that has never run.
    #[must_use]
    pub fn new(master: Unique) -> Self {
        Self {
            master,
            starts: 0,
            next_epoch: 1,
            next_ticket: 1,
            next_checkpoint: 1,
            next_clone: 1,
            hosts: BTreeMap::new(),
            tickets: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            answers: VecDeque::new(),
        }
    }

    /// The names that the next of each kind will have.
    #[must_use]
    pub fn next(&self) -> (Epoch, TicketId, CheckpointId) {
        (Epoch(self.next_epoch), TicketId(self.next_ticket), CheckpointId(self.next_checkpoint))
    }

    /// Clone IDs that nobody has had; `None` if they are used up.
    #[must_use]
    pub fn next_ids(&self) -> Option<IdRange> {
        let left = (CloneId::LAST.0 + 1).saturating_sub(self.next_clone);
        let count = left.min(IDS_AT_ONCE);
        (count > 0).then_some(IdRange { first: self.next_clone, count })
    }

    /// The answer that a request has got.
    #[must_use]
    pub fn answer_to(&self, key: &RequestKey) -> Option<&Answer> {
        self.answers.iter().rev().find(|(other, _)| other == key).map(|(_, answer)| answer)
    }

    /// Whether this is the membership that a host has now.
    #[must_use]
    pub fn holds(&self, host: &Name, epoch: Epoch) -> bool {
        self.hosts.get(host).is_some_and(|m| m.epoch == epoch && !m.lost)
    }

    /// The clone with this ID, if its ticket is not being ended. (A host may promise the ID of a clone that
    /// was never made once more.)
    #[must_use]
    pub fn clone_with(&self, id: CloneId) -> Option<(TicketId, &CloneRecord)> {
        let standing = self.tickets.iter().filter(|(_, t)| !matches!(t.stage, Stage::Ending(_)));
        standing.into_iter().find_map(|(ticket, t)| Some((*ticket, t.clones.get(&id)?)))
    }

    /// Makes a step.
    pub fn apply(&mut self, change: Change) {
        match change {
            Change::Started => self.starts += 1,
            Change::Admitted { host, instance, epoch, ids } => {
                self.give_up(&host);
                self.next_epoch = self.next_epoch.max(epoch.0 + 1);
                ids.iter().for_each(|ids| self.ids_used(*ids));
                self.hosts.insert(host, Membership { epoch, instance, ids, lost: false });
            }
            Change::Leased { host, ids } => {
                self.ids_used(ids);
                if let Some(membership) = self.hosts.get_mut(&host) {
                    membership.ids.push(ids);
                }
            }
            Change::Lost { host } => self.give_up(&host),
            Change::CheckpointWished { checkpoint, key, hosts } => {
                self.next_checkpoint = checkpoint.0 + 1;
                self.checkpoints.insert(checkpoint, Checkpoint { key, hosts, taken: false });
            }
            Change::CheckpointHeld { checkpoint, hosts, why } => self.held(checkpoint, &hosts, why),
            Change::Refused { key, why } => self.answer(key, Answer::Refused { why }),
            Change::Opened { ticket, key, wanted } => {
                self.next_ticket = ticket.0 + 1;
                let (stage, clones) = (Stage::Allocating, BTreeMap::new());
                self.tickets.insert(ticket, Ticket { key, wanted, job: None, stage, clones });
            }
            Change::Ended { ticket } => drop(self.tickets.remove(&ticket)),
            other => self.apply_to_ticket(other),
        }
    }

    fn apply_to_ticket(&mut self, change: Change) {
        let (Change::Allocated { ticket, .. }
        | Change::Placed { ticket, .. }
        | Change::Granted { ticket, .. }
        | Change::Creating { ticket, .. }
        | Change::Created { ticket, .. }
        | Change::Moved { ticket, .. }
        | Change::Wished { ticket, .. }
        | Change::Killed { ticket, .. }) = change
        else {
            return;
        };
        let Some(record) = self.tickets.get_mut(&ticket) else { return };
        let answered = match change {
            Change::Granted { clones, .. } => {
                let answer = Answer::Ticket { ticket, clones: clones.clone().into_iter().collect() };
                record.grant(clones, &self.hosts);
                Some((record.key.clone(), answer))
            }
            Change::Created { made, .. } => record.created(made),
            Change::Killed { why, .. } => {
                let refused = record.who_waits().map(|key| (key, Answer::Refused { why }));
                record.stage = Stage::Ending(record.places());
                refused
            }
            other => {
                record.apply(other);
                None
            }
        };
        if let Some((key, answer)) = answered {
            self.answer(key, answer);
        }
    }

    fn answer(&mut self, key: RequestKey, answer: Answer) {
        if self.answers.len() == ANSWERS_KEPT {
            self.answers.pop_front();
        }
        self.answers.push_back((key, answer));
    }

    fn ids_used(&mut self, ids: IdRange) {
        self.next_clone = self.next_clone.max(ids.first + ids.count);
    }

    /// Ends a membership: whatever was on that host is over.
    fn give_up(&mut self, host: &Name) {
        let Some(membership) = self.hosts.get_mut(host) else { return };
        membership.lost = true;
        let epoch = membership.epoch;
        let clones = self.tickets.values_mut().flat_map(|ticket| ticket.clones.values_mut());
        for clone in clones.filter(|c| c.host == *host && c.epoch == epoch && c.state.is_alive()) {
            clone.state = LifeState::Failed(format!("its host {host} was lost"));
        }
        for checkpoint in self.checkpoints.values_mut().filter(|checkpoint| checkpoint.taken) {
            checkpoint.hosts.remove(host);
        }
        self.checkpoints.retain(|_, checkpoint| !checkpoint.taken || !checkpoint.hosts.is_empty());
    }

    fn held(&mut self, checkpoint: CheckpointId, hosts: &BTreeSet<Name>, why: String) {
        let Some(record) = self.checkpoints.get_mut(&checkpoint) else { return };
        let first = !std::mem::replace(&mut record.taken, true);
        record.hosts.retain(|host, _| hosts.contains(host));
        let (key, hosts): (_, Vec<Name>) = (record.key.clone(), record.hosts.keys().cloned().collect());
        if hosts.is_empty() {
            self.checkpoints.remove(&checkpoint);
        }
        match (first, hosts.is_empty()) {
            (true, true) => self.answer(key, Answer::Refused { why }),
            (true, false) => self.answer(key, Answer::Checkpoint { checkpoint, hosts }),
            (false, _) => {}
        }
    }
}

impl Ticket {
    fn apply(&mut self, change: Change) {
        match change {
            Change::Allocated { job, .. } => self.job = Some(job),
            Change::Placed { shares, .. } => self.stage = Stage::Placing(shares),
            Change::Creating { checkpoint, key, .. } => self.stage = Stage::Creating(checkpoint, key),
            Change::Moved { clone, state, ipv4, .. } => {
                if let Some(clone) = self.clones.get_mut(&clone) {
                    (clone.state, clone.ipv4) = (state, ipv4.or(clone.ipv4));
                }
            }
            Change::Wished { clone, goal, .. } => {
                if let Some(clone) = self.clones.get_mut(&clone) {
                    clone.goal = clone.goal.max(Some(goal));
                }
            }
            _ => {}
        }
    }

    fn created(&mut self, made: Made) -> Option<(RequestKey, Answer)> {
        let Stage::Creating(checkpoint, key) = self.stage.clone() else { return None };
        self.stage = Stage::Created(checkpoint, made.clone());
        Some((key, Answer::Created(made)))
    }

    /// The request that has no answer yet.
    fn who_waits(&self) -> Option<RequestKey> {
        match &self.stage {
            Stage::Allocating | Stage::Placing(_) => Some(self.key.clone()),
            Stage::Creating(_, key) => Some(key.clone()),
            Stage::Granted | Stage::Created(..) | Stage::Ending(_) => None,
        }
    }

    fn grant(&mut self, clones: BTreeMap<CloneId, Name>, hosts: &BTreeMap<Name, Membership>) {
        self.stage = Stage::Granted;
        for (id, host) in clones {
            let Some(epoch) = hosts.get(&host).map(|membership| membership.epoch) else { continue };
            let clone = CloneRecord { host, epoch, state: LifeState::Promised, ipv4: None, goal: None };
            self.clones.insert(id, clone);
        }
    }

    /// Hosts that may have something of it.
    #[must_use]
    pub fn places(&self) -> BTreeMap<Name, Epoch> {
        match &self.stage {
            Stage::Allocating => BTreeMap::new(),
            Stage::Placing(shares) => {
                shares.iter().map(|(host, share)| (host.clone(), share.epoch)).collect()
            }
            Stage::Ending(hosts) => hosts.clone(),
            Stage::Granted | Stage::Creating(..) | Stage::Created(..) => {
                self.clones.values().map(|clone| (clone.host.clone(), clone.epoch)).collect()
            }
        }
    }

    /// Its clones that live on a host under this membership.
    pub fn living<'a>(
        &'a self,
        host: &'a Name,
        epoch: Epoch,
    ) -> impl Iterator<Item = (&'a CloneId, &'a CloneRecord)> {
        let there = move |c: &CloneRecord| c.host == *host && c.epoch == epoch && c.state.is_alive();
        self.clones.iter().filter(move |(_, clone)| there(clone))
    }
}
