//! The private network of a VM tier.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use scaler::yaml::Section;

/// Addresses that are not for backends: network, broadcast, host, router.
const RESERVED: u32 = 4;

/// An IPv4 network: an address whose host bits are 0, and the number of its network bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ipv4Prefix {
    address: Ipv4Addr,
    length: u8,
}

impl Ipv4Prefix {
    /// The network of a tier if nothing is said.
    pub(super) const DEFAULT: Self = Self { address: Ipv4Addr::new(10, 117, 0, 0), length: 16 };

    /// The first address, of which all host bits are 0.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// Number of network bits, 8 to 28.
    pub fn length(&self) -> u8 {
        self.length
    }

    /// Backends that have room in it.
    pub fn room(&self) -> u32 {
        (1_u32 << (32 - u32::from(self.length))) - RESERVED
    }
}

impl FromStr for Ipv4Prefix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let malformed = || format!("must be a network such as 10.117.0.0/16, got `{text}`");
        let (address, length) = text.split_once('/').ok_or_else(malformed)?;
        let address: Ipv4Addr = address.parse().map_err(|_| malformed())?;
        let length: u8 = length.parse().map_err(|_| malformed())?;
        if !(8..=28).contains(&length) {
            return Err(format!("must have 8 to 28 network bits, got `{text}`"));
        }
        let mask = u32::MAX << (32 - u32::from(length));
        if address.to_bits() & !mask != 0 {
            let network = Ipv4Addr::from_bits(address.to_bits() & mask);
            return Err(format!("has host bits set: the network is {network}/{length}, got `{text}`"));
        }
        if !address.is_private() {
            return Err(format!("must be a private network (RFC 1918), got `{text}`"));
        }
        Ok(Self { address, length })
    }
}

impl fmt::Display for Ipv4Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

/// Complains about a network too small for the largest tier.
pub(super) fn check_room(root: &Section<'_>, network: &Ipv4Prefix, max: u32, guest_clones: u32) {
    let room = network.room();
    if max.saturating_add(guest_clones) > room {
        let guests =
            if guest_clones > 0 { format!(", vm.guest_api.clones {guest_clones}") } else { String::new() };
        let problem = format!("{network} has room for {room} backends, and scaling.max is {max}{guests}");
        root.complain("vm.network", problem, "give a larger network, e.g. 10.117.0.0/16");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_read_and_shown_alike() {
        let network: Ipv4Prefix = "10.117.0.0/16".parse().unwrap();
        assert_eq!(network.to_string(), "10.117.0.0/16");
        assert_eq!(network.room(), 65_532);
        assert_eq!("192.168.1.16/28".parse::<Ipv4Prefix>().unwrap().room(), 12);
    }

    #[test]
    fn what_is_no_private_network_is_refused() {
        for (text, why) in [
            ("10.117.0.0", "must be a network"),
            ("10.117.0/16", "must be a network"),
            ("10.117.0.0/x", "must be a network"),
            ("10.117.0.0/29", "must have 8 to 28"),
            ("10.0.0.0/7", "must have 8 to 28"),
            ("10.117.0.1/16", "the network is 10.117.0.0/16"),
            ("8.8.0.0/16", "must be a private network"),
        ] {
            let error = text.parse::<Ipv4Prefix>().unwrap_err();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
