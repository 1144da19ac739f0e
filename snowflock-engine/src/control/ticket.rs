//! Tickets: the right to so many clones, granted before anything is forked.
//!
//! SnowFlock's `sf_request_ticket(n)` yields a ticket for m <= n clones. A
//! refusal is an answer, not an error.

use std::fmt;

use crate::network::identity::CloneId;

/// Names a ticket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize)]
#[serde(transparent)]
pub struct TicketId(pub u32);

/// The answer to a request for clones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum TicketAnswer {
    /// So many may be made.
    Granted(Ticket),
    /// None may be made.
    Refused(Refusal),
}

/// A granted ticket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// Its name, for `sf_create_clones`, `sf_join` and `sf_kill`.
    pub id: TicketId,
    /// The clones promised, at least one, at most as many as asked for.
    pub clones: Vec<CloneId>,
}

/// Why no clone may be made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// None were asked for.
    NoneAsked,
    /// The host holds as many as it may.
    Full {
        /// The limit, clones.
        limit: u32,
    },
    /// Memory is short.
    NoRoom {
        /// What one more clone is reckoned with, MiB.
        needed_mib: u64,
        /// What the host has left, MiB.
        available_mib: u64,
    },
    /// There is no running parent or checkpoint to fork from.
    NothingToFork,
    /// All clone IDs that the host was given are used.
    NoIds,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoneAsked => f.write_str("no clones were asked for"),
            Self::Full { limit } => write!(f, "the host has all the {limit} clones that it may have"),
            Self::NoRoom { needed_mib, available_mib } => write!(
                f,
                "one more clone is reckoned with {needed_mib} MiB, the host has {available_mib} MiB available"
            ),
            Self::NoIds => f.write_str("all clone IDs that the host was given are used"),
            Self::NothingToFork => f.write_str("the parent does not run, and there is no checkpoint of it"),
        }
    }
}

/// What a host has room for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Room {
    /// Clones that it may hold.
    pub(super) limit: u32,
    /// Clones that it holds or has promised.
    pub(super) held: u32,
    /// Memory available, MiB.
    pub(super) available_mib: u64,
    /// What one clone is reckoned with, MiB.
    pub(super) needed_mib: u64,
}

/// How many of `asked` clones there is room for.
///
/// # Errors
/// The refusal, when there is room for none.
pub(super) fn grant(asked: u32, room: Room) -> Result<u32, Refusal> {
    if asked == 0 {
        return Err(Refusal::NoneAsked);
    }
    let places = room.limit.saturating_sub(room.held);
    if places == 0 {
        return Err(Refusal::Full { limit: room.limit });
    }
    let by_memory = u32::try_from(room.available_mib / room.needed_mib.max(1)).unwrap_or(u32::MAX);
    if by_memory == 0 {
        let Room { needed_mib, available_mib, .. } = room;
        return Err(Refusal::NoRoom { needed_mib, available_mib });
    }
    Ok(asked.min(places).min(by_memory))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const ROOM: Room = Room { limit: 8, held: 3, available_mib: 1000, needed_mib: 100 };

    #[test]
    fn fewer_are_granted_than_asked_when_places_or_memory_are_short() {
        assert_eq!(grant(4, ROOM), Ok(4));
        assert_eq!(grant(9, ROOM), Ok(5));
        assert_eq!(grant(9, Room { available_mib: 250, ..ROOM }), Ok(2));
    }

    #[test]
    fn a_refusal_says_what_is_short() {
        assert_eq!(grant(0, ROOM), Err(Refusal::NoneAsked));
        assert_eq!(grant(1, Room { held: 8, ..ROOM }), Err(Refusal::Full { limit: 8 }));
        let short = grant(1, Room { available_mib: 99, ..ROOM }).unwrap_err();
        assert!(short.to_string().contains("100 MiB"), "{short}");
    }

    proptest! {
        #[test]
        fn a_grant_is_between_one_and_what_was_asked_and_fits(
            asked in 0u32..50, limit in 0u32..50, held in 0u32..60, available_mib in 0u64..5000, needed_mib in 0u64..500,
        ) {
            let room = Room { limit, held, available_mib, needed_mib };
            if let Ok(granted) = grant(asked, room) {
                prop_assert!((1..=asked).contains(&granted));
                prop_assert!(held + granted <= limit);
                prop_assert!(u64::from(granted) * needed_mib <= available_mib);
            }
        }
    }
}
