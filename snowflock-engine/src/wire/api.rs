//! What a process in a guest may ask of the engine, and the answers: SnowFlock's calls.
//!
//! ```text
//! guest                                 host
//!   Call(n, Clone(ticket))  ------->           checkpoint of the guest, clones of it
//!                           <-------  ForkedBy(n), Identify      to each clone, with its place
//!                           <-------  Answer(n, Forked)          to the parent
//! ```
//!
//! A clone holds the same unanswered call as its parent: `ForkedBy` says that the clone is the outcome of
//! this one, and of no other. Counts are bounded so that each message fits a frame.

use super::fields::{Malformed, Name, Reader, Writer};

/// How many clones one ticket of a guest may have: their ends fit one answer.
pub const MOST_CLONES: u32 = 48;

/// A call of a process in a guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// `sf_request_ticket`: so many clones are wanted.
    RequestTicket(u32),
    /// `sf_clone` with this ticket.
    Clone(u32),
    /// `sf_checkpoint_parent`.
    Checkpoint,
    /// `sf_create_clones`.
    Create {
        /// The ticket.
        ticket: u32,
        /// What to make them from.
        checkpoint: u32,
    },
    /// `sf_exit`: the clone ends with this status.
    Exit(u32),
    /// `sf_join`: waits for the end of the ticket's clones.
    Join(u32),
    /// `sf_kill`: ends the ticket's clones, or gives the ticket back.
    Kill(u32),
}

/// How a clone has ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct End {
    /// The clone's place among those of its ticket, from 1.
    pub place: u32,
    /// What it said to `sf_exit`; `None` if it ended otherwise.
    pub status: Option<u32>,
}

/// The ends of a ticket's clones, in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ends {
    count: u8,
    ends: [End; MOST_CLONES as usize],
}

impl Ends {
    /// As many as fit, which is all that a ticket can have.
    pub fn of(ends: impl IntoIterator<Item = End>) -> Self {
        let mut all = Self { count: 0, ends: [End::default(); MOST_CLONES as usize] };
        for (place, end) in all.ends.iter_mut().zip(ends) {
            *place = end;
            all.count += 1;
        }
        all
    }

    /// In the order of the clones' places.
    pub fn iter(&self) -> impl Iterator<Item = &End> {
        self.ends[..usize::from(self.count)].iter()
    }
}

/// The answer to a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "nothing here allocates, and one exists at a time")]
pub enum Answer {
    /// A ticket for so many clones.
    Ticket {
        /// Its name.
        ticket: u32,
        /// How many clones it is for.
        clones: u32,
    },
    /// The fork is done, and this is the parent. The number is that of the checkpoint, or of clones that joined.
    Forked(u32),
    /// Done; how many clones it concerned.
    Done(u32),
    /// All clones of the ticket have ended.
    Ended(Ends),
    /// Not done, and why.
    Refused(Name),
}

impl Call {
    /// Does the call return in clones as well?
    pub fn forks(self) -> bool {
        matches!(self, Self::Clone(_) | Self::Checkpoint)
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match r.u8("call")? {
            1 => Self::RequestTicket(r.u32("wanted")?),
            2 => Self::Clone(r.u32("ticket")?),
            3 => Self::Checkpoint,
            4 => Self::Create { ticket: r.u32("ticket")?, checkpoint: r.u32("checkpoint")? },
            5 => Self::Exit(r.u32("status")?),
            6 => Self::Join(r.u32("ticket")?),
            7 => Self::Kill(r.u32("ticket")?),
            _ => return Err(Malformed("call")),
        })
    }

    pub(super) fn write(self, w: &mut Writer<'_>) {
        let (code, number) = match self {
            Self::RequestTicket(wanted) => (1, Some(wanted)),
            Self::Clone(ticket) => (2, Some(ticket)),
            Self::Checkpoint => (3, None),
            Self::Create { ticket, .. } => (4, Some(ticket)),
            Self::Exit(status) => (5, Some(status)),
            Self::Join(ticket) => (6, Some(ticket)),
            Self::Kill(ticket) => (7, Some(ticket)),
        };
        w.u8(code);
        number.into_iter().for_each(|number| w.u32(number));
        if let Self::Create { checkpoint, .. } = self {
            w.u32(checkpoint);
        }
    }
}

impl Answer {
    /// A refusal in words; they are cut to what fits.
    pub fn refused(why: &str) -> Self {
        Self::Refused(Name::cut(why))
    }

    pub(super) fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(match r.u8("answer")? {
            1 => Self::Ticket { ticket: r.u32("ticket")?, clones: r.u32("clones")? },
            2 => Self::Forked(r.u32("forked")?),
            3 => Self::Done(r.u32("done")?),
            4 => Self::Ended(read_ends(r)?),
            5 => Self::Refused(r.name("why")?),
            _ => return Err(Malformed("answer")),
        })
    }

    pub(super) fn write(&self, w: &mut Writer<'_>) {
        match self {
            Self::Ticket { ticket, clones } => {
                w.u8(1);
                w.u32(*ticket);
                w.u32(*clones);
            }
            Self::Forked(number) => {
                w.u8(2);
                w.u32(*number);
            }
            Self::Done(number) => {
                w.u8(3);
                w.u32(*number);
            }
            Self::Ended(ends) => {
                w.u8(4);
                write_ends(ends, w);
            }
            Self::Refused(why) => {
                w.u8(5);
                w.name(why);
            }
        }
    }
}

fn read_ends(r: &mut Reader<'_>) -> Result<Ends, Malformed> {
    let count = r.u8("ends")?;
    if u32::from(count) > MOST_CLONES {
        return Err(Malformed("ends"));
    }
    let mut ends = Ends::of([]);
    for room in &mut ends.ends[..usize::from(count)] {
        let (place, said, status) = (r.u32("place")?, r.u8("said")?, r.u32("status")?);
        *room = End { place, status: (said != 0).then_some(status) };
    }
    ends.count = count;
    Ok(ends)
}

fn write_ends(ends: &Ends, w: &mut Writer<'_>) {
    w.u8(ends.count);
    for end in ends.iter() {
        w.u32(end.place);
        w.u8(u8::from(end.status.is_some()));
        w.u32(end.status.unwrap_or(0));
    }
}

/// A request, a tag, a count and all ends.
const _: () = assert!(4 + 1 + 1 + 9 * MOST_CLONES as usize <= super::frame::MAX_PAYLOAD);
