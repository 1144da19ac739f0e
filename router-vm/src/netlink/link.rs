//! Addresses and routes of the router VM (linux/rtnetlink.h).

use std::io;
use std::net::Ipv4Addr;

use nix::net::if_::if_nametoindex;
use nix::sys::socket::SockProtocol;

use super::Kernel;
use super::message::{ACK, Batch, CREATE, REPLACE};
use crate::address::Network;

const NEW_LINK: u16 = 16;
const NEW_ADDRESS: u16 = 20;
const NEW_ROUTE: u16 = 24;
const IPV4: u8 = 2;
const UP: u32 = 1;
const TABLE_MAIN: u8 = 254;
const PROTOCOL_STATIC: u8 = 4;
const UNICAST: u8 = 1;

/// Brings a device up, with this address if one is given.
pub(crate) fn bring_up(device: &str, address: Option<(Ipv4Addr, u8)>) -> io::Result<()> {
    let index = if_nametoindex(device)?;
    let mut batch = Batch::new();
    let ack = |last: bool| if last { ACK } else { 0 };
    batch.message("link up", NEW_LINK, ack(address.is_none()), |m| {
        let fixed = [0, index, UP, UP].map(u32::to_ne_bytes).concat();
        m.fixed(&fixed);
    });
    if let Some((address, length)) = address {
        batch.message("address", NEW_ADDRESS, CREATE | REPLACE | ACK, |m| {
            m.fixed(&[IPV4, length, 0, 0]).fixed(&index.to_ne_bytes());
            m.bytes(2, &address.octets()).bytes(1, &address.octets());
        });
    }
    Kernel::open(SockProtocol::NetlinkRoute)?.carry_out(&batch)
}

/// Sends what is for this network to that next hop.
pub(crate) fn route(to: Network, via: Ipv4Addr, device: &str) -> io::Result<()> {
    let index = if_nametoindex(device)?;
    let mut batch = Batch::new();
    batch.message("route", NEW_ROUTE, CREATE | REPLACE | ACK, |m| {
        m.fixed(&[IPV4, to.length(), 0, 0, TABLE_MAIN, PROTOCOL_STATIC, 0, UNICAST, 0, 0, 0, 0]);
        m.bytes(1, &to.address().octets()).bytes(5, &via.octets()).bytes(4, &index.to_ne_bytes());
    });
    Kernel::open(SockProtocol::NetlinkRoute)?.carry_out(&batch)
}
