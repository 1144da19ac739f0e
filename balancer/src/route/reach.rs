//! Which addresses CONNECT may dial: those of the world, and what is said to be allowed.
//!
//! Addresses are looked at, not names: a name may lead anywhere, and somewhere else the next time.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::IpNet;

/// Networks that are not the world's: private, shared, of this host, of one link, of documents and
/// measurements, of groups, reserved (RFC 6890 and its registries).
const SPECIAL_V4: [(Ipv4Addr, u32); 15] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
];

/// What the world has of IPv6, and the parts of it that are not the world's or hold addresses of IPv4
/// (Teredo and others of 2001::/23, documents, 6to4).
const GLOBAL_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
const SPECIAL_V6: [(Ipv6Addr, u32); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// Whether an address is somebody's in the world.
fn is_global(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(address) => {
            !SPECIAL_V4.iter().any(|(net, bits)| (address.to_bits() ^ net.to_bits()) >> (32 - bits) == 0)
        }
        IpAddr::V6(address) => {
            let within =
                |(net, bits): &(Ipv6Addr, u32)| (address.to_bits() ^ net.to_bits()) >> (128 - bits) == 0;
            within(&GLOBAL_V6) && !SPECIAL_V6.iter().any(within)
        }
    }
}

/// Whether an address may be dialled: it is of a network that is `allowed`, or it is the world's and
/// not of a network that this host is `own`er or neighbour of.
pub(crate) fn may_dial(address: IpAddr, allowed: &[IpNet], own: &[IpNet]) -> bool {
    let address = address.to_canonical();
    let within = |nets: &[IpNet]| nets.iter().any(|net| net.contains(&address));
    within(allowed) || (is_global(address) && !within(own))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nets(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|it| it.parse().unwrap()).collect()
    }

    #[test]
    fn what_is_not_the_worlds_is_not_dialled() {
        for special in [
            "0.0.0.0",
            "10.1.2.3",
            "100.64.0.1",
            "127.0.0.1",
            "127.9.9.9",
            "169.254.169.254",
            "172.31.255.255",
            "192.168.1.1",
            "224.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2001::1",
            "2001:db8::1",
            "2002:7f00:1::1",
            "fc00::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
        ] {
            assert!(!may_dial(special.parse().unwrap(), &[], &[]), "{special}");
        }
        for global in ["1.1.1.1", "172.32.0.1", "100.128.0.1", "2606:4700::1111", "::ffff:8.8.8.8"] {
            assert!(may_dial(global.parse().unwrap(), &[], &[]), "{global}");
        }
    }

    #[test]
    fn what_is_allowed_is_dialled_and_this_hosts_own_networks_only_then() {
        let (allowed, own) = (nets(&["10.4.0.0/16", "::1/128"]), nets(&["8.8.8.0/24"]));
        for (address, may) in [
            ("10.4.1.1", true),
            ("::ffff:10.4.1.1", true),
            ("10.5.1.1", false),
            ("::1", true),
            ("8.8.8.8", false),
            ("8.8.4.4", true),
        ] {
            assert_eq!(may_dial(address.parse().unwrap(), &allowed, &own), may, "{address}");
        }
        assert!(may_dial("8.8.8.8".parse().unwrap(), &own, &own));
    }
}
