//! What SFMD, SFLD and their users say to each other; JSON within frames.
//!
//! Between SFMD and a host both sides always tell all there is: what is wished of the host, what is the
//! case there. A message that is lost, late or repeated does no harm, since each is numbered and the
//! newest holds everything.

use std::net::Ipv4Addr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::frame::{self, Frame, FrameError, Kind};
use super::ids::{CheckpointId, Epoch, IdRange, Name, Session, TicketId, Unique};
use super::parcel::Piece;
use crate::control::LifeState;
use crate::network::identity::CloneId;

/// The longest that a request may wait, ms: an hour.
pub const LONGEST_DEADLINE_MS: u32 = 3_600_000;

/// Why a payload is no message.
#[derive(Debug, thiserror::Error)]
pub enum MessageError {
    /// It cannot be read or written.
    #[error("a message is not as PROTOCOL.md has it")]
    Text(#[from] serde_json::Error),
    /// It does not fit into a frame.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// The other end refuses to go on.
    #[error("the other end said: {0}")]
    Refused(String),
}

/// The frame that holds a message.
///
/// # Errors
/// It is longer than a frame may be.
pub fn encode<T: Serialize>(message: &T) -> Result<Vec<u8>, MessageError> {
    Ok(frame::encode(Kind::Message, &serde_json::to_vec(message)?)?)
}

/// The frame that ends a connection with a reason.
#[must_use]
pub fn encode_refusal(why: &str) -> Vec<u8> {
    /// More would not help a reader.
    const LONGEST: usize = 2_000;
    let why: String = why.chars().take(LONGEST).collect();
    let payload = serde_json::Value::String(why).to_string();
    frame::encode(Kind::Refusal, payload.as_bytes()).unwrap_or_default()
}

/// The message in a frame.
///
/// # Errors
/// It is a refusal, or not a message of this type.
pub fn decode<T: DeserializeOwned>(frame: &Frame) -> Result<T, MessageError> {
    match frame.kind {
        Kind::Message => Ok(serde_json::from_slice(&frame.payload)?),
        Kind::Refusal => Err(MessageError::Refused(serde_json::from_slice(&frame.payload)?)),
    }
}

/// From SFLD to SFMD.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum FromHost {
    /// The first message of each connection.
    Hello(Hello),
    /// Sent at every change, and often enough to keep the lease.
    Report(Report),
    /// A piece of what other hosts need of a checkpoint, as wished.
    Piece(Piece),
}

/// Who connects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Hello {
    /// This run of SFLD; its VMs end with it.
    pub instance: Unique,
    /// This connection.
    pub session: Session,
    /// The membership that it believes to have.
    pub epoch: Option<Epoch>,
}

/// All that is the case on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    /// The connection that it belongs to.
    pub session: Session,
    /// Grows with each report of a session.
    pub number: u64,
    /// The newest wishes that it knows.
    pub wishes: u64,
    /// What there is room for.
    pub room: Room,
    /// The parent's state; `None` if it has none.
    pub parent: Option<LifeState>,
    /// Whether checkpoints go to other hosts from here, and come from them.
    pub shares: bool,
    /// The wished checkpoints, copies among them.
    pub checkpoints: Vec<CheckpointReport>,
    /// The wished tickets, and those that are being ended.
    pub tickets: Vec<TicketReport>,
    /// All clones that live, and some that do not.
    pub clones: Vec<CloneReport>,
}

/// What a host has room for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Room {
    /// Clones that may live at once.
    pub limit: u32,
    /// Further clones that memory and limit allow.
    pub free: u32,
    /// Leased clone IDs not yet used.
    pub ids: u32,
}

/// A checkpoint on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointReport {
    /// Which.
    pub checkpoint: CheckpointId,
    /// What became of it.
    pub state: CheckpointState,
}

/// What became of a wished checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CheckpointState {
    /// A copy of which its parcel is still to come.
    Wanted,
    /// Under way.
    Taking,
    /// Clones can be made from it.
    Taken,
    /// It could not be taken.
    Failed(String),
}

/// A ticket's share on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TicketReport {
    /// Which.
    pub ticket: TicketId,
    /// What became of it.
    pub state: ShareState,
}

/// What became of a ticket's share on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ShareState {
    /// The host is being asked.
    Asked,
    /// No clone is promised.
    Refused(String),
    /// These are promised.
    Promised(Vec<CloneId>),
    /// They are being made.
    Creating(Vec<CloneId>),
    /// Each has joined or failed.
    Created(Made),
    /// Its clones are being ended.
    Ending,
}

/// What came of making clones: each is in one of the lists.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Made {
    /// Those with an identity of their own.
    pub joined: Vec<CloneId>,
    /// Those that could not be made, and why.
    pub failed: Vec<(CloneId, String)>,
}

/// A clone on a host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloneReport {
    /// Which.
    pub clone: CloneId,
    /// Where it is in its life.
    pub state: LifeState,
    /// Its address in the private network.
    pub ipv4: Ipv4Addr,
}

/// From SFMD to SFLD.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum ToHost {
    /// Answer to [`Hello`]: the host is a member.
    Welcome(Welcome),
    /// Answer to [`Hello`]: this membership is over. The host ends its clones and comes again without one.
    Fenced {
        /// The connection that it belongs to.
        session: Session,
        /// Names the record of SFMD, as in [`Welcome`].
        master: Unique,
        /// The membership that is over.
        epoch: Epoch,
    },
    /// What is wished from now on.
    Wishes(Wishes),
    /// A piece of what is needed to copy a checkpoint.
    Piece(Piece),
    /// A report has come.
    Seen {
        /// The connection that it belongs to.
        session: Session,
        /// Its number.
        report: u64,
    },
}

/// A membership.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Welcome {
    /// The connection that it belongs to.
    pub session: Session,
    /// Names the record of SFMD: one with another record is another master.
    pub master: Unique,
    /// The membership.
    pub epoch: Epoch,
    /// Without a report for so long the membership is over, ms.
    pub lease_ms: u32,
}

/// All that is wished of a host. A ticket that is not mentioned is to be ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Wishes {
    /// The connection that they belong to.
    pub session: Session,
    /// Grows with each change within a session.
    pub number: u64,
    /// All clone IDs that the host may use.
    pub ids: Vec<IdRange>,
    /// Checkpoints of the host's parent to take, or to keep in mind.
    pub checkpoints: Vec<CheckpointId>,
    /// Checkpoints of other hosts to have copies of.
    pub copies: Vec<CopyWish>,
    /// Checkpoints of which SFMD is to be told what other hosts need.
    pub parcels: Vec<CheckpointId>,
    /// Checkpoints that clones on other hosts still need.
    pub held: Vec<CheckpointId>,
    /// Tickets to grant, or to keep.
    pub tickets: Vec<TicketWish>,
    /// Clones whose life is to go on to a further state.
    pub clones: Vec<CloneWish>,
}

/// A copy of another host's checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CopyWish {
    /// Which.
    pub checkpoint: CheckpointId,
    /// The membership of the host that has taken it: with another one it is another checkpoint.
    pub from: Epoch,
}

/// A ticket's share on a host, as wished.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TicketWish {
    /// Which.
    pub ticket: TicketId,
    /// Clones to promise, at most.
    pub clones: u32,
    /// Once they are to be made: from which checkpoint.
    pub create_from: Option<CheckpointId>,
}

/// The state that a clone is to reach.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloneWish {
    /// Which.
    pub clone: CloneId,
    /// What is wished.
    pub goal: CloneGoal,
}

/// What is wished of a clone; a later one includes the earlier ones.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum CloneGoal {
    /// Whoever serves requests says that it answers, since so many ms after its birth began.
    Ready {
        /// Time from the start of its birth to its first response, ms.
        first_response_ms: u32,
    },
    /// It gets no new requests.
    Retiring,
    /// It is to be ended.
    Gone,
}

/// From a user (`sf`, `flurry`) to SFMD.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    /// Names the request: a second one of the same name, sent because no answer came, gets the answer of
    /// the first and does nothing anew.
    pub id: Unique,
    /// How long the answer may take, ms, at most [`LONGEST_DEADLINE_MS`].
    pub deadline_ms: u32,
    /// What is asked.
    pub ask: Ask,
}

/// What can be asked of SFMD.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Ask {
    /// The right to so many clones, or to fewer.
    RequestTicket {
        /// How many are wanted.
        clones: u32,
    },
    /// A checkpoint of the parent on each host that has one.
    Checkpoint,
    /// The clones of a ticket, from a checkpoint.
    CreateClones {
        /// The ticket.
        ticket: TicketId,
        /// The checkpoint.
        checkpoint: CheckpointId,
    },
    /// Wait until all clones of a ticket have ended.
    Join {
        /// The ticket.
        ticket: TicketId,
    },
    /// End a ticket and its clones.
    Kill {
        /// The ticket.
        ticket: TicketId,
    },
    /// Bring one clone on: it answers, it retires, it ends.
    Advance(CloneWish),
    /// The view: now, or as soon as it has a higher number than this.
    View {
        /// The number that is known already; 0 for none.
        after: u64,
    },
}

/// SFMD's answer to a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reply {
    /// The request.
    pub id: Unique,
    /// The answer.
    pub answer: Answer,
}

/// What SFMD answers. A refusal is an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Answer {
    /// A ticket was granted.
    Ticket {
        /// Its name.
        ticket: TicketId,
        /// The clones promised, at least one, and where.
        clones: Vec<(CloneId, Name)>,
    },
    /// It cannot be done, for this reason; repeating it will not help.
    Refused {
        /// The reason, and what would help.
        why: String,
    },
    /// A checkpoint was taken.
    Checkpoint {
        /// Its name.
        checkpoint: CheckpointId,
        /// The hosts that have it.
        hosts: Vec<Name>,
    },
    /// The clones were made, or not.
    Created(Made),
    /// It is done.
    Done,
    /// The view.
    View(super::view::View),
    /// The deadline has passed and it goes on; the same request again waits further.
    Unfinished,
}
