//! What SFMD shows: all hosts, tickets, checkpoints and clones at one moment, numbered.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use super::ids::{CheckpointId, Epoch, Name, TicketId};
use super::message::Room;
use crate::control::LifeState;
use crate::network::identity::CloneId;

/// The state of all at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct View {
    /// Grows with every change, over restarts of SFMD too.
    pub number: u64,
    /// Hosts by name.
    pub hosts: Vec<HostView>,
    /// Tickets that have not ended.
    pub tickets: Vec<TicketView>,
    /// Checkpoints that clones can be made from.
    pub checkpoints: Vec<CheckpointView>,
    /// Clones of these tickets, by ID, and the last ones that have ended.
    pub clones: Vec<CloneView>,
}

/// A host.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HostView {
    /// Its name.
    pub name: Name,
    /// Its membership.
    pub epoch: Epoch,
    /// Whether it is heard from.
    pub state: HostState,
    /// What it has room for, as last reported.
    pub room: Room,
    /// Its parent, as last reported.
    pub parent: Option<LifeState>,
}

/// Whether a host is heard from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HostState {
    /// It reports.
    Up,
    /// It does not, and its lease has not ended: its clones are taken to be alive.
    Away,
    /// Its lease has ended: its clones are given up, and end when it comes back.
    Lost,
}

/// A ticket.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TicketView {
    /// Its name.
    pub id: TicketId,
    /// How many clones were wanted.
    pub wanted: u32,
    /// How far it is.
    pub stage: StageView,
    /// The checkpoint that its clones are made from.
    pub checkpoint: Option<CheckpointId>,
    /// The job of the cluster software that it holds, if any.
    pub job: Option<String>,
}

/// How far a ticket is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageView {
    /// Room is being allocated by the cluster software.
    Allocating,
    /// Hosts are being asked.
    Placing,
    /// Clones are promised.
    Granted,
    /// Clones are being made.
    Creating,
    /// All have joined or failed.
    Created,
    /// Its clones are being ended.
    Ending,
}

/// A checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CheckpointView {
    /// Its name.
    pub id: CheckpointId,
    /// Hosts that have it.
    pub hosts: Vec<Name>,
}

/// A clone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CloneView {
    /// Its ID.
    pub id: CloneId,
    /// Where it is.
    pub host: Name,
    /// The ticket that promised it.
    pub ticket: TicketId,
    /// Where it is in its life.
    pub state: LifeState,
    /// Its address in the private network, once its host has told it.
    pub ipv4: Option<Ipv4Addr>,
}
