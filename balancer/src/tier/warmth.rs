//! How warm clones are: the share of the recorded working set whose pages are on this host.
//!
//! The engine records which pages the first clone touches until it is ready. A clone of a later
//! checkpoint finds some of these in the image, and waits for a fault at each of the others, so it
//! gets a smaller share of the requests until they are there. Without a record nothing is known,
//! and nobody is held back.

use std::collections::BTreeMap;

use snowflock_engine::control::{View, VmView};
use snowflock_engine::memory::protocol::CheckpointId;

use super::start::backend_id;
use crate::pool::Pool;

/// Shares by checkpoint. Clones of one checkpoint share its image, and so its warmth.
#[derive(Debug, Default)]
pub(super) struct Warmth {
    shares: BTreeMap<CheckpointId, f64>,
}

impl Warmth {
    /// Looks at the images and tells the pool. A share that is whole stays so: pages never leave
    /// an image.
    pub(super) fn tell(&mut self, view: &View, pool: &Pool) {
        self.shares.retain(|id, _| view.checkpoints.iter().any(|checkpoint| checkpoint.id == *id));
        for checkpoint in &view.checkpoints {
            if self.shares.get(&checkpoint.id).is_some_and(|share| *share >= 1.0) {
                continue;
            }
            if let Some(share) = view.working_set_share(checkpoint.id) {
                self.shares.insert(checkpoint.id, share);
            }
        }
        let snapshot = pool.snapshot();
        for clone in view.clones.iter().filter(|clone| clone.state.is_alive()) {
            if let (Some(share), Some(backend)) = (self.of(clone), snapshot.get(&backend_id(clone.id))) {
                backend.set_warmth(share);
            }
        }
    }

    fn of(&self, clone: &VmView) -> Option<f64> {
        self.shares.get(&clone.checkpoint?).copied()
    }
}
