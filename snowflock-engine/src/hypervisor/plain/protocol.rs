//! What the driver and a plain VM say to each other: JSON over SEQPACKET, one
//! answer for each request. Both ends come from one build.

use std::io;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::sys::fdpass::Channel;

/// The guest finds its control line here.
pub(super) const CONTROL_FD: i32 = 3;
/// The guest's end of the line to its agent.
pub(super) const AGENT_FD: i32 = 4;
/// The RAM file of a root parent.
pub(super) const RAM_FD: i32 = 5;

/// In a VM's folder: the socket where its memory is handed over.
pub(super) const SHIM_SOCKET: &str = "shim";
/// In a VM's folder: the socket where vCPUs take commands.
pub(super) const VCPU_SOCKET: &str = "vcpu";

/// The state of a plain VM outside its memory.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Registers {
    /// State of the program that [`super::Vcpu::run`] runs.
    pub accumulator: u64,
    /// Steps that it has run.
    pub steps: u64,
}

/// What the driver asks of a VM.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Control {
    Pause,
    Resume,
    Describe,
    Seed(Registers),
}

/// What a vCPU is told to do. It hangs while a page that it needs is not there, or the VM is paused.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(super) enum Order {
    /// Write these pages with the content of `seed`.
    Write { first: u32, count: u32, order: u64, seed: u64 },
    /// Compare these pages with the content of `seed`.
    Check { first: u32, count: u32, order: u64, seed: u64 },
    /// Add up all of memory.
    Sum,
    /// Run the program on.
    Run { steps: u64 },
    /// Give the registers.
    Registers,
}

/// Pages compared, and those that are wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// How many were compared.
    pub checked: u32,
    /// How many were wrong.
    pub wrong: u32,
    /// The first wrong one.
    pub first_wrong: Option<u32>,
}

/// A VM's answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Answer {
    Done,
    Registers(Registers),
    Verdict(Verdict),
    Sum(u64),
    Failed(String),
}

/// Sends a request or an answer.
pub(super) fn say<T: Serialize>(channel: &Channel, message: &T) -> io::Result<()> {
    channel.send(&serde_json::to_vec(message)?, &[])
}

/// Waits for one.
pub(super) fn hear<T: DeserializeOwned>(channel: &Channel) -> io::Result<T> {
    Ok(serde_json::from_slice(&channel.receive()?.bytes)?)
}
