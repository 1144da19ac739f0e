//! Copies of checkpoints on hosts that have no parent of their own.
//!
//! ```text
//!   who has it | who wants it, as reported --> wishes: tell us, copy it, hold it; pieces from one to all
//! ```
//!
//! Nothing of this is remembered: it follows from the checkpoints, and from what connected hosts report.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::durable::Stage;
use super::{Master, Output};
use crate::control::LifeState;
use crate::hosts::ids::{CheckpointId, Epoch, Name};
use crate::hosts::message::{CheckpointState, CopyWish, ToHost};
use crate::hosts::parcel::{Assembly, Piece, cut};

/// What is known of a checkpoint's parcel, and of whose.
#[derive(Debug, Default)]
pub(super) struct Parcels(BTreeMap<(CheckpointId, Epoch), Parcel>);

#[derive(Debug)]
enum Parcel {
    Coming(Assembly),
    Whole(Arc<Vec<u8>>),
}

impl Parcels {
    fn whole(&self, of: (CheckpointId, Epoch)) -> Option<Arc<Vec<u8>>> {
        match self.0.get(&of) {
            Some(Parcel::Whole(parcel)) => Some(Arc::clone(parcel)),
            Some(Parcel::Coming(_)) | None => None,
        }
    }

    fn add(&mut self, piece: Piece) {
        let of = (piece.checkpoint, piece.from);
        let parcel = self.0.entry(of).or_insert_with(|| Parcel::Coming(Assembly::default()));
        if let Parcel::Coming(assembly) = parcel
            && let Some(whole) = assembly.add(piece)
        {
            *parcel = Parcel::Whole(Arc::new(whole));
        }
    }
}

impl Master {
    /// A host tells of a checkpoint that it has taken.
    pub(super) fn piece_came(&mut self, host: &Name, piece: Piece) {
        let is_theirs = |(source, epoch): (&Name, Epoch)| source == host && epoch == piece.from;
        if self.source_of(piece.checkpoint).is_some_and(is_theirs) {
            self.parcels.add(piece);
        }
    }

    /// The host whose parent's checkpoint is copied by others: the first that has it.
    fn source_of(&self, checkpoint: CheckpointId) -> Option<(&Name, Epoch)> {
        let record = self.durable.checkpoints.get(&checkpoint).filter(|c| c.taken)?;
        let shares = |host: &Name| self.report_of(host).is_none_or(|report| report.shares);
        let mut holders = record.hosts.iter().filter(|(host, epoch)| self.durable.holds(host, **epoch));
        holders.find(|(host, _)| shares(host)).map(|(host, epoch)| (host, *epoch))
    }

    /// Whether clones of other hosts' parents can be made on a host.
    pub(super) fn makes_copies(&self, host: &Name) -> bool {
        self.report_of(host).is_some_and(|report| report.shares && report.parent.is_none())
    }

    /// Whether some connected host has a parent that others can have clones of.
    pub(super) fn has_parent_to_share(&self) -> bool {
        self.lines
            .values()
            .filter_map(|line| line.report.as_ref())
            .any(|report| report.shares && report.parent.as_ref().is_some_and(LifeState::has_identity))
    }

    /// The checkpoints that a host is to have copies of.
    pub(super) fn copies_for(&self, host: &Name) -> Vec<CopyWish> {
        if !self.makes_copies(host) {
            return Vec::new();
        }
        let wish = |id: &CheckpointId| {
            let (_, from) = self.source_of(*id)?;
            Some(CopyWish { checkpoint: *id, from })
        };
        self.durable.checkpoints.keys().filter_map(wish).collect()
    }

    /// Whether a host has a copy of a checkpoint, or will.
    pub(super) fn is_copied(&self, checkpoint: CheckpointId, host: &Name) -> bool {
        self.copies_for(host).iter().any(|wish| wish.checkpoint == checkpoint)
    }

    /// Hosts that have a copy now.
    pub(super) fn copiers_of(&self, checkpoint: CheckpointId) -> impl Iterator<Item = &Name> {
        self.lines.keys().filter(move |host| {
            self.makes_copies(host) && self.copy_on(host, checkpoint) == Some(&CheckpointState::Taken)
        })
    }

    fn copy_on(&self, host: &Name, checkpoint: CheckpointId) -> Option<&CheckpointState> {
        let reported = self.report_of(host)?.checkpoints.iter();
        reported.into_iter().find(|c| c.checkpoint == checkpoint).map(|c| &c.state)
    }

    fn is_wanted_on(&self, host: &Name, checkpoint: CheckpointId) -> bool {
        self.copy_on(host, checkpoint) == Some(&CheckpointState::Wanted)
    }

    /// The checkpoints that a host is to tell of.
    pub(super) fn parcels_of(&self, host: &Name, epoch: Epoch) -> Vec<CheckpointId> {
        let is_asked = |id: &CheckpointId| {
            self.source_of(*id) == Some((host, epoch))
                && self.parcels.whole((*id, epoch)).is_none()
                && self.lines.keys().any(|other| self.is_wanted_on(other, *id))
        };
        self.durable.checkpoints.keys().copied().filter(is_asked).collect()
    }

    /// The checkpoints of a host that clones elsewhere still need.
    pub(super) fn held_by(&self, host: &Name, epoch: Epoch) -> Vec<CheckpointId> {
        let needed = |id: &CheckpointId| {
            self.durable.tickets.values().any(|ticket| {
                let (Stage::Creating(from, _) | Stage::Created(from, _)) = &ticket.stage else {
                    return false;
                };
                from == id && ticket.clones.values().any(|c| c.host != *host && c.state.is_alive())
            })
        };
        let is_held = |id: &CheckpointId| self.source_of(*id) == Some((host, epoch)) && needed(id);
        self.durable.checkpoints.keys().copied().filter(is_held).collect()
    }

    /// Sends parcels to hosts that want them and were not sent them a while ago.
    pub(super) fn send_parcels(&mut self, now: Duration) {
        let checkpoints = &self.durable.checkpoints;
        self.parcels.0.retain(|(id, _), _| checkpoints.contains_key(id));
        let hosts: Vec<Name> = self.lines.keys().cloned().collect();
        for host in hosts {
            for CopyWish { checkpoint, from } in self.copies_for(&host) {
                if self.is_wanted_on(&host, checkpoint)
                    && let Some(parcel) = self.parcels.whole((checkpoint, from))
                {
                    self.send_parcel(now, &host, (checkpoint, from), &parcel);
                }
            }
        }
    }

    fn send_parcel(&mut self, now: Duration, host: &Name, of: (CheckpointId, Epoch), parcel: &[u8]) {
        let patience = self.settings.lease / 4;
        let Some(line) = self.lines.get_mut(host) else { return };
        if line.sent.get(&of).is_some_and(|at| *at + patience > now) {
            return;
        }
        line.sent.insert(of, now);
        let (connection, session) = (line.connection, line.session);
        let pieces = cut(session, of, parcel);
        self.outputs.extend(pieces.map(|piece| Output::ToHost(connection, ToHost::Piece(piece))));
    }
}
