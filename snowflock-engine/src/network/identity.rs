//! Clone ID -> MAC and IPv4 address. A pure function, so nothing has to be remembered or agreed.
//!
//! The address block holds the network address, the bridge (`.1`), then the
//! parent and clones in order of ID. The first three bytes of the MAC are a
//! function of the parent's name, the last three are the clone ID.

use std::fmt;
use std::net::Ipv4Addr;
use std::str::FromStr;

/// Network and bridge address come before the parent's.
const FIRST_GUEST: u32 = 2;

/// A clone's ID: 0 is the parent, clones count from 1 in order of birth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct CloneId(pub u32);

impl CloneId {
    /// The parent's.
    pub const PARENT: Self = Self(0);
    /// The last one: it is three bytes of a hardware address, and the one after it is the gateway's.
    pub const LAST: Self = Self((1 << 24) - 2);
}

impl fmt::Display for CloneId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Self::PARENT { f.write_str("parent") } else { write!(f, "clone-{}", self.0) }
    }
}

/// A hardware address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct MacAddress(pub [u8; 6]);

impl fmt::Display for MacAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

/// The address block of one parent and its clones.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AddressBlock {
    network: Ipv4Addr,
    prefix_len: u8,
}

/// Why an address block cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{given:?} is not an IPv4 block of 4 to 16,777,216 addresses such as 10.117.0.0/16: {why}")]
pub struct BadAddressBlock {
    given: String,
    why: &'static str,
}

impl AddressBlock {
    /// The address of the bridge, and of the balancer as guests see it.
    #[must_use]
    pub fn gateway(self) -> Ipv4Addr {
        Ipv4Addr::from(u32::from(self.network) + 1)
    }

    /// Length of the network prefix, bits.
    #[must_use]
    pub fn prefix_len(self) -> u8 {
        self.prefix_len
    }

    /// How many guests have a place: without network, bridge and broadcast address.
    #[must_use]
    pub fn capacity(self) -> u32 {
        (1u32 << (32 - self.prefix_len)) - 1 - FIRST_GUEST
    }

    /// The address of a clone. IDs wrap around at the block's capacity; the parent's place is
    /// never taken by a clone.
    #[must_use]
    pub fn address(self, id: CloneId) -> Ipv4Addr {
        let place = match id.0 {
            0 => 0,
            clone => 1 + (clone - 1) % (self.capacity() - 1),
        };
        Ipv4Addr::from(u32::from(self.network) + FIRST_GUEST + place)
    }
}

impl FromStr for AddressBlock {
    type Err = BadAddressBlock;

    fn from_str(given: &str) -> Result<Self, BadAddressBlock> {
        let bad = |why| BadAddressBlock { given: given.into(), why };
        let (address, bits) = given.split_once('/').ok_or_else(|| bad("it has no /prefix"))?;
        let network: Ipv4Addr = address.parse().map_err(|_| bad("the address is not one"))?;
        let prefix_len: u8 = bits.parse().map_err(|_| bad("the prefix is not a number"))?;
        if !(8..=29).contains(&prefix_len) {
            return Err(bad("the prefix is not within 8 to 29"));
        }
        if u32::from(network) << prefix_len != 0 {
            return Err(bad("bits beyond the prefix are set"));
        }
        Ok(Self { network, prefix_len })
    }
}

impl fmt::Display for AddressBlock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.prefix_len)
    }
}

/// The MAC address of a clone of the parent with this name.
#[must_use]
pub fn mac_address(parent: &str, id: CloneId) -> MacAddress {
    let ([o, u, i], [_, a, b, c]) = (organisation(parent), id.0.to_be_bytes());
    MacAddress([o, u, i, a, b, c])
}

/// The MAC address of the gateway of the parent with this name: the last one, which no clone will have.
#[must_use]
pub fn gateway_mac(parent: &str) -> MacAddress {
    let [o, u, i] = organisation(parent);
    MacAddress([o, u, i, 0xff, 0xff, 0xff])
}

/// The first half of all MAC addresses of one parent's network.
fn organisation(parent: &str) -> [u8; 3] {
    let [_, x, y, _] = crc32fast::hash(parent.as_bytes()).to_be_bytes();
    // 02: unicast, locally administered.
    [0x02, x, y]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block(text: &str) -> AddressBlock {
        text.parse().unwrap()
    }

    #[test]
    fn parent_and_clones_follow_the_bridge() {
        let block = block("10.117.0.0/16");
        assert_eq!(block.gateway(), Ipv4Addr::new(10, 117, 0, 1));
        assert_eq!(block.address(CloneId::PARENT), Ipv4Addr::new(10, 117, 0, 2));
        assert_eq!(block.address(CloneId(1)), Ipv4Addr::new(10, 117, 0, 3));
        assert_eq!(block.address(CloneId(256)), Ipv4Addr::new(10, 117, 1, 2));
    }

    #[test]
    fn ids_wrap_around_without_touching_parent_bridge_or_broadcast() {
        let block = block("192.168.7.0/29");
        let last: Vec<u8> = (0..10).map(|id| block.address(CloneId(id)).octets()[3]).collect();
        assert_eq!(last, [2, 3, 4, 5, 6, 3, 4, 5, 6, 3]);
    }

    #[test]
    fn an_unusable_block_is_refused_with_the_reason() {
        for (given, why) in [
            ("10.0.0.0", "no /prefix"),
            ("10.0.0.0/30", "8 to 29"),
            ("10.0.0.1/24", "beyond the prefix"),
            ("ten/8", "address is not one"),
            ("10.0.0.0/x", "not a number"),
        ] {
            let error = given.parse::<AddressBlock>().unwrap_err().to_string();
            assert!(error.contains(why) && error.contains(given), "{error}");
        }
    }

    #[test]
    fn no_clone_has_the_address_of_the_gateway() {
        assert_ne!(mac_address("shop", CloneId::LAST), gateway_mac("shop"));
        assert_eq!(mac_address("shop", CloneId(CloneId::LAST.0 + 1)), gateway_mac("shop"));
    }

    #[test]
    fn two_parents_have_different_prefixes_and_siblings_share_one() {
        let (a, b) = (mac_address("shop", CloneId(1)), mac_address("blog", CloneId(1)));
        assert_ne!(a.0[..3], b.0[..3]);
        assert_eq!(a.0[..3], mac_address("shop", CloneId(2)).0[..3]);
        assert_eq!(mac_address("shop", CloneId(0x01_02_03)).0[3..], [1, 2, 3]);
    }
}
