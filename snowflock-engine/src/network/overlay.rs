//! The private network over several hosts: a VXLAN (RFC 7348) joins their bridges.
//!
//!   host A  [ netns: bridge .1 -- taps ]--vx ~~ UDP 4789 between the hosts ~~ vx--[ taps -- bridge ]  host B
//!
//! The device is made where the hosts' own network is, and moved beside the bridge: its outer datagrams
//! still go where it was made. Addresses follow from clone IDs on all hosts alike; the gateway is on the
//! parent's host alone.

use std::io;
use std::net::Ipv4Addr;

use super::{BRIDGE, NetworkError};

/// How one host takes part.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Overlay {
    /// Address of this host in the network between hosts.
    pub local: Ipv4Addr,
    /// Multicast group of frames for all: the same on all hosts.
    pub group: Ipv4Addr,
    /// Whether the gateway of the private network is here.
    pub gateway: bool,
}

/// The number of the VXLAN of the parent with this name: 24 bits, not 0.
fn number(parent: &str) -> u32 {
    (crc32fast::hash(parent.as_bytes()) & 0xFF_FFFF).max(1)
}

/// Its device on a host.
pub(super) fn device(parent: &str) -> String {
    format!("vx{:06x}", number(parent))
}

impl Overlay {
    /// Commands of `ip -batch` in the hosts' network that make the device and move it.
    ///
    /// # Errors
    /// The address is not this host's.
    pub(super) fn make(&self, parent: &str, namespace: &str) -> Result<String, NetworkError> {
        let system = |source| NetworkError::System { what: "look for network interfaces".into(), source };
        let interface = interface_of(self.local).map_err(system)?;
        let (device, number) = (device(parent), number(parent));
        Ok(format!(
            "link add {device} type vxlan id {number} local {} group {} dev {interface} dstport 4789 ttl 8\n\
             link set {device} netns {namespace}\n",
            self.local, self.group
        ))
    }

    /// Commands inside the private network that join it to the bridge.
    pub(super) fn join(parent: &str) -> String {
        let device = device(parent);
        format!("link set {device} master {BRIDGE}\nlink set {device} up\n")
    }
}

fn interface_of(address: Ipv4Addr) -> io::Result<String> {
    let has_it = |interface: &nix::ifaddrs::InterfaceAddress| {
        let storage = interface.address.as_ref().and_then(|storage| storage.as_sockaddr_in());
        storage.is_some_and(|socket| socket.ip() == address)
    };
    let found = nix::ifaddrs::getifaddrs()?.find(has_it).map(|interface| interface.interface_name);
    found.ok_or_else(|| {
        let why = format!("no interface of this host has the address {address} (between_hosts.address)");
        io::Error::new(io::ErrorKind::AddrNotAvailable, why)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_host_gives_the_network_of_a_parent_the_same_number() {
        assert_eq!(number("shop"), number("shop"));
        assert_ne!(device("shop"), device("blog"));
        assert!(device("shop").len() <= 15, "names of devices are short");
    }

    #[test]
    fn the_device_is_made_over_the_interface_that_has_the_address() {
        let overlay =
            Overlay { local: Ipv4Addr::LOCALHOST, group: Ipv4Addr::new(239, 1, 2, 3), gateway: true };
        let script = overlay.make("shop", "flurry-shop").unwrap();
        assert!(script.contains("local 127.0.0.1 group 239.1.2.3 dev lo "), "{script}");
        let foreign = Overlay { local: Ipv4Addr::new(192, 0, 2, 1), ..overlay };
        let said = format!("{:?}", foreign.make("shop", "flurry-shop").unwrap_err());
        assert!(said.contains("192.0.2.1") && said.contains("between_hosts.address"), "{said}");
    }
}
