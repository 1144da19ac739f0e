//! Who may ask for what: the quota, the rate, and the tickets that were given out. Without I/O.
//!
//! ```text
//!   ticket:  given -> used (sf_clone, sf_create_clones) -> forgotten, once all its clones have ended
//!                  \-> killed
//! ```

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::super::TicketId;
use crate::memory::protocol::CheckpointId;
use crate::network::identity::CloneId;
use crate::wire::api::{Call, End, Ends, MOST_CLONES};

/// Calls that a guest may make at once before the rate counts.
const BURST: u32 = 20;
/// One more call after each of these.
const PERIOD: Duration = Duration::from_millis(200);
/// Calls under way.
const MOST_AT_ONCE: u32 = 8;
/// Tickets that are remembered; the oldest whose clones have ended goes first.
const MOST_TICKETS: usize = 64;

/// Why a call is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Refused {
    #[error("vm.guest_api is off in this tier")]
    Off,
    #[error("too many calls; try again later")]
    TooMany,
    #[error("only the parent may ask for this")]
    NotParent,
    #[error("only a clone that the parent asked for may exit")]
    NotAClone,
    #[error("vm.guest_api allows {0} clones at once")]
    Quota(u32),
    #[error("ask for one clone at least")]
    NoneAsked,
    #[error("there is no such ticket")]
    NoTicket,
    #[error("this ticket has been used")]
    Used,
    #[error("this ticket has not been used yet")]
    Unused,
    #[error("there is no such checkpoint")]
    NoCheckpoint,
}

/// A call that is to be carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Admitted {
    /// At most so many.
    RequestTicket(u32),
    Clone(TicketId),
    Checkpoint,
    Create(TicketId, CheckpointId),
    Exit,
    Join(TicketId),
    /// With the number of clones that it ends.
    Kill(TicketId, u32),
}

const _: () = assert!((MOST_CLONES as usize) < MOST_TICKETS, "a ticket can always be forgotten");

struct Issued {
    clones: Vec<CloneId>,
    used: bool,
}

/// The book.
pub(super) struct Book {
    quota: u32,
    tickets: BTreeMap<u32, Issued>,
    statuses: BTreeMap<CloneId, u32>,
    /// The last that the guest asked for; the engine keeps no other.
    checkpoint: Option<CheckpointId>,
    /// A ticket is being asked for; the next one waits until it is known what that leaves.
    requesting: bool,
    under_way: u32,
    tokens: u32,
    refilled: Instant,
}

impl Book {
    pub(super) fn new(quota: u32, now: Instant) -> Self {
        Self {
            quota: quota.min(MOST_CLONES),
            tickets: BTreeMap::new(),
            statuses: BTreeMap::new(),
            checkpoint: None,
            requesting: false,
            under_way: 0,
            tokens: BURST,
            refilled: now,
        }
    }

    /// Judges a call; an admitted one is to be followed by [`Book::finished`].
    pub(super) fn admit(
        &mut self,
        from: CloneId,
        call: Call,
        now: Instant,
        lives: impl Fn(CloneId) -> bool,
    ) -> Result<Admitted, Refused> {
        if self.quota == 0 {
            return Err(Refused::Off);
        }
        if let Call::Exit(status) = call {
            // Never refused for its rate: it costs nothing to be rid of a clone.
            return self.exit(from, status);
        }
        if from != CloneId::PARENT {
            return Err(Refused::NotParent);
        }
        self.pay(now)?;
        let admitted = match call {
            Call::RequestTicket(0) => Err(Refused::NoneAsked),
            Call::RequestTicket(wanted) => self.request(wanted, lives),
            Call::Clone(ticket) => self.use_up(ticket).map(Admitted::Clone),
            Call::Checkpoint => Ok(Admitted::Checkpoint),
            Call::Create { ticket, checkpoint } => {
                let made =
                    self.checkpoint.filter(|made| made.0 == checkpoint).ok_or(Refused::NoCheckpoint)?;
                self.use_up(ticket).map(|ticket| Admitted::Create(ticket, made))
            }
            Call::Join(ticket) => match self.issued(ticket)?.used {
                true => Ok(Admitted::Join(TicketId(ticket))),
                false => Err(Refused::Unused),
            },
            Call::Kill(ticket) => {
                let alive = self.issued(ticket)?.clones.iter().filter(|id| lives(**id)).count();
                Ok(Admitted::Kill(TicketId(ticket), alive as u32))
            }
            Call::Exit(_) => Err(Refused::NotAClone),
        }?;
        self.under_way += 1;
        Ok(admitted)
    }

    /// A call that was admitted is over.
    pub(super) fn finished(&mut self, call: &Admitted) {
        self.under_way = self.under_way.saturating_sub(1);
        if matches!(call, Admitted::RequestTicket(_)) {
            self.requesting = false;
        }
    }

    /// The engine has granted a ticket.
    pub(super) fn granted(&mut self, ticket: TicketId, clones: Vec<CloneId>) {
        self.tickets.insert(ticket.0, Issued { clones, used: false });
    }

    /// The engine has taken a checkpoint for the guest.
    pub(super) fn checkpointed(&mut self, checkpoint: u32) {
        self.checkpoint = Some(CheckpointId(checkpoint));
    }

    /// How the clones of a ticket have ended.
    pub(super) fn joined(&self, ticket: TicketId) -> Ends {
        let clones = self.tickets.get(&ticket.0).map(|issued| issued.clones.as_slice()).unwrap_or_default();
        let status = |id: &CloneId| self.statuses.get(id).copied();
        Ends::of(clones.iter().zip(1..).map(|(id, place)| End { place, status: status(id) }))
    }

    fn exit(&mut self, from: CloneId, status: u32) -> Result<Admitted, Refused> {
        if !self.tickets.values().any(|issued| issued.used && issued.clones.contains(&from)) {
            return Err(Refused::NotAClone);
        }
        self.statuses.entry(from).or_insert(status);
        self.under_way += 1;
        Ok(Admitted::Exit)
    }

    fn request(&mut self, wanted: u32, lives: impl Fn(CloneId) -> bool) -> Result<Admitted, Refused> {
        if self.requesting {
            return Err(Refused::TooMany);
        }
        let held = self.tickets.values().flat_map(|issued| &issued.clones).filter(|id| lives(**id)).count();
        match self.quota.saturating_sub(held as u32) {
            0 => Err(Refused::Quota(self.quota)),
            room => {
                self.forget_an_old_ticket(lives);
                self.requesting = true;
                Ok(Admitted::RequestTicket(wanted.min(room)))
            }
        }
    }

    /// The quota is below the number of tickets, so there is one whose clones have all ended.
    fn forget_an_old_ticket(&mut self, lives: impl Fn(CloneId) -> bool) {
        let over = |issued: &Issued| !issued.clones.iter().any(|id| lives(*id));
        if self.tickets.len() < MOST_TICKETS {
            return;
        }
        let oldest = self.tickets.iter().find(|(_, issued)| over(issued)).map(|(id, _)| *id);
        if let Some(old) = oldest.and_then(|id| self.tickets.remove(&id)) {
            self.statuses.retain(|id, _| !old.clones.contains(id));
        }
    }

    fn issued(&self, ticket: u32) -> Result<&Issued, Refused> {
        self.tickets.get(&ticket).ok_or(Refused::NoTicket)
    }

    fn use_up(&mut self, ticket: u32) -> Result<TicketId, Refused> {
        let issued = self.tickets.get_mut(&ticket).ok_or(Refused::NoTicket)?;
        if issued.used {
            return Err(Refused::Used);
        }
        issued.used = true;
        Ok(TicketId(ticket))
    }

    /// Takes a token, and a place among the calls under way.
    fn pay(&mut self, now: Instant) -> Result<(), Refused> {
        let periods = now.duration_since(self.refilled).as_millis() / PERIOD.as_millis();
        let periods = u32::try_from(periods).unwrap_or(BURST).min(BURST);
        if periods > 0 {
            (self.tokens, self.refilled) = ((self.tokens + periods).min(BURST), now);
        }
        if self.tokens == 0 || self.under_way >= MOST_AT_ONCE {
            return Err(Refused::TooMany);
        }
        self.tokens -= 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests;
