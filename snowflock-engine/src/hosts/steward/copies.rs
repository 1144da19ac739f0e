//! Checkpoints of other hosts: told to them, and copied from them.
//!
//! ```text
//!   taken --asked for--> parcel --pieces--> SFMD --pieces--> wanted -> coming -> taken (a copy)
//! ```

use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use super::duties::Frozen;
use super::{LocalCheckpoint, Order, Output, REPORTS_PER_LEASE, Steward};
use crate::hosts::ids::{CheckpointId, Epoch};
use crate::hosts::message::{CopyWish, FromHost};
use crate::hosts::parcel::{Assembly, Piece, cut};

/// What other hosts are told of a checkpoint that was taken here.
#[derive(Debug)]
pub(super) enum Export {
    /// Ends with the Engine's word.
    Asked,
    /// Its parcel, and when SFMD was last told on this connection.
    Known(Arc<Vec<u8>>, Option<Duration>),
}

impl Steward {
    /// Begins copies that are wished, and gives up those that are not, or are another host's by now.
    pub(super) fn copy_checkpoints(&mut self, wished: &[CopyWish]) {
        let former = std::mem::take(&mut self.copies);
        for (checkpoint, from) in former {
            if wished.iter().any(|wish| wish.checkpoint == checkpoint && wish.from == from) {
                self.copies.insert(checkpoint, from);
            } else if let Some(Frozen::Taken(local)) = self.checkpoints.remove(&checkpoint) {
                self.order(Order::Release(local));
            }
        }
        for wish in wished {
            if let Entry::Vacant(entry) = self.copies.entry(wish.checkpoint) {
                entry.insert(wish.from);
                self.checkpoints.insert(wish.checkpoint, Frozen::Wanted(Assembly::default()));
            }
        }
    }

    /// A piece of a copy has come.
    pub(super) fn piece_came(&mut self, piece: Piece) {
        let (checkpoint, from) = (piece.checkpoint, piece.from);
        if self.copies.get(&checkpoint) != Some(&from) {
            return;
        }
        let Some(Frozen::Wanted(assembly)) = self.checkpoints.get_mut(&checkpoint) else { return };
        if let Some(parcel) = assembly.add(piece) {
            self.checkpoints.insert(checkpoint, Frozen::Coming);
            self.order(Order::Import(checkpoint, from, Arc::new(parcel)));
        }
    }

    /// The Engine has a copy, or cannot have it. It may be wished no more, or of another host.
    pub(super) fn imported(
        &mut self,
        (checkpoint, from): (CheckpointId, Epoch),
        answer: Result<LocalCheckpoint, String>,
    ) {
        if self.copies.get(&checkpoint) == Some(&from) {
            let copied = answer.map_or_else(Frozen::Failed, Frozen::Taken);
            self.checkpoints.insert(checkpoint, copied);
        } else if let Ok(local) = answer {
            self.order(Order::Release(local));
        }
    }

    /// Has the Engine tell of checkpoints that others want, and tells SFMD, again and again while it asks.
    pub(super) fn tell_parcels(&mut self, now: Duration, wished: &[CheckpointId]) {
        self.exports.retain(|id, _| self.checkpoints.contains_key(id));
        let Some(from) = self.epoch else { return };
        for checkpoint in wished {
            let Some(Frozen::Taken(local)) = self.checkpoints.get(checkpoint) else { continue };
            let local = *local;
            match self.exports.get_mut(checkpoint) {
                None => {
                    self.exports.insert(*checkpoint, Export::Asked);
                    self.order(Order::Export(*checkpoint, local));
                }
                Some(Export::Known(parcel, told))
                    if told.is_none_or(|at| at + self.lease / REPORTS_PER_LEASE <= now) =>
                {
                    *told = Some(now);
                    let pieces = cut(self.session, (*checkpoint, from), parcel);
                    self.outputs.extend(pieces.map(|piece| Output::Say(FromHost::Piece(piece))));
                }
                Some(_) => {}
            }
        }
    }

    /// The Engine has said what others need; without it, they are told when they ask again.
    pub(super) fn exported(&mut self, checkpoint: CheckpointId, answer: Result<Arc<Vec<u8>>, String>) {
        match answer {
            Ok(parcel) => drop(self.exports.insert(checkpoint, Export::Known(parcel, None))),
            Err(why) => {
                tracing::error!(%checkpoint, why, "other hosts cannot have this checkpoint");
                // Its clones here go on; who waits for a copy must not wait for ever.
                self.checkpoints.insert(checkpoint, Frozen::Failed(why));
                self.exports.remove(&checkpoint);
            }
        }
    }

    /// Keeps what clones on other hosts still need.
    pub(super) fn hold_checkpoints(&mut self, wished: &[CheckpointId]) {
        let taken = |id: &CheckpointId| match self.checkpoints.get(id) {
            Some(Frozen::Taken(local)) => Some(*local),
            _ => None,
        };
        let held: Vec<LocalCheckpoint> = wished.iter().filter_map(taken).collect();
        if held != self.held {
            self.held.clone_from(&held);
            self.order(Order::Hold(held));
        }
    }

    /// What was told on a former connection counts for nothing.
    pub(super) fn tell_parcels_anew(&mut self) {
        for export in self.exports.values_mut() {
            if let Export::Known(_, told) = export {
                *told = None;
            }
        }
    }
}
