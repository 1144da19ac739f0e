//! What a router is told: text to a value that can only be valid, or all complaints.
//!
//! `ROUTER.md` describes every key. The network of the guests is not part of
//! the text: whoever made the network knows it.

mod read;

use std::net::Ipv4Addr;

use crate::address::Network;
use crate::rules::Protocol;
pub use read::{parse, read};

/// The network of the guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Private {
    /// Its addresses.
    pub network: Network,
    /// The parent's address.
    pub parent: Ipv4Addr,
}

/// Everything about one router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    /// The network behind it.
    pub private: Private,
    /// Its place in the world.
    pub world: World,
    /// What guests may reach.
    pub outbound: OutboundRules,
    /// What the world may reach.
    pub inbound: Inbound,
    /// How much.
    pub limits: Limits,
    /// Names.
    pub dns: Option<Dns>,
}

/// The router's place in the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct World {
    /// Its own address there, which all guests share.
    pub address: Ipv4Addr,
    /// Length of that network's prefix, bits.
    pub length: u8,
    /// The next hop.
    pub gateway: Ipv4Addr,
    /// The bridge of the host that it is attached to. `None`: the host is the next hop.
    pub bridge: Option<String>,
}

/// What guests may reach; the first rule that fits decides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboundRules {
    /// What holds for what no rule fits.
    pub default: Decision,
    /// In order.
    pub rules: Vec<Outbound>,
}

/// Is a connection made?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// Yes.
    Allow,
    /// No, and who asks is told.
    Refuse,
}

/// A rule for connections of guests to the world.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outbound {
    /// What is decided.
    pub decision: Decision,
    /// Who asks.
    pub from: Guest,
    /// Where to.
    pub to: Vec<Network>,
    /// What for.
    pub services: Vec<Service>,
}

/// Some of the guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Guest {
    /// All.
    All,
    /// The parent.
    Parent,
    /// All but the parent.
    Clones,
    /// The one with this address.
    At(Ipv4Addr),
}

impl Guest {
    /// The address of a single guest; the parent's if it stands for several.
    pub(crate) fn address(self, private: &Private) -> Ipv4Addr {
        match self {
            Self::At(address) => address,
            Self::All | Self::Parent | Self::Clones => private.parent,
        }
    }
}

/// What a connection is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Service {
    /// Anything.
    Any,
    /// ICMP.
    Ping,
    /// Ports from the first to the last of TCP or UDP.
    Ports(Protocol, u16, u16),
}

/// What the world may reach. Everything else is dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inbound {
    /// Of the parent, at its own address.
    pub parent: Vec<Service>,
    /// Of clones, at their own addresses.
    pub clones: Vec<Service>,
    /// Ports of the router's address that lead to a guest.
    pub forwards: Vec<Forward>,
}

/// A port of the router's address that leads to a guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forward {
    /// TCP or UDP.
    pub protocol: Protocol,
    /// The router's port.
    pub port: u16,
    /// Which guest: [`Guest::Parent`] or [`Guest::At`].
    pub to: Guest,
    /// The guest's port.
    pub to_port: u16,
    /// Who may use it.
    pub from: Vec<Network>,
}

/// How much may pass.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// From guests to the world.
    pub up: Throttle,
    /// From the world to guests.
    pub down: Throttle,
    /// Connections of all guests at once.
    pub connections: u32,
    /// Connections of each guest at once.
    pub connections_each: Option<u32>,
}

/// Bytes in a second in one direction.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Throttle {
    /// Of all guests together.
    pub total: Option<u64>,
    /// Of each guest.
    pub each: Option<u64>,
}

/// Name service for guests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dns {
    /// The address that guests ask.
    pub at: Ipv4Addr,
    /// Who answers.
    pub servers: Vec<Ipv4Addr>,
}

#[cfg(test)]
mod tests;
