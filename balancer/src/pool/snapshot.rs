//! The numbered view of the pool that workers read.

use std::sync::Arc;

use super::backend::{Backend, BackendId};

/// All backends at one moment. The states inside go on changing; the lists do not.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// Grows with every change of membership or readiness.
    pub generation: u64,
    /// Those that may get requests.
    pub ready: Box<[Arc<Backend>]>,
    /// Every one of them, in order of insertion.
    pub all: Box<[Arc<Backend>]>,
}

impl Snapshot {
    /// Finds a backend by its name.
    pub fn get(&self, id: &BackendId) -> Option<&Arc<Backend>> {
        self.all.iter().find(|backend| backend.id() == id)
    }

    /// Whether a backend with this serial is still in the pool.
    pub fn has(&self, serial: u64) -> bool {
        self.all.iter().any(|backend| backend.serial() == serial)
    }
}
