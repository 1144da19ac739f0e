//! In the new process, the one it replaces: takes what its predecessor gives, and says how it goes.

use std::fmt::Display;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::unistd::getppid;
use snowflock_engine::sys::fdpass::{Channel, MAX_BYTES};

use super::{Inherited, PREDECESSOR};

/// What a process says that accepts connections.
pub(super) const READY: &[u8] = b"ready";
/// Longest time for what the predecessor has to give, which it sends at once.
const OFFER_LIMIT: Duration = Duration::from_secs(10);

/// Nothing can be taken over.
#[derive(Debug, thiserror::Error)]
#[error("cannot take over from process {predecessor}: {source}")]
pub struct MeetError {
    predecessor: String,
    source: io::Error,
}

/// The process that this one was started to replace.
#[derive(Debug)]
pub struct Predecessor {
    channel: Channel,
    inherited: Inherited,
}

impl Predecessor {
    /// Takes what is given, if this process was started to replace another one.
    ///
    /// # Errors
    /// [`MeetError`]: it was, and is not given what it needs.
    pub fn meet() -> Result<Option<Self>, MeetError> {
        let Ok(predecessor) = std::env::var(PREDECESSOR) else { return Ok(None) };
        // What is only left in the environment by somebody further up is of no concern.
        if predecessor != getppid().to_string() {
            return Ok(None);
        }
        Self::take().map(Some).map_err(|source| MeetError { predecessor, source })
    }

    fn take() -> io::Result<Self> {
        let stdin = io::stdin();
        let channel = Channel::from(stdin.as_fd().try_clone_to_owned()?);
        nix::unistd::dup2_stdin(File::open("/dev/null")?)?;
        channel.set_timeout(Some(OFFER_LIMIT))?;
        let inherited = Inherited::receive(&channel)?;
        Ok(Self { channel, inherited })
    }

    /// What it gave.
    pub fn inherited(&mut self) -> Inherited {
        std::mem::take(&mut self.inherited)
    }

    /// This process accepts connections.
    pub fn is_replaced(&self) {
        if let Err(error) = self.channel.send(READY, &[]) {
            tracing::warn!(%error, "the process that was to be replaced is gone already");
        }
    }

    /// This process cannot run; the predecessor is told why.
    pub fn goes_on(&self, why: &dyn Display) {
        let why = why.to_string();
        // It notices our end anyway.
        let _ = self.channel.send(&why.as_bytes()[..why.len().min(MAX_BYTES)], &[]);
    }
}
