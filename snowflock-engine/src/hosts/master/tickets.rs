//! Tickets from request to end, over all their hosts.

use std::collections::BTreeMap;
use std::time::Duration;

use super::durable::{Change, RequestKey, Share, Stage, Ticket};
use super::placement::spread;
use super::{Master, Output};
use crate::control::LifeState;
use crate::hosts::ids::{CheckpointId, Name, TicketId};
use crate::hosts::message::{CheckpointState, Made, ShareState};
use crate::network::identity::CloneId;

/// No ticket is for more: what is said of it must fit into a frame.
pub(super) const LARGEST_TICKET: u32 = 1024;

impl Master {
    /// Opens a ticket for a request that has none yet.
    pub(super) fn open_ticket(&mut self, now: Duration, key: &RequestKey, wanted: u32) {
        if self.durable.tickets.values().any(|ticket| ticket.key == *key) {
            return;
        }
        if wanted == 0 {
            return self.refuse(key.clone(), "no clones were asked for");
        }
        let (_, ticket, _) = self.durable.next();
        let wanted = wanted.min(LARGEST_TICKET);
        self.change(Change::Opened { ticket, key: key.clone(), wanted });
        self.asked.insert(ticket, now);
        if self.settings.deferred {
            self.outputs.push_back(Output::Allocate(ticket, wanted));
        }
    }

    /// Without cluster software: places a ticket where there is room. While a member is away that may have
    /// some, as after a restart, there is time for it to come.
    fn settle_allocating(&mut self, now: Duration, ticket: TicketId) {
        let waits = |ticket: &Ticket| ticket.stage == Stage::Allocating;
        if self.settings.deferred || !self.durable.tickets.get(&ticket).is_some_and(waits) {
            return;
        }
        let asked = *self.asked.entry(ticket).or_insert(now);
        let room = self.room();
        let away =
            |(host, m): (&Name, &super::durable::Membership)| !m.lost && self.report_of(host).is_none();
        let may_wait = asked + self.settings.answer_limit > now && self.durable.hosts.iter().any(away);
        if room.values().any(|room| *room > 0) || !may_wait {
            self.place(now, ticket, &room);
        }
    }

    /// After a start: asks the cluster software again for what it had been asked.
    pub(super) fn resume_jobs(&mut self) {
        if self.settings.deferred {
            self.outputs.push_back(Output::Retain(self.durable.tickets.keys().copied().collect()));
        }
        for (id, ticket) in &self.durable.tickets {
            self.outputs.extend(match (&ticket.stage, &ticket.job) {
                (Stage::Allocating, _) if self.settings.deferred => {
                    Some(Output::Allocate(*id, ticket.wanted))
                }
                (_, Some(job)) => Some(Output::Watch(*id, job.clone())),
                _ => None,
            });
        }
    }

    pub(super) fn allocated(
        &mut self,
        now: Duration,
        ticket: TicketId,
        job: String,
        slots: &BTreeMap<Name, u32>,
    ) {
        let waits = |ticket: &Ticket| ticket.stage == Stage::Allocating;
        if !self.durable.tickets.get(&ticket).is_some_and(waits) {
            // It was killed meanwhile.
            if !self.durable.tickets.contains_key(&ticket) {
                self.outputs.push_back(Output::Release(ticket));
            }
            return;
        }
        self.change(Change::Allocated { ticket, job: job.clone() });
        self.outputs.push_back(Output::Watch(ticket, job));
        let room = self.room();
        let within = |(host, slots): (&Name, &u32)| Some((host.clone(), *room.get(host)?.min(slots)));
        let room = slots.iter().filter_map(within).collect();
        self.place(now, ticket, &room);
    }

    pub(super) fn not_allocated(&mut self, ticket: TicketId, why: &str) {
        let waits = |ticket: &Ticket| ticket.stage == Stage::Allocating;
        if self.durable.tickets.get(&ticket).is_some_and(waits) {
            self.kill(ticket, why);
        }
    }

    /// Free places on hosts that clones can be made on: what a host reports, without what it has been
    /// asked for and does not report yet.
    fn room(&self) -> BTreeMap<Name, u32> {
        let mut room = BTreeMap::new();
        for host in self.lines.keys() {
            let Some(report) = self.report_of(host) else { continue };
            let has_parent = report.parent.as_ref().is_some_and(LifeState::has_identity);
            let taken = || report.checkpoints.iter().any(|c| c.state == CheckpointState::Taken);
            let source = if self.makes_copies(host) { self.has_parent_to_share() } else { taken() };
            if !has_parent && !source {
                continue;
            }
            let unreported = |id: &TicketId| report.tickets.iter().all(|share| share.ticket != *id);
            let asked = self.durable.tickets.iter().filter(|(id, _)| unreported(id)).map(|(_, ticket)| {
                let Stage::Placing(shares) = &ticket.stage else { return 0 };
                shares.get(host).map_or(0, |share| share.clones)
            });
            room.insert(host.clone(), report.room.free.saturating_sub(asked.sum()));
        }
        room
    }

    fn place(&mut self, now: Duration, ticket: TicketId, room: &BTreeMap<Name, u32>) {
        let Some(wanted) = self.durable.tickets.get(&ticket).map(|ticket| ticket.wanted) else { return };
        let shares: BTreeMap<Name, Share> = spread(wanted, room)
            .into_iter()
            .filter_map(|(host, clones)| {
                let epoch = self.durable.hosts.get(&host)?.epoch;
                Some((host, Share { epoch, clones }))
            })
            .collect();
        if shares.is_empty() {
            return self.kill(ticket, &self.why_no_room(room));
        }
        self.asked.insert(ticket, now);
        self.change(Change::Placed { ticket, shares });
    }

    fn why_no_room(&self, room: &BTreeMap<Name, u32>) -> String {
        match (self.lines.len(), room.len()) {
            (0, _) => "no host is connected; start sfld on one".into(),
            (hosts, 0) => {
                format!("none of {hosts} hosts has a parent that runs, a checkpoint, or a slot of the job")
            }
            (_, hosts) => format!("{hosts} hosts are full: end clones, or add hosts"),
        }
    }

    /// Ends a ticket; who still waits for it is refused.
    pub(super) fn kill(&mut self, ticket: TicketId, why: &str) {
        let Some(record) = self.durable.tickets.get(&ticket) else { return };
        if !matches!(record.stage, Stage::Ending(_)) {
            self.change(Change::Killed { ticket, why: why.into() });
        }
    }

    /// Makes the clones of a granted ticket, once all of its hosts have reported.
    pub(super) fn create_clones(&mut self, key: &RequestKey, ticket: TicketId, checkpoint: CheckpointId) {
        let Some(record) = self.durable.tickets.get(&ticket) else {
            return self.refuse(key.clone(), format!("{ticket} does not exist, or has ended"));
        };
        match &record.stage {
            Stage::Creating(_, creator) if creator == key => return,
            Stage::Granted => {}
            _ => return self.refuse(key.clone(), format!("{ticket} is used up, or not granted yet")),
        }
        let living = || record.clones.values().filter(|clone| clone.state.is_alive());
        if living().any(|clone| self.report_of(&clone.host).is_none()) {
            // What a host has is not known before it has reported, after a restart of ours, say.
            return;
        }
        let (with, without): (Vec<_>, Vec<_>) = record
            .clones
            .iter()
            .filter(|(_, clone)| clone.state.is_alive())
            .map(|(id, clone)| (*id, clone.host.clone()))
            .partition(|(_, host)| {
                self.checkpoint_is_held(checkpoint, host) || self.is_copied(checkpoint, host)
            });
        if with.is_empty() {
            let why =
                format!("{checkpoint} is on none of the hosts of {ticket}: take one with sf checkpoint");
            return self.refuse(key.clone(), why);
        }
        for (clone, host) in without {
            let state = LifeState::Failed(format!("{checkpoint} is not on its host {host}"));
            self.change(Change::Moved { ticket, clone, state, ipv4: None });
        }
        self.change(Change::Creating { ticket, checkpoint, key: key.clone() });
    }

    /// Brings every ticket as far as what hosts have reported allows.
    pub(super) fn settle_tickets(&mut self, now: Duration) {
        let tickets: Vec<TicketId> = self.durable.tickets.keys().copied().collect();
        for ticket in tickets {
            self.settle_allocating(now, ticket);
            self.settle_placing(now, ticket);
            self.settle_creating(ticket);
            self.settle_end(ticket);
        }
        let durable = &self.durable;
        let own = !self.settings.deferred;
        let waits = |stage: &Stage| match stage {
            Stage::Placing(_) => true,
            Stage::Allocating => own,
            _ => false,
        };
        self.asked.retain(|id, _| durable.tickets.get(id).is_some_and(|ticket| waits(&ticket.stage)));
    }

    fn settle_placing(&mut self, now: Duration, ticket: TicketId) {
        let Some(Stage::Placing(shares)) = self.durable.tickets.get(&ticket).map(|t| t.stage.clone()) else {
            return;
        };
        let asked = *self.asked.entry(ticket).or_insert(now);
        let is_late = asked + self.settings.answer_limit <= now;
        let mut clones = BTreeMap::new();
        let mut reasons = Vec::new();
        for (host, share) in &shares {
            match self.promised(ticket, host, share) {
                Some(Ok(ids)) => clones.extend(ids.into_iter().map(|id| (id, host.clone()))),
                Some(Err(why)) => reasons.push(format!("{host}: {why}")),
                None if is_late => reasons.push(format!("{host}: no answer in time")),
                None => return,
            }
        }
        if clones.is_empty() {
            return self.kill(ticket, &reasons.join("; "));
        }
        self.change(Change::Granted { ticket, clones });
    }

    /// What a host promises of its share; `None` while it has not said.
    fn promised(&self, ticket: TicketId, host: &Name, share: &Share) -> Option<Result<Vec<CloneId>, String>> {
        if !self.durable.holds(host, share.epoch) {
            return Some(Err("it was lost".into()));
        }
        let ids = match self.share(ticket, host)? {
            ShareState::Asked => return None,
            ShareState::Refused(why) => return Some(Err(why.clone())),
            ShareState::Promised(ids) => ids,
            ShareState::Creating(_) | ShareState::Created(_) | ShareState::Ending => {
                return Some(Err("it has ended its share".into()));
            }
        };
        if ids.is_empty()
            || ids.len() > share.clones as usize
            || !ids.iter().all(|id| self.may_promise(host, *id))
        {
            tracing::error!(%host, %ticket, ?ids, "a host promises clones that it may not");
            return Some(Err("it promises clones that it may not".into()));
        }
        Some(Ok(ids.clone()))
    }

    fn share(&self, ticket: TicketId, host: &Name) -> Option<&ShareState> {
        let report = self.report_of(host)?;
        report.tickets.iter().find(|share| share.ticket == ticket).map(|share| &share.state)
    }

    fn settle_creating(&mut self, ticket: TicketId) {
        let Some(record) = self.durable.tickets.get(&ticket) else { return };
        if !matches!(record.stage, Stage::Creating(..)) {
            return;
        }
        let mut made = Made::default();
        for (host, epoch) in record.places() {
            let there = record.living(&host, epoch).next().is_some();
            match self.share(ticket, &host).filter(|_| self.durable.holds(&host, epoch)) {
                Some(ShareState::Created(share)) => {
                    made.joined.extend(&share.joined);
                    made.failed.extend(share.failed.iter().cloned());
                }
                _ if there => return,
                _ => {}
            }
        }
        let told =
            |id: &CloneId| made.joined.contains(id) || made.failed.iter().any(|(other, _)| other == id);
        let untold: Vec<_> = record.clones.iter().filter(|(id, _)| !told(id)).collect();
        let why = |state: &LifeState| match state {
            LifeState::Failed(why) => why.clone(),
            _ => "it ended before it was made".into(),
        };
        let untold: Vec<_> = untold.into_iter().map(|(id, clone)| (*id, why(&clone.state))).collect();
        made.failed.extend(untold);
        made.joined.sort_unstable();
        made.failed.sort_unstable_by_key(|(id, _)| *id);
        self.finish_creation(ticket, made);
    }

    fn finish_creation(&mut self, ticket: TicketId, made: Made) {
        for (clone, why) in &made.failed {
            let alive = |t: &Ticket| t.clones.get(clone).is_some_and(|c| c.state.is_alive());
            if self.durable.tickets.get(&ticket).is_some_and(alive) {
                let state = LifeState::Failed(why.clone());
                self.change(Change::Moved { ticket, clone: *clone, state, ipv4: None });
            }
        }
        self.change(Change::Created { ticket, made });
    }

    /// A ticket ends with its last clone; what has ended is forgotten when no host has anything of it.
    fn settle_end(&mut self, ticket: TicketId) {
        let Some(record) = self.durable.tickets.get(&ticket) else { return };
        let granted = matches!(record.stage, Stage::Granted | Stage::Created(..));
        if granted && !record.clones.values().any(|clone| clone.state.is_alive()) {
            self.change(Change::Killed { ticket, why: "all its clones have ended".into() });
        }
        let Some(Stage::Ending(hosts)) = self.durable.tickets.get(&ticket).map(|t| &t.stage) else { return };
        let is_clear = |host: &Name| {
            let report = self.informed_report_of(host);
            let unwished = self.lines.get(host).and_then(|line| line.wishes.as_ref());
            unwished.is_some_and(|wishes| wishes.tickets.iter().all(|wish| wish.ticket != ticket))
                && report.is_some_and(|report| report.tickets.iter().all(|share| share.ticket != ticket))
        };
        if hosts.iter().all(|(host, epoch)| !self.durable.holds(host, *epoch) || is_clear(host)) {
            self.change(Change::Ended { ticket });
            self.outputs.push_back(Output::Release(ticket));
        }
    }
}
