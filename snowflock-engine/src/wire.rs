//! What the host and the agent inside a guest say to each other over the virtio-serial port.
//!
//! ```text
//! guest                          host
//!   Hello (repeated)  ------->          boot: until the host says anything
//!                     <-------  Identify
//!   Identified        ------->
//!                     <-------  RunHooks(before freeze)     before a fork
//!   HooksDone         ------->
//!        ~~~ fork: the clone's agent still sits in read() ~~~
//!                     <-------  Identify (repeated)         to each clone
//!   Identified        ------->
//! ```
//!
//! The agent answers every request with the request's own id, so a repeated `Identify` is harmless.
//! A periodic report would wake an idle clone and dirty its pages, hence the host asks.
//! `guest-hooks/CONTRACT.md` describes the bytes; `frame` holds the framing. Nothing here allocates.

pub mod api;
mod fields;
pub mod frame;

use std::net::Ipv4Addr;

use api::{Answer, Call};
pub use fields::{Malformed, Name};
use fields::{Reader, Writer};
pub use frame::{Decoder, Frame, MAX_FRAME, VERSION};

/// The name of the virtio-serial port that carries this protocol.
pub const PORT_NAME: &str = "org.flurry.agent.0";

/// Ties an answer to its request. The host chooses it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RequestId(pub u32);

/// Everything that must differ between a clone and its parent before the clone may serve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// 0 is the parent.
    pub clone_id: u32,
    /// How many clones the fork made, without the parent.
    pub clones: u32,
    /// The wall clock at sending, in nanoseconds since 1970.
    pub unix_time_ns: u64,
    /// The interface's address; never a multicast one.
    pub mac: [u8; 6],
    /// The interface's only IPv4 address.
    pub ipv4: Ipv4Addr,
    /// Length of the network prefix, 0..=32.
    pub prefix_len: u8,
    /// The default router; `0.0.0.0` for none.
    pub gateway: Ipv4Addr,
    /// The parent's address, for the user's hooks.
    pub parent_ipv4: Ipv4Addr,
    /// Fresh randomness for the kernel's pool.
    pub entropy: [u8; 32],
    /// The host name to take; empty keeps the one that is there.
    pub hostname: Name,
}

/// A moment at which the user's hooks run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum HookEvent {
    /// In the parent, before its state is frozen for a fork.
    BeforeFreeze = 1,
    /// In a clone, after it has its address. Runs as a part of `Identify`.
    AfterBirth = 2,
    /// In a clone, before it is killed.
    BeforeExit = 3,
}

impl HookEvent {
    /// The name of the event in file names and in the environment of hooks.
    pub fn name(self) -> &'static str {
        match self {
            Self::BeforeFreeze => "before-freeze",
            Self::AfterBirth => "after-birth",
            Self::BeforeExit => "before-exit",
        }
    }

    fn from_wire(code: u8) -> Result<Self, Malformed> {
        match code {
            1 => Ok(Self::BeforeFreeze),
            2 => Ok(Self::AfterBirth),
            3 => Ok(Self::BeforeExit),
            _ => Err(Malformed("event")),
        }
    }
}

/// What the host says.
#[derive(Debug, Clone, PartialEq, Eq)]
#[allow(clippy::large_enum_variant, reason = "nothing here allocates, and one exists at a time")]
pub enum HostMessage {
    /// The answer to a Hello when the identity comes later.
    Welcome,
    /// Become this; answered by [`GuestMessage::Identified`].
    Identify(RequestId, Identity),
    /// Are you there; answered by [`GuestMessage::Pong`].
    Ping(RequestId),
    /// Run the user's hooks of this event, all within `deadline_ms` milliseconds;
    /// answered by [`GuestMessage::HooksDone`].
    RunHooks {
        /// Comes back in the answer.
        request: RequestId,
        /// Which hooks.
        event: HookEvent,
        /// For all of them together, in milliseconds.
        deadline_ms: u32,
    },
    /// How is the guest doing; answered by [`GuestMessage::Report`].
    AskReport(RequestId),
    /// Power off; answered by [`GuestMessage::ShuttingDown`] before it begins.
    Shutdown(RequestId),
    /// The answer to a call of the guest; the number is the guest's.
    Answer(RequestId, Answer),
    /// Ahead of a clone's Identify: the fork is the outcome of this call of its parent. Without it, the fork
    /// is none of the guest's doing.
    ForkedBy {
        /// The parent's number of the call.
        call: RequestId,
        /// The clone's place among those of its ticket, from 1.
        place: u32,
    },
}

/// Which steps of taking an identity failed, as a set.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Failures(pub u8);

impl Failures {
    /// The kernel's random pool took no entropy: the clone would repeat its siblings' secrets.
    pub const ENTROPY: Self = Self(1);
    /// The clock could not be stepped.
    pub const CLOCK: Self = Self(2);
    /// The MAC address was refused.
    pub const MAC: Self = Self(4);
    /// The IPv4 address was refused.
    pub const ADDRESS: Self = Self(8);
    /// The default route was refused.
    pub const ROUTE: Self = Self(16);
    /// A user's hook failed or ran out of time.
    pub const HOOKS: Self = Self(32);
    /// The host name was refused.
    pub const HOSTNAME: Self = Self(64);
    /// The machine id could not be renewed.
    pub const MACHINE_ID: Self = Self(128);

    /// Adds another failure.
    pub fn insert(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Is this failure among them?
    pub fn contains(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// Did all steps succeed?
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }
}

impl std::fmt::Display for Failures {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names = ["entropy", "clock", "mac", "address", "route", "hooks", "hostname", "machine id"];
        let failed = names.iter().enumerate().filter(|(bit, _)| self.0 & (1 << bit) != 0);
        let mut first = true;
        for (_, name) in failed {
            write!(f, "{}{name}", if first { "" } else { ", " })?;
            first = false;
        }
        if first { f.write_str("none") } else { Ok(()) }
    }
}

/// How a guest is doing, as the guest tells it. A guest may lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Vitals {
    /// The one-minute load average in thousandths.
    pub load_milli: u32,
    /// All memory, in KiB.
    pub memory_total_kib: u32,
    /// Memory available without swapping, in KiB.
    pub memory_available_kib: u32,
    /// Milliseconds since boot.
    pub uptime_ms: u64,
}

/// What the agent says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum GuestMessage {
    /// The agent is up; repeated until the host says anything.
    Hello {
        /// The kernel's; it differs after a reboot, not after a fork.
        boot_id: [u8; 16],
    },
    /// The identity was taken, except for what failed.
    Identified {
        /// The request answered.
        request: RequestId,
        /// The clone that it now is.
        clone_id: u32,
        /// The steps that failed.
        failed: Failures,
        /// From the message to this answer by the guest's own clock, in microseconds.
        took_us: u32,
    },
    /// Yes.
    Pong {
        /// The request answered.
        request: RequestId,
        /// The clone that answers.
        clone_id: u32,
    },
    /// The hooks ran.
    HooksDone {
        /// The request answered.
        request: RequestId,
        /// Which hooks.
        event: HookEvent,
        /// How many were started.
        ran: u16,
        /// How many of those failed or were killed at the deadline.
        failed: u16,
        /// File name of the first that failed; empty when none did.
        first_failed: Name,
    },
    /// The vitals asked for.
    Report(RequestId, Vitals),
    /// The guest is going down.
    ShuttingDown(RequestId),
    /// A process in the guest asks for something; the guest chooses the number.
    Call(RequestId, Call),
}

/// Why a frame that arrived whole is not a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireError {
    /// The other side speaks another version of the protocol.
    Version(u8),
    /// No such message in this direction.
    Kind(u8),
    /// The named field holds what it cannot hold, or is missing.
    Field(&'static str),
}

impl std::fmt::Display for WireError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Version(theirs) => write!(f, "the other side speaks version {theirs}, this side {VERSION}"),
            Self::Kind(kind) => write!(f, "no message of kind {kind:#04x} goes in this direction"),
            Self::Field(name) => write!(f, "the message's field {name} is missing or out of range"),
        }
    }
}

impl std::error::Error for WireError {}

impl From<Malformed> for WireError {
    fn from(Malformed(field): Malformed) -> Self {
        Self::Field(field)
    }
}

fn opened<'a>(frame: &Frame<'a>) -> Result<Reader<'a>, WireError> {
    if frame.version == VERSION {
        Ok(Reader::new(frame.payload))
    } else {
        Err(WireError::Version(frame.version))
    }
}

impl HostMessage {
    /// Writes the message as one frame into `out` and returns the frame's bytes.
    pub fn encode<'a>(&self, out: &'a mut [u8; MAX_FRAME]) -> &'a [u8] {
        frame::seal(self.kind(), out, |room| self.fill(&mut Writer::new(room)))
    }

    /// Reads a frame that the host sent.
    ///
    /// # Errors
    /// Another version, an unknown kind, or a field out of its range; the frame is to be ignored.
    pub fn parse(frame: &Frame<'_>) -> Result<Self, WireError> {
        let mut r = opened(frame)?;
        let message = match frame.kind {
            0x01 => Self::Welcome,
            0x02 => Self::Identify(r.request()?, Identity::read(&mut r)?),
            0x03 => Self::Ping(r.request()?),
            0x04 => Self::RunHooks {
                request: r.request()?,
                event: HookEvent::from_wire(r.u8("event")?)?,
                deadline_ms: r.u32("deadline_ms")?,
            },
            0x05 => Self::AskReport(r.request()?),
            0x06 => Self::Shutdown(r.request()?),
            0x07 => Self::Answer(r.request()?, Answer::read(&mut r)?),
            0x08 => Self::ForkedBy { call: r.request()?, place: r.u32("place")? },
            kind => return Err(WireError::Kind(kind)),
        };
        r.finish()?;
        Ok(message)
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Welcome => 0x01,
            Self::Identify(..) => 0x02,
            Self::Ping(_) => 0x03,
            Self::RunHooks { .. } => 0x04,
            Self::AskReport(_) => 0x05,
            Self::Shutdown(_) => 0x06,
            Self::Answer(..) => 0x07,
            Self::ForkedBy { .. } => 0x08,
        }
    }

    fn fill(&self, w: &mut Writer<'_>) -> usize {
        match self {
            Self::Welcome => {}
            Self::Identify(request, identity) => {
                w.request(*request);
                identity.write(w);
            }
            Self::Ping(request) | Self::AskReport(request) | Self::Shutdown(request) => w.request(*request),
            Self::ForkedBy { call, place } => {
                w.request(*call);
                w.u32(*place);
            }
            Self::Answer(request, answer) => {
                w.request(*request);
                answer.write(w);
            }
            Self::RunHooks { request, event, deadline_ms } => {
                w.request(*request);
                w.u8(*event as u8);
                w.u32(*deadline_ms);
            }
        }
        w.used()
    }
}

impl Identity {
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        let identity = Self {
            clone_id: r.u32("clone_id")?,
            clones: r.u32("clones")?,
            unix_time_ns: r.u64("unix_time_ns")?,
            mac: r.bytes("mac")?,
            ipv4: Ipv4Addr::from(r.bytes("ipv4")?),
            prefix_len: r.u8("prefix_len")?,
            gateway: Ipv4Addr::from(r.bytes("gateway")?),
            parent_ipv4: Ipv4Addr::from(r.bytes("parent_ipv4")?),
            entropy: r.bytes("entropy")?,
            hostname: r.name("hostname")?,
        };
        let complaint = match &identity {
            i if i.mac[0] & 1 == 1 => Some("mac"),
            i if i.prefix_len > 32 => Some("prefix_len"),
            i if i.ipv4.is_unspecified() || i.ipv4.is_multicast() || i.ipv4.is_broadcast() => Some("ipv4"),
            i if !i.hostname.is_host_label() => Some("hostname"),
            _ => None,
        };
        complaint.map_or(Ok(identity), |field| Err(Malformed(field)))
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.u32(self.clone_id);
        w.u32(self.clones);
        w.u64(self.unix_time_ns);
        w.bytes(&self.mac);
        w.bytes(&self.ipv4.octets());
        w.u8(self.prefix_len);
        w.bytes(&self.gateway.octets());
        w.bytes(&self.parent_ipv4.octets());
        w.bytes(&self.entropy);
        w.name(&self.hostname);
    }
}

impl GuestMessage {
    /// Writes the message as one frame into `out` and returns the frame's bytes.
    pub fn encode<'a>(&self, out: &'a mut [u8; MAX_FRAME]) -> &'a [u8] {
        frame::seal(self.kind(), out, |room| self.fill(&mut Writer::new(room)))
    }

    /// Reads a frame that a guest sent. Nothing in it may be believed beyond its shape.
    ///
    /// # Errors
    /// Another version, an unknown kind, or a field out of its range; the frame is to be ignored.
    pub fn parse(frame: &Frame<'_>) -> Result<Self, WireError> {
        let mut r = opened(frame)?;
        let message = match frame.kind {
            0x81 => Self::Hello { boot_id: r.bytes("boot_id")? },
            0x82 => Self::Identified {
                request: r.request()?,
                clone_id: r.u32("clone_id")?,
                failed: Failures(r.u8("failed")?),
                took_us: r.u32("took_us")?,
            },
            0x83 => Self::Pong { request: r.request()?, clone_id: r.u32("clone_id")? },
            0x84 => Self::HooksDone {
                request: r.request()?,
                event: HookEvent::from_wire(r.u8("event")?)?,
                ran: r.u16("ran")?,
                failed: r.u16("failed")?,
                first_failed: r.name("first_failed")?,
            },
            0x85 => Self::Report(r.request()?, Vitals::read(&mut r)?),
            0x86 => Self::ShuttingDown(r.request()?),
            0x87 => Self::Call(r.request()?, Call::read(&mut r)?),
            kind => return Err(WireError::Kind(kind)),
        };
        r.finish()?;
        Ok(message)
    }

    fn kind(&self) -> u8 {
        match self {
            Self::Hello { .. } => 0x81,
            Self::Identified { .. } => 0x82,
            Self::Pong { .. } => 0x83,
            Self::HooksDone { .. } => 0x84,
            Self::Report(..) => 0x85,
            Self::ShuttingDown(_) => 0x86,
            Self::Call(..) => 0x87,
        }
    }

    fn fill(&self, w: &mut Writer<'_>) -> usize {
        match self {
            Self::Hello { boot_id } => w.bytes(boot_id),
            Self::Identified { request, clone_id, failed, took_us } => {
                w.request(*request);
                w.u32(*clone_id);
                w.u8(failed.0);
                w.u32(*took_us);
            }
            Self::Pong { request, clone_id } => {
                w.request(*request);
                w.u32(*clone_id);
            }
            Self::HooksDone { request, event, ran, failed, first_failed } => {
                w.request(*request);
                w.u8(*event as u8);
                w.u16(*ran);
                w.u16(*failed);
                w.name(first_failed);
            }
            Self::Report(request, vitals) => {
                w.request(*request);
                vitals.write(w);
            }
            Self::ShuttingDown(request) => w.request(*request),
            Self::Call(request, call) => {
                w.request(*request);
                call.write(w);
            }
        }
        w.used()
    }
}

impl Vitals {
    fn read(r: &mut Reader<'_>) -> Result<Self, Malformed> {
        Ok(Self {
            load_milli: r.u32("load_milli")?,
            memory_total_kib: r.u32("memory_total_kib")?,
            memory_available_kib: r.u32("memory_available_kib")?,
            uptime_ms: r.u64("uptime_ms")?,
        })
    }

    fn write(&self, w: &mut Writer<'_>) {
        w.u32(self.load_milli);
        w.u32(self.memory_total_kib);
        w.u32(self.memory_available_kib);
        w.u64(self.uptime_ms);
    }
}

#[cfg(test)]
mod tests;
