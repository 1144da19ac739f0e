//! SFLD's brain: does on its host what SFMD wishes, and reports what is the case. No sockets, no Engine.
//!
//! ```text
//!   wishes, what the Engine shows, what came of orders, time
//!     -> orders for the Engine, reports to SFMD
//! ```
//!
//! A connection may break at any moment: nothing is forgotten then, and the Engine's clones live on. What
//! a membership means, and when it is over, stands in `PROTOCOL.md`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::ids::{CheckpointId, Epoch, IdRange, Session, TicketId, Unique};
use super::message::{
    CloneGoal, CloneReport, CloneWish, FromHost, Hello, Made, Report, Room, ToHost, Welcome, Wishes,
};
use super::parcel::Piece;
use crate::control::{LifeState, TicketId as LocalTicket};
use crate::memory::protocol::CheckpointId as LocalCheckpoint;
use crate::network::identity::CloneId;

mod copies;
mod duties;

use copies::Export;
use duties::{Frozen, Share};

/// Until a lease is known, SFMD must have welcomed within this.
const WELCOME_LIMIT: Duration = Duration::from_secs(5);
/// Reports in one lease, at least.
const REPORTS_PER_LEASE: u32 = 4;

/// What the Engine shows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostState {
    /// What there is room for.
    pub room: Room,
    /// The parent's state.
    pub parent: Option<LifeState>,
    /// Whether checkpoints go to other hosts and come from them.
    pub shares: bool,
    /// Checkpoints of the parent that live, as the Engine numbers them.
    pub checkpoints: BTreeSet<LocalCheckpoint>,
    /// All clones that live, and some that do not.
    pub clones: Vec<CloneReport>,
}

/// What happens.
#[derive(Debug, Clone)]
pub enum Input {
    /// A connection with SFMD is there.
    Connected,
    /// It is gone.
    Disconnected,
    /// SFMD has said something.
    Said(ToHost),
    /// The Engine shows something new.
    Shows(HostState),
    /// What came of an order, and what the Engine has shown since.
    Done(Outcome, HostState),
    /// Time has passed.
    Timeout,
}

/// What came of an order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// Clones are promised, or not.
    Ticket(TicketId, Result<(LocalTicket, Vec<CloneId>), String>),
    /// A checkpoint was taken, or not.
    Checkpoint(CheckpointId, Result<LocalCheckpoint, String>),
    /// What other hosts need of a checkpoint.
    Exported(CheckpointId, Result<Arc<Vec<u8>>, String>),
    /// Clones of another host's checkpoint can be made, or not.
    Imported(CheckpointId, Epoch, Result<LocalCheckpoint, String>),
    /// Each clone has joined or failed; or nothing was begun.
    Created(TicketId, Result<Made, String>),
    /// Nothing of a ticket is left.
    Killed(TicketId),
    /// The clone IDs are used.
    UsesIds,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Output {
    /// A message for SFMD.
    Say(FromHost),
    /// The connection is of no use; make another.
    HangUp(&'static str),
    /// Something for the Engine. Each is answered by an [`Outcome`] unless it says otherwise.
    Order(Order),
}

/// What the Engine is to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// `sf_request_ticket`.
    Ticket(TicketId, u32),
    /// `sf_checkpoint_parent`.
    Checkpoint(CheckpointId),
    /// `sf_create_clones`.
    Create(TicketId, LocalTicket, LocalCheckpoint),
    /// `sf_kill`.
    Kill(TicketId, LocalTicket),
    /// `ready`, `retire` or `sf_exit`. No outcome.
    Advance(CloneWish),
    /// `export`.
    Export(CheckpointId, LocalCheckpoint),
    /// `import`.
    Import(CheckpointId, Epoch, Arc<Vec<u8>>),
    /// `hold`: these alone. No outcome.
    Hold(Vec<LocalCheckpoint>),
    /// `release`. No outcome.
    Release(LocalCheckpoint),
    /// Clone IDs to use: these alone.
    UseIds(Vec<IdRange>),
}

/// A connection, and how far its greeting is.
#[derive(Debug)]
struct Line {
    welcomed: bool,
    /// When SFMD was last heard.
    heard: Duration,
    reports: u64,
    last: Option<(Duration, Report)>,
}

/// SFLD's brain.
#[derive(Debug)]
pub struct Steward {
    instance: Unique,
    session: Session,
    master: Option<Unique>,
    epoch: Option<Epoch>,
    /// The membership is over; its clones are being ended.
    fenced: bool,
    lease: Duration,
    line: Option<Line>,
    wishes: Option<Wishes>,
    ids: Vec<IdRange>,
    /// Orders under way to use further IDs, oldest first, and how many each brings: the Engine does not show
    /// them yet.
    ids_coming: VecDeque<u32>,
    tickets: BTreeMap<TicketId, Share>,
    checkpoints: BTreeMap<CheckpointId, Frozen>,
    /// Which of them are copies, and of which membership's.
    copies: BTreeMap<CheckpointId, Epoch>,
    exports: BTreeMap<CheckpointId, Export>,
    held: Vec<LocalCheckpoint>,
    advanced: BTreeMap<CloneId, CloneGoal>,
    host: HostState,
    outputs: VecDeque<Output>,
}

impl Steward {
    /// One without a membership, for this run of SFLD.
    #[must_use]
    pub fn new(instance: Unique) -> Self {
        Self {
            instance,
            session: Session(0),
            master: None,
            epoch: None,
            fenced: false,
            lease: WELCOME_LIMIT,
            line: None,
            wishes: None,
            ids: Vec::new(),
            ids_coming: VecDeque::new(),
            tickets: BTreeMap::new(),
            checkpoints: BTreeMap::new(),
            copies: BTreeMap::new(),
            exports: BTreeMap::new(),
            held: Vec::new(),
            advanced: BTreeMap::new(),
            host: HostState::default(),
            outputs: VecDeque::new(),
        }
    }

    /// Takes in what has happened. Times count from any moment in the past, the same for all calls.
    pub fn handle(&mut self, now: Duration, input: Input) {
        match input {
            Input::Connected => self.connected(now),
            Input::Disconnected => self.line = None,
            Input::Said(message) => self.said(now, message),
            Input::Shows(host) => self.shows(host),
            Input::Done(outcome, host) => {
                self.shows(host);
                self.done(outcome);
            }
            Input::Timeout => {}
        }
        self.finish_fencing();
        self.do_duties(now);
        self.report(now);
        self.check_silence(now);
    }

    /// The next thing to be done.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Timeout`] is due; `None` if time alone changes nothing.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        let line = self.line.as_ref()?;
        let silence = line.heard + self.lease;
        let report = line.last.as_ref().map(|(at, _)| *at + self.lease / REPORTS_PER_LEASE);
        Some(report.map_or(silence, |report| report.min(silence)))
    }

    /// The present membership.
    #[must_use]
    pub fn epoch(&self) -> Option<Epoch> {
        self.epoch
    }

    fn connected(&mut self, now: Duration) {
        self.session = Session(self.session.0 + 1);
        self.wishes = None;
        self.tell_parcels_anew();
        self.line = Some(Line { welcomed: false, heard: now, reports: 0, last: None });
        let hello = Hello { instance: self.instance, session: self.session, epoch: self.epoch };
        self.outputs.push_back(Output::Say(FromHost::Hello(hello)));
    }

    fn said(&mut self, now: Duration, message: ToHost) {
        let session = match &message {
            ToHost::Welcome(Welcome { session, .. })
            | ToHost::Fenced { session, .. }
            | ToHost::Wishes(Wishes { session, .. })
            | ToHost::Piece(Piece { session, .. })
            | ToHost::Seen { session, .. } => *session,
        };
        let Some(line) = self.line.as_mut().filter(|_| session == self.session) else { return };
        line.heard = now;
        match message {
            ToHost::Welcome(welcome) => self.welcomed(&welcome),
            ToHost::Fenced { master, epoch, .. } => self.fenced(master, epoch),
            ToHost::Wishes(wishes) => {
                let is_newest = self.wishes.as_ref().is_none_or(|last| last.number < wishes.number);
                if line.welcomed && is_newest {
                    self.wishes = Some(wishes);
                }
            }
            ToHost::Piece(piece) => self.piece_came(piece),
            ToHost::Seen { .. } => {}
        }
    }

    fn welcomed(&mut self, welcome: &Welcome) {
        if self.is_foreign(welcome.master) {
            return;
        }
        self.master = Some(welcome.master);
        self.epoch = Some(welcome.epoch);
        self.lease = Duration::from_millis(welcome.lease_ms.max(1).into());
        if let Some(line) = &mut self.line {
            line.welcomed = true;
        }
    }

    fn fenced(&mut self, master: Unique, epoch: Epoch) {
        if self.epoch == Some(epoch) && !self.is_foreign(master) {
            tracing::warn!(%epoch, "SFMD has given this host up: its clones end");
            self.fenced = true;
        }
    }

    /// Whether an SFMD is not the one whose clones live here; it is not obeyed then.
    fn is_foreign(&mut self, master: Unique) -> bool {
        let foreign = self.master.is_some_and(|ours| ours != master) && self.has_clones();
        if foreign {
            self.line = None;
            let why =
                "this SFMD has another record than the one whose clones live here; restart sfld to obey it";
            self.outputs.push_back(Output::HangUp(why));
        }
        foreign
    }

    fn has_clones(&self) -> bool {
        let promised = self.tickets.values().any(|share| !matches!(share, Share::Refused(_)));
        promised || self.host.clones.iter().any(|clone| clone.state.is_alive())
    }

    /// Once nothing is left of a membership that is over, the host comes again without one.
    fn finish_fencing(&mut self) {
        if !self.fenced || self.has_clones() {
            return;
        }
        self.fenced = false;
        self.epoch = None;
        self.tickets.clear();
        self.checkpoints.clear();
        self.copies.clear();
        self.exports.clear();
        self.advanced.clear();
        if self.line.take().is_some() {
            self.outputs.push_back(Output::HangUp("the membership is over; coming again without it"));
        }
    }

    /// Reports if there is something new, or if it is time to.
    fn report(&mut self, now: Duration) {
        let period = self.lease / REPORTS_PER_LEASE;
        let Some(report) = self.report_now() else { return };
        let Some(line) = &mut self.line else { return };
        if let Some((at, last)) = &line.last
            && *at + period > now
            && *last == (Report { number: last.number, ..report.clone() })
        {
            return;
        }
        line.reports += 1;
        let report = Report { number: line.reports, ..report };
        line.last = Some((now, report.clone()));
        self.outputs.push_back(Output::Say(FromHost::Report(report)));
    }

    fn report_now(&self) -> Option<Report> {
        self.line.as_ref().filter(|line| line.welcomed)?;
        Some(Report {
            session: self.session,
            number: 0,
            wishes: self.wishes.as_ref().map_or(0, |wishes| wishes.number),
            room: self.room(),
            parent: self.host.parent.clone(),
            shares: self.host.shares,
            checkpoints: self.checkpoint_reports(),
            tickets: self.ticket_reports(),
            clones: self.host.clones.clone(),
        })
    }

    /// Without IDs that were leased already SFMD would lease as many again.
    fn room(&self) -> Room {
        let coming = self.ids_coming.iter().sum::<u32>();
        Room { ids: self.host.room.ids.saturating_add(coming), ..self.host.room }
    }

    /// A connection on which nothing comes any more is made anew.
    fn check_silence(&mut self, now: Duration) {
        if self.line.as_ref().is_some_and(|line| line.heard + self.lease <= now) {
            self.line = None;
            self.outputs.push_back(Output::HangUp("nothing was heard of SFMD for a whole lease"));
        }
    }
}
