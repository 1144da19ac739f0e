//! The rules at a tap: a guest speaks with its own addresses or not at all.

use std::net::Ipv4Addr;

use super::identity::MacAddress;

/// An nftables script that confines one tap.
pub(super) fn rules(tap: &str, mac: MacAddress, ip: Ipv4Addr) -> String {
    format!(
        "table netdev {tap} {{
    chain from_guest {{
        type filter hook ingress device \"{tap}\" priority 0; policy drop;
        ether saddr {mac} ip saddr {ip} accept
        ether saddr {mac} arp saddr ether {mac} arp saddr ip {ip} accept
    }}
}}
"
    )
}

/// An nftables script that takes the rules away. It works whether or not they are there.
pub(super) fn no_rules(tap: &str) -> String {
    format!("add table netdev {tap}\ndelete table netdev {tap}\n")
}
