//! The view that users see, worked out from what is remembered and who is connected.

use std::collections::BTreeSet;

use super::Master;
use super::durable::{Checkpoint, Durable, Stage, Ticket};
use crate::hosts::ids::{CheckpointId, Name, TicketId};
use crate::hosts::view::{CheckpointView, CloneView, HostState, HostView, StageView, TicketView, View};

/// Numbers of views within one run of SFMD; a restart begins above all of them.
const VIEWS_PER_START: u64 = 1 << 32;

impl Master {
    /// Renews the view if it differs.
    pub(super) fn show(&mut self) {
        let number = self.view.number;
        let shown = View {
            number,
            hosts: self.hosts_shown(),
            tickets: self.durable.tickets.iter().map(|(id, ticket)| ticket_shown(*id, ticket)).collect(),
            checkpoints: self.checkpoints_shown(),
            clones: clones_shown(&self.durable),
        };
        if number == 0 || shown != self.view {
            let number = (number + 1).max(self.durable.starts * VIEWS_PER_START);
            self.view = View { number, ..shown };
        }
    }

    fn hosts_shown(&self) -> Vec<HostView> {
        let shown = self.durable.hosts.iter().map(|(name, membership)| {
            let report = self.report_of(name);
            let state = match (membership.lost, report) {
                (true, _) => HostState::Lost,
                (false, Some(_)) => HostState::Up,
                (false, None) => HostState::Away,
            };
            HostView {
                name: name.clone(),
                epoch: membership.epoch,
                state,
                room: report.map(|report| report.room).unwrap_or_default(),
                parent: report.and_then(|report| report.parent.clone()),
            }
        });
        shown.collect()
    }

    fn checkpoints_shown(&self) -> Vec<CheckpointView> {
        let taken = self.durable.checkpoints.iter().filter(|(_, checkpoint)| checkpoint.taken);
        let hosts = |(id, record): (&CheckpointId, &Checkpoint)| {
            let hosts: BTreeSet<Name> = record.hosts.keys().chain(self.copiers_of(*id)).cloned().collect();
            CheckpointView { id: *id, hosts: hosts.into_iter().collect() }
        };
        taken.map(hosts).collect()
    }
}

fn ticket_shown(id: TicketId, ticket: &Ticket) -> TicketView {
    let (stage, checkpoint) = match &ticket.stage {
        Stage::Allocating => (StageView::Allocating, None),
        Stage::Placing(_) => (StageView::Placing, None),
        Stage::Granted => (StageView::Granted, None),
        Stage::Creating(from, _) => (StageView::Creating, Some(*from)),
        Stage::Created(from, _) => (StageView::Created, Some(*from)),
        Stage::Ending(_) => (StageView::Ending, None),
    };
    TicketView { id, wanted: ticket.wanted, stage, checkpoint, job: ticket.job.clone() }
}

fn clones_shown(durable: &Durable) -> Vec<CloneView> {
    let mut clones: Vec<CloneView> = durable
        .tickets
        .iter()
        .flat_map(|(ticket, record)| {
            record.clones.iter().map(|(id, clone)| CloneView {
                id: *id,
                host: clone.host.clone(),
                ticket: *ticket,
                state: clone.state.clone(),
                ipv4: clone.ipv4,
            })
        })
        .collect();
    clones.sort_by_key(|clone| clone.id);
    clones
}
