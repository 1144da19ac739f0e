//! SFMD's brain: tickets over many hosts, placement, memberships, the view. No sockets, files or clocks.
//!
//! ```text
//!   input (a host's or user's message, the cluster software's word, time)
//!     -> changes of what is remembered -> wishes for hosts, the view, answers
//! ```
//!
//! After each input everything that follows is worked out anew from what is remembered (`durable`) and
//! what hosts last reported: nothing depends on which message came when, so a restart is no special case.
//! Outputs are to be carried out in their order, a [`Output::Record`] before what comes after it.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::ids::{CheckpointId, Epoch, Name, Session, TicketId, Unique};
use super::message::{FromHost, Reply, Report, Request, ToHost, Wishes};
use super::view::View;

pub mod durable;
pub mod placement;
pub mod record;

mod checkpoints;
mod copies;
pub(in crate::hosts) mod members;
mod requests;
mod show;
mod tickets;
mod wishes;

#[cfg(test)]
mod tests;

use durable::{Change, Durable, RequestKey};
use requests::Waiter;

/// While there is anything to wait for, it is woken at least so often: a longer silence means that SFMD
/// itself did not run.
const WAKES_PER_LEASE: u32 = 4;

/// A connection, as its owner numbers them; never used twice.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ConnectionId(pub u64);

/// How SFMD goes about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// A host that does not report for so long is given up.
    pub lease: Duration,
    /// A host that does not say for so long what it promises gets none of the ticket.
    pub answer_limit: Duration,
    /// Whether the cluster software decides where there is room.
    pub deferred: bool,
}

/// What happens.
#[derive(Debug, Clone)]
pub enum Input {
    /// A host has said something on a connection.
    Host(ConnectionId, Name, FromHost),
    /// A user has.
    User(ConnectionId, Name, Request),
    /// A connection has ended.
    Closed(ConnectionId),
    /// The cluster software has given a ticket a job with room for so many clones on each host.
    Allocated(TicketId, String, BTreeMap<Name, u32>),
    /// It gives none.
    NotAllocated(TicketId, String),
    /// A ticket's job has ended.
    JobEnded(TicketId),
    /// Time has passed.
    Timeout,
}

/// What is to be done.
#[derive(Debug, Clone, PartialEq)]
pub enum Output {
    /// To be on disk before the next output is carried out.
    Record(Change),
    /// A message to a host.
    ToHost(ConnectionId, ToHost),
    /// An answer to a user.
    Answer(ConnectionId, Reply),
    /// A connection is of no use any more.
    HangUp(ConnectionId),
    /// The cluster software is to give a ticket room for so many clones. Said again after a restart.
    Allocate(TicketId, u32),
    /// Jobs of all other tickets are to be ended: a crash came between their tickets' end and theirs.
    Retain(Vec<TicketId>),
    /// A job of a ticket is to be watched. Said again after a restart.
    Watch(TicketId, String),
    /// A ticket needs nothing of the cluster software any more.
    Release(TicketId),
}

/// A connected host.
#[derive(Debug)]
struct Line {
    connection: ConnectionId,
    instance: Unique,
    session: Session,
    report: Option<Report>,
    wishes: Option<Wishes>,
    /// When they were last sent.
    wished: Duration,
    /// When parcels were last sent.
    sent: BTreeMap<(CheckpointId, Epoch), Duration>,
}

/// SFMD's brain. Times count from any moment in the past, the same for all calls.
#[derive(Debug)]
pub struct Master {
    settings: Settings,
    durable: Durable,
    lines: BTreeMap<Name, Line>,
    /// When each member has last reported, or is taken to have.
    heard: BTreeMap<Name, Duration>,
    /// When the hosts of each ticket were asked.
    asked: BTreeMap<TicketId, Duration>,
    parcels: copies::Parcels,
    waiters: Vec<Waiter>,
    view: View,
    outputs: VecDeque<Output>,
    /// When something was last taken in.
    handled: Duration,
}

impl Master {
    /// Goes on from what is remembered. Every member has a whole lease to come back.
    #[must_use]
    pub fn start(durable: Durable, settings: Settings, now: Duration) -> Self {
        let heard = durable.hosts.keys().map(|host| (host.clone(), now)).collect();
        let mut master = Self {
            settings,
            durable,
            lines: BTreeMap::new(),
            heard,
            asked: BTreeMap::new(),
            parcels: copies::Parcels::default(),
            waiters: Vec::new(),
            view: View::default(),
            outputs: VecDeque::new(),
            handled: now,
        };
        master.change(Change::Started);
        master.resume_jobs();
        master.settle(now);
        master
    }

    /// Takes in what has happened.
    pub fn handle(&mut self, now: Duration, input: Input) {
        self.allow_for_standstill(now);
        match input {
            Input::Host(connection, host, FromHost::Hello(hello)) => {
                self.hello(now, connection, &host, &hello)
            }
            Input::Host(connection, host, FromHost::Report(report)) => {
                self.report(now, connection, &host, report);
            }
            Input::Host(connection, host, FromHost::Piece(piece)) => {
                let line = self.lines.get(&host);
                if line.is_some_and(|l| l.connection == connection && l.session == piece.session) {
                    self.piece_came(&host, piece);
                }
            }
            Input::User(connection, by, request) => self.request(now, connection, by, request),
            Input::Closed(connection) => {
                self.lines.retain(|_, line| line.connection != connection);
                self.waiters.retain(|waiter| waiter.connection != connection);
            }
            Input::Allocated(ticket, job, slots) => self.allocated(now, ticket, job, &slots),
            Input::NotAllocated(ticket, why) => self.not_allocated(ticket, &why),
            Input::JobEnded(ticket) => self.kill(ticket, "its job was ended by the cluster software"),
            Input::Timeout => {}
        }
        self.settle(now);
    }

    /// The next thing to be done.
    pub fn poll_output(&mut self) -> Option<Output> {
        self.outputs.pop_front()
    }

    /// When [`Input::Timeout`] is due; `None` if time alone changes nothing.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Duration> {
        let members = self.durable.hosts.iter().filter(|(_, m)| !m.lost);
        let leases = members.filter_map(|(host, _)| Some(*self.heard.get(host)? + self.settings.lease));
        let answers = self.asked.values().map(|at| *at + self.settings.answer_limit);
        let waiters = self.waiters.iter().map(|waiter| waiter.deadline);
        let due = leases.chain(answers).chain(waiters).min()?;
        Some(due.min(self.handled + self.settings.lease / WAKES_PER_LEASE))
    }

    /// What is shown now.
    #[must_use]
    pub fn view(&self) -> &View {
        &self.view
    }

    /// What is remembered.
    #[must_use]
    pub fn durable(&self) -> &Durable {
        &self.durable
    }

    /// All that follows from what is known now.
    fn settle(&mut self, now: Duration) {
        self.end_leases(now);
        self.lease_ids();
        self.settle_checkpoints();
        self.begin_delayed();
        self.settle_tickets(now);
        self.send_wishes(now);
        self.send_parcels(now);
        self.show();
        self.answer_waiters(now);
    }

    fn change(&mut self, change: Change) {
        self.durable.apply(change.clone());
        self.outputs.push_back(Output::Record(change));
    }

    /// What a host has last reported under its present membership.
    fn report_of(&self, host: &Name) -> Option<&Report> {
        self.lines.get(host)?.report.as_ref()
    }

    /// The newest report of a host, if it was made in the knowledge of all that is wished.
    fn informed_report_of(&self, host: &Name) -> Option<&Report> {
        let line = self.lines.get(host)?;
        let wishes = line.wishes.as_ref()?.number;
        line.report.as_ref().filter(|report| report.wishes >= wishes)
    }

    /// Refuses a request for good.
    fn refuse(&mut self, key: RequestKey, why: impl Into<String>) {
        self.change(Change::Refused { key, why: why.into() });
    }

    fn checkpoint_is_held(&self, checkpoint: CheckpointId, host: &Name) -> bool {
        let record = self.durable.checkpoints.get(&checkpoint).filter(|c| c.taken);
        record.and_then(|c| c.hosts.get(host)).is_some_and(|epoch| self.durable.holds(host, *epoch))
    }
}
