//! IPv4 networks, as a configuration names them and rules compare them.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An IPv4 network: an address whose host bits are 0, and the number of its network bits, 0 to 32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Network {
    address: Ipv4Addr,
    length: u8,
}

impl Network {
    /// Every address.
    pub const ALL: Self = Self { address: Ipv4Addr::UNSPECIFIED, length: 0 };

    /// The network of one address.
    #[must_use]
    pub fn host(address: Ipv4Addr) -> Self {
        Self { address, length: 32 }
    }

    /// The network of `length` bits that this address lies in.
    #[must_use]
    pub fn around(address: Ipv4Addr, length: u8) -> Self {
        let length = length.min(32);
        Self { address: Ipv4Addr::from_bits(address.to_bits() & mask(length)), length }
    }

    /// The first address.
    #[must_use]
    pub fn address(self) -> Ipv4Addr {
        self.address
    }

    /// Number of network bits.
    #[must_use]
    pub fn length(self) -> u8 {
        self.length
    }

    /// The network's mask.
    #[must_use]
    pub fn mask(self) -> Ipv4Addr {
        Ipv4Addr::from_bits(mask(self.length))
    }

    /// Is the address in it?
    #[must_use]
    pub fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits() & mask(self.length) == self.address.to_bits()
    }

    /// Have the two any address in common?
    #[must_use]
    pub fn overlaps(self, other: Self) -> bool {
        self.contains(other.address) || other.contains(self.address)
    }
}

fn mask(length: u8) -> u32 {
    u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0)
}

/// Splits `192.0.2.2/30`; a bare address has 32 bits.
pub(crate) fn split(text: &str) -> Result<(Ipv4Addr, u8), String> {
    let malformed = || format!("must be an IPv4 address or network such as 192.0.2.0/24, got `{text}`");
    let (address, length) = text.split_once('/').unwrap_or((text, "32"));
    let address = address.parse().map_err(|_| malformed())?;
    let length = length.parse().ok().filter(|length| *length <= 32).ok_or_else(malformed)?;
    Ok((address, length))
}

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (address, length) = split(text)?;
        let network = Self::around(address, length);
        if network.address != address {
            return Err(format!("has host bits set: the network is {network}, got `{text}`"));
        }
        Ok(network)
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_is_read_and_shown_alike() {
        for text in ["0.0.0.0/0", "10.0.0.0/8", "192.0.2.7/32"] {
            assert_eq!(text.parse::<Network>().unwrap().to_string(), text);
        }
        assert_eq!("192.0.2.7".parse(), Ok(Network::host(Ipv4Addr::new(192, 0, 2, 7))));
    }

    #[test]
    fn what_is_no_network_is_refused_with_the_reason() {
        for (text, why) in [
            ("10.0.0.1/8", "the network is 10.0.0.0/8"),
            ("10.0.0.0/33", "must be an IPv4"),
            ("ten", "must be an IPv4"),
            ("10.0.0.0/", "must be an IPv4"),
        ] {
            assert!(text.parse::<Network>().unwrap_err().contains(why), "{text}");
        }
    }

    #[test]
    fn networks_overlap_when_one_lies_in_the_other() {
        let network = |text: &str| text.parse::<Network>().unwrap();
        assert!(network("10.0.0.0/8").overlaps(network("10.9.0.0/16")));
        assert!(network("10.9.0.0/16").overlaps(Network::ALL));
        assert!(!network("10.9.0.0/16").overlaps(network("10.8.0.0/16")));
    }
}
