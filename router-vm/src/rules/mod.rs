//! What the kernel is to do with packets: a small language of tables, and the
//! pure translation of a configuration into it.
//!
//!   Config -> translate -> Ruleset -> netlink::nft -> one transaction of nf_tables
//!
//! The same rules serve in the router VM and, in `distributed` mode, in the
//! namespace of the network's bridge: only the names of the two devices differ.

mod translate;

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::address::Network;
pub use translate::translate;

/// Names of the two devices that packets pass between.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Devices {
    /// Towards the guests.
    pub inside: String,
    /// Towards the rest of the world.
    pub world: String,
}

/// All rules of one router.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ruleset {
    /// Sets in which the kernel remembers something of each guest.
    pub meters: Vec<Meter>,
    /// The chains.
    pub chains: Vec<Chain>,
}

/// A set with one entry for each guest address, made by the rule that uses it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Meter {
    /// Its name.
    pub name: String,
    /// Do entries go when they are not used for a while? Counts of connections go by themselves.
    pub expires: bool,
}

/// Rules at one hook, tried in order until one decides.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chain {
    /// Where.
    pub hook: Hook,
    /// What becomes of a packet that no rule decided.
    pub accepts: bool,
    /// The rules.
    pub rules: Vec<Rule>,
}

/// Where packets meet a chain.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Hook {
    /// For the router itself.
    Input,
    /// From one device to another.
    Forward,
    /// First packet of a connection, before routing: its destination may be changed.
    Destination,
    /// First packet of a connection, after routing: its source may be changed.
    Source,
}

/// What is done with the packets that all conditions hold for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rule {
    /// All must hold.
    pub when: Vec<Match>,
    /// The counter that counts them.
    pub count: Option<Counter>,
    /// What becomes of them.
    pub then: Action,
}

/// A condition on a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Match {
    /// It came in by this device.
    From(String),
    /// It goes out by this device.
    To(String),
    /// Its source lies in the network, or (`false`) does not.
    Source(Network, bool),
    /// Its destination lies in the network, or (`false`) does not.
    Destination(Network, bool),
    /// Its protocol.
    Protocol(Protocol),
    /// Its destination port lies in this range, inclusive. Only after a match of TCP or UDP.
    Ports(u16, u16),
    /// Its connection is in one of these states.
    State(Vec<State>),
    /// The destination of its connection was changed.
    Redirected,
    /// One packet in so many, by chance.
    OneIn(u32),
    /// All packets that came here exceed the rate.
    Over(Rate),
    /// The packets of one guest exceed the rate.
    OverEach(String, Side, Rate),
    /// More connections than so many came here.
    Connections(u32),
    /// One guest has more connections than so many.
    ConnectionsEach(String, u32),
}

/// Which address of a packet is the guest's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Side {
    /// The guest sent it.
    Source,
    /// It is for the guest.
    Destination,
}

/// A protocol that rules tell apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Protocol {
    /// ICMP.
    Icmp,
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
}

impl Protocol {
    /// Its number in an IPv4 header.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Self::Icmp => 1,
            Self::Tcp => 6,
            Self::Udp => 17,
        }
    }
}

/// The state of a connection, as connection tracking sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Both sides have spoken.
    Established,
    /// It belongs to another connection, as an ICMP error does.
    Related,
    /// Its first packet.
    New,
    /// It fits no connection.
    Invalid,
}

/// A token bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rate {
    /// Bytes in a second, of IPv4 packets with their headers.
    pub bytes_per_second: u64,
    /// Bytes that may come at once.
    pub burst: u32,
}

/// What becomes of a packet.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Action {
    /// It passes.
    Accept,
    /// It vanishes.
    Drop,
    /// It vanishes, and its sender is told (ICMP, administratively prohibited).
    Reject,
    /// Its connection goes to this address, and port if one is given.
    ToDestination(Ipv4Addr, Option<u16>),
    /// Its connection comes from this address.
    FromSource(Ipv4Addr),
}

/// What is counted, in packets and bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Counter {
    /// Passed from guests to the world.
    Sent,
    /// Passed from the world to guests.
    Received,
    /// From guests, refused by rule.
    RefusedOutbound,
    /// From the world, refused by rule.
    RefusedInbound,
    /// Not from an address of the network.
    Spoofed,
    /// Over the rate of one guest.
    ThrottledEach,
    /// Over the rate of all.
    ThrottledTotal,
    /// New connections over a limit.
    Connections,
}

impl Counter {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Sent,
        Self::Received,
        Self::RefusedOutbound,
        Self::RefusedInbound,
        Self::Spoofed,
        Self::ThrottledEach,
        Self::ThrottledTotal,
        Self::Connections,
    ];

    /// Its name in the kernel and in metrics.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Received => "received",
            Self::RefusedOutbound => "refused_outbound",
            Self::RefusedInbound => "refused_inbound",
            Self::Spoofed => "spoofed",
            Self::ThrottledEach => "throttled_each",
            Self::ThrottledTotal => "throttled_total",
            Self::Connections => "over_connections",
        }
    }

    /// The counter of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|counter| counter.name() == name)
    }
}

#[cfg(test)]
mod tests;
