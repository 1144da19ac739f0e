//! Everything a router VM must know, in the form in which it is sent to it.

use std::net::Ipv4Addr;

use serde::{Deserialize, Serialize};

use crate::address::Network;
use crate::config::Config;
use crate::rules::{Devices, Ruleset, translate};

/// The link between the bridge's namespace and the router VM: no address of the guests' network is
/// spent on it, and guests keep the bridge as their gateway.
pub const LINK_HOST: Ipv4Addr = Ipv4Addr::new(169, 254, 117, 1);
/// The router VM's end of that link.
pub const LINK_VM: Ipv4Addr = Ipv4Addr::new(169, 254, 117, 2);
/// Bits of that link's prefix.
pub const LINK_PREFIX: u8 = 30;

/// Names of the VM's network cards, in the order in which it has them.
pub(crate) const INSIDE: &str = "eth0";
pub(crate) const WORLD: &str = "eth1";

/// What a router VM is to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Plan {
    /// The guests' network.
    pub private: Network,
    /// The VM's address in the world, with the length of its prefix.
    pub world: (Ipv4Addr, u8),
    /// The next hop there.
    pub gateway: Ipv4Addr,
    /// Connections that are tracked at once.
    pub connections: u32,
    /// What happens to packets.
    pub rules: Ruleset,
}

impl Plan {
    /// The plan of a configuration.
    #[must_use]
    pub fn of(config: &Config) -> Self {
        let devices = Devices { inside: INSIDE.into(), world: WORLD.into() };
        Self {
            private: config.private.network,
            world: (config.world.address, config.world.length),
            gateway: config.world.gateway,
            connections: config.limits.connections,
            rules: translate(config, &devices),
        }
    }
}
