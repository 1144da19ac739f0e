//! The host's end of the line to the agent in a guest (see [`crate::wire`]).
//!
//! A guest may lie, flood or hang: every wait has a deadline, and what cannot
//! be understood is passed over.

use std::cell::Cell;
use std::io::{self, ErrorKind, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::wire::frame::MAX_FRAME;
use crate::wire::{Failures, GuestMessage, HookEvent, HostMessage, Identity, Name, RequestId, Vitals};

mod line;

pub use line::{Called, Caller, ReplyLine};

/// A request that got no answer is sent again after this long: a clone's agent may miss the first
/// while its serial port wakes up.
const REPEAT: Duration = Duration::from_millis(250);

/// Why a guest has no identity.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// The line is closed.
    #[error("the line to the agent broke")]
    Broken(#[from] io::Error),
    /// Nothing came in time.
    #[error("the agent in the guest did not answer within {0:?}")]
    Silent(Duration),
    /// The guest could not do all of it.
    #[error("the guest could not take its identity, failed: {failed}{hook}")]
    Incomplete {
        /// The steps.
        failed: Failures,
        /// The hook, if one was the reason.
        hook: FailedHook,
    },
}

/// The first hook that failed at a birth, if the guest has named one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FailedHook(pub Option<Name>);

impl std::fmt::Display for FailedHook {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.map_or(Ok(()), |name| write!(f, " ({})", printable(&name)))
    }
}

/// A guest's text, fit for a log.
fn printable(name: &Name) -> String {
    name.as_str().chars().filter(|c| !c.is_control()).collect()
}

/// What became of the hooks of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HooksDone {
    /// How many were started.
    pub ran: u16,
    /// How many of those failed, or were killed at the limit.
    pub failed: u16,
    /// File name of the first that failed.
    pub first_failed: Name,
}

/// A clone's agent remembers the last request that its parent answered, so a new line does not
/// count from the start.
fn first_request() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    now.as_micros() as u32
}

/// A line to one guest. A thread listens on it until it is dropped.
#[derive(Debug)]
pub struct Agent {
    stream: UnixStream,
    answers: Receiver<GuestMessage>,
    requests: u32,
    /// The parent's call that this clone is the outcome of, and its place among those.
    fork: Option<(RequestId, u32)>,
}

impl Drop for Agent {
    fn drop(&mut self) {
        // It fails when the guest has gone first, and the thread with it.
        let _ = self.stream.shutdown(Shutdown::Both);
    }
}

impl Agent {
    /// Over the socket of the guest's serial port. Calls of the guest go to `caller`, or nowhere.
    ///
    /// # Errors
    /// No thread or file descriptor is left.
    pub fn new(stream: UnixStream, caller: Option<Caller>) -> io::Result<Self> {
        let answers = line::listen(&stream, caller)?;
        Ok(Self { stream, answers, requests: first_request(), fork: None })
    }

    /// The guest is a clone, made because its parent made this call, and its place among those is this.
    pub fn forked_by(&mut self, call: RequestId, place: u32) {
        self.fork = Some((call, place));
    }

    /// Waits for the agent's first word after a boot.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub fn wait_for_hello(&mut self, limit: Duration) -> Result<(), AgentError> {
        self.wait(limit, |message| matches!(message, GuestMessage::Hello { .. }).then_some(()))
    }

    /// Gives the guest its identity; returns the time the guest took for it, by its own clock.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub fn identify(&mut self, identity: &Identity, limit: Duration) -> Result<Duration, AgentError> {
        self.requests = self.requests.wrapping_add(1);
        let ours = RequestId(self.requests);
        let until = Instant::now() + limit;
        let hook = Cell::new(FailedHook(None));
        let answer = |message: &GuestMessage| match message {
            GuestMessage::Identified { request, failed, took_us, .. } if *request == ours => {
                Some((*failed, Duration::from_micros(u64::from(*took_us))))
            }
            GuestMessage::HooksDone { request, first_failed, .. } if *request == ours => {
                hook.set(FailedHook(Some(*first_failed)));
                None
            }
            _ => None,
        };
        loop {
            if let Some((call, place)) = self.fork {
                self.say(&HostMessage::ForkedBy { call, place })?;
            }
            self.say(&HostMessage::Identify(ours, identity.clone()))?;
            let left = until.saturating_duration_since(Instant::now());
            match self.wait(left.min(REPEAT), answer) {
                Err(AgentError::Silent(_)) if left > REPEAT => {}
                Err(AgentError::Silent(_)) => return Err(AgentError::Silent(limit)),
                Err(error) => return Err(error),
                Ok((failed, _)) if !failed.is_empty() => {
                    return Err(AgentError::Incomplete { failed, hook: hook.get() });
                }
                Ok((_, took)) => return Ok(took),
            }
        }
    }

    /// Runs the user's hooks of an event, for `limit` together; returns what became of them.
    ///
    /// # Errors
    /// See [`AgentError`]: the hooks may or may not have run then.
    pub fn run_hooks(&mut self, event: HookEvent, limit: Duration) -> Result<HooksDone, AgentError> {
        self.requests = self.requests.wrapping_add(1);
        let ours = RequestId(self.requests);
        let deadline_ms = u32::try_from(limit.as_millis()).unwrap_or(u32::MAX);
        self.say(&HostMessage::RunHooks { request: ours, event, deadline_ms })?;
        self.wait(limit + REPEAT, |message| match message {
            GuestMessage::HooksDone { request, ran, failed, first_failed, .. } if *request == ours => {
                Some(HooksDone { ran: *ran, failed: *failed, first_failed: *first_failed })
            }
            _ => None,
        })
    }

    /// Asks the guest how it is doing. A guest may lie.
    ///
    /// # Errors
    /// See [`AgentError`].
    pub fn vitals(&mut self, limit: Duration) -> Result<Vitals, AgentError> {
        self.requests = self.requests.wrapping_add(1);
        let ours = RequestId(self.requests);
        self.say(&HostMessage::AskReport(ours))?;
        self.wait(limit, |message| match message {
            GuestMessage::Report(request, vitals) if *request == ours => Some(*vitals),
            _ => None,
        })
    }

    fn say(&mut self, message: &HostMessage) -> io::Result<()> {
        self.stream.set_write_timeout(Some(REPEAT))?;
        self.stream.write_all(message.encode(&mut [0; MAX_FRAME]))
    }

    fn wait<T>(
        &mut self,
        limit: Duration,
        wanted: impl Fn(&GuestMessage) -> Option<T>,
    ) -> Result<T, AgentError> {
        let until = Instant::now() + limit;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            match self.answers.recv_timeout(left) {
                Ok(message) => {
                    if let Some(found) = wanted(&message) {
                        return Ok(found);
                    }
                }
                Err(RecvTimeoutError::Timeout) => return Err(AgentError::Silent(limit)),
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(io::Error::from(ErrorKind::UnexpectedEof).into());
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
