//! New configurations, and new programs: how they are asked for, and how they were taken.

use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::account::AccountError;
use crate::server::StartError;

/// Somebody asks for the configuration to be read again; the answer is its generation, or
/// all that is wrong with it.
pub type ReloadAsked = oneshot::Sender<Result<u64, String>>;

/// Somebody asks for a new program to take over; the answer is its process ID, or why not.
pub type UpgradeAsked = oneshot::Sender<Result<u32, String>>;

/// Why a configuration cannot follow the one in force.
#[derive(Debug, thiserror::Error)]
pub enum ReloadError {
    /// These keys cannot be changed while running.
    #[error("{}", .0.iter().map(|key| format!("{key}: cannot be changed while running (restart flurry)")).collect::<Vec<_>>().join("\n"))]
    Fixed(Vec<&'static str>),
    /// A listener cannot be opened.
    #[error(transparent)]
    Listen(#[from] StartError),
    /// Nobody can be told of requests.
    #[error(transparent)]
    Account(#[from] AccountError),
}

/// How attempts went, and why the last one failed: to take a new configuration, or to hand over to a new
/// program.
#[derive(Debug, Default)]
pub struct Attempts {
    taken: AtomicU64,
    refused: AtomicU64,
    error: Mutex<Option<String>>,
}

impl Attempts {
    /// Notes how one went.
    pub(super) fn note(&self, result: Result<(), String>) {
        match &result {
            Ok(()) => self.taken.fetch_add(1, Relaxed),
            Err(_) => self.refused.fetch_add(1, Relaxed),
        };
        *self.error.lock().unwrap_or_else(PoisonError::into_inner) = result.err();
    }

    /// Those that worked; the start of the process is none.
    pub fn taken(&self) -> u64 {
        self.taken.load(Relaxed)
    }

    /// Those after which all is as it was.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    /// What was wrong with the last one; `None` if it worked.
    pub fn error(&self) -> Option<String> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
