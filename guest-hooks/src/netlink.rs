//! The guest's one network interface, re-addressed in a single batch of rtnetlink messages.
//!
//! ```text
//! one write: MAC and up, if new | remove the old address | add the new one | default route   (ack asked)
//! reads:     errors of any of them, in order, then the ack of the last
//! ```
//!
//! The kernel works through the batch inside `write`, so the answers are there when it returns. Open
//! TCP connections are left alone; Linux keeps them when an address goes.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::Ipv4Addr;

use snowflock_engine::wire::{Failures, Identity};

use crate::sys;

const LOOPBACK_INDEX: u32 = 1;
const ETHERNET: &str = "1";
/// Four messages with their attributes take about 180 bytes.
const BATCH: usize = 512;

const RTM_NEWLINK: u16 = 16;
const RTM_NEWADDR: u16 = 20;
const RTM_DELADDR: u16 = 21;
const RTM_GETADDR: u16 = 22;
const RTM_NEWROUTE: u16 = 24;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
const REQUEST: u16 = 0x01;
const ACK: u16 = 0x04;
const DUMP: u16 = 0x300;
const REPLACE: u16 = 0x100;
const CREATE: u16 = 0x400;
const IFF_UP: u32 = 1;
const AF_INET: u8 = 2;
const IFLA_ADDRESS: u16 = 1;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const RTA_OIF: u16 = 4;
const RTA_GATEWAY: u16 = 5;
const ROUTE_TABLE_MAIN: u8 = 254;
const ROUTE_PROTOCOL_BOOT: u8 = 3;
const ROUTE_UNICAST: u8 = 1;

/// The Ethernet interface and an open rtnetlink socket.
pub(crate) struct Interface {
    socket: File,
    /// Index and MAC, once found: the driver may come after the agent.
    found: Option<(u32, [u8; 6])>,
}

impl Interface {
    /// Opens the socket, brings the loopback interface up and looks for the Ethernet interface.
    pub(crate) fn open() -> Result<Self, String> {
        let socket = sys::open_rtnetlink().map_err(|e| format!("opening an rtnetlink socket: {e}"))?;
        let mut interface = Self { socket, found: find_ethernet() };
        let mut batch = Batch::new();
        batch.link_up(LOOPBACK_INDEX, None);
        // A distribution's init has done this already; ours has not.
        if let Err(e) = interface.exchange(batch, |_, e| eprintln!("flurry: loopback: {e}")) {
            eprintln!("flurry: loopback: {e}");
        }
        Ok(interface)
    }

    /// Gives the interface the addresses of `new` in place of `old` (or of all that it has, if unknown).
    pub(crate) fn readdress(&mut self, new: &Identity, old: Option<(Ipv4Addr, u8)>) -> Failures {
        self.found = self.found.or_else(find_ethernet);
        let mut failed = Failures::default();
        let Some((index, mac)) = self.found else {
            eprintln!("flurry: identity: no Ethernet interface");
            failed.insert(Failures::MAC);
            failed.insert(Failures::ADDRESS);
            return failed;
        };
        if old.is_none() {
            self.remove_all(index);
        }
        let change = Change {
            index,
            link: old.is_none() || mac != new.mac,
            mac: (mac != new.mac).then_some(new.mac),
            old: old.filter(|old| *old != (new.ipv4, new.prefix_len)),
        };
        let (batch, steps) = Batch::identity(&change, new);
        let outcome = self.exchange(batch, |sequence, e| {
            let step = steps[(sequence as usize).min(steps.len()) - 1];
            // The old address may be gone already, which is as good.
            if !step.is_empty() {
                eprintln!("flurry: identity: {step}: {e}");
                failed.insert(step);
            }
        });
        if let Err(e) = outcome {
            eprintln!("flurry: identity: rtnetlink: {e}");
            failed.insert(Failures::ADDRESS);
        }
        if !failed.contains(Failures::MAC) {
            self.found = Some((index, new.mac));
        }
        failed
    }

    fn remove(&mut self, index: u32, address: Ipv4Addr, prefix_len: u8) {
        let mut batch = Batch::new();
        batch.address(RTM_DELADDR, 0, index, address, prefix_len);
        // It may be gone already, which is as good.
        let _ = self.exchange(batch, |_, _| {});
    }

    /// Removes whatever a DHCP client or the image's own configuration has set.
    fn remove_all(&mut self, index: u32) {
        match self.addresses(index) {
            Ok(addresses) => {
                for (address, prefix_len) in addresses {
                    self.remove(index, address, prefix_len);
                }
            }
            Err(e) => eprintln!("flurry: identity: listing addresses: {e}"),
        }
    }

    fn addresses(&mut self, index: u32) -> io::Result<Vec<(Ipv4Addr, u8)>> {
        let mut batch = Batch::new();
        batch.message(RTM_GETADDR, DUMP, |b| b.put(&[AF_INET, 0, 0, 0, 0, 0, 0, 0]));
        self.socket.write_all(batch.finish(false))?;
        let (mut found, mut answer) = (Vec::new(), [0; 8192]);
        loop {
            let count = self.socket.read(&mut answer)?;
            for (kind, _, body) in messages(&answer[..count]) {
                match kind {
                    RTM_NEWADDR => found.extend(parse_address(body, index)),
                    NLMSG_DONE | NLMSG_ERROR => return Ok(found),
                    _ => {}
                }
            }
        }
    }

    /// Sends a batch and reads until its last message is acknowledged. `refused` hears the sequence
    /// number (from 1) and the reason of each message that the kernel refused.
    fn exchange(&mut self, mut batch: Batch, mut refused: impl FnMut(u32, io::Error)) -> io::Result<()> {
        let last = batch.sequence;
        self.socket.write_all(batch.finish(true))?;
        let mut answer = [0; 1024];
        loop {
            let count = self.socket.read(&mut answer)?;
            for (kind, sequence, body) in messages(&answer[..count]) {
                if kind != NLMSG_ERROR {
                    continue;
                }
                let code = word(body, 0) as i32;
                if code != 0 {
                    refused(sequence, io::Error::from_raw_os_error(-code));
                }
                if sequence == last {
                    return Ok(());
                }
            }
        }
    }
}

/// The Ethernet interface of the lowest index, with its MAC.
fn find_ethernet() -> Option<(u32, [u8; 6])> {
    let read = |dir: &fs::DirEntry, file: &str| fs::read_to_string(dir.path().join(file)).ok();
    let ethernet = |dir: fs::DirEntry| {
        let kind = read(&dir, "type")?;
        let index = read(&dir, "ifindex")?.trim().parse().ok()?;
        let mac = parse_mac(read(&dir, "address")?.trim())?;
        (kind.trim() == ETHERNET).then_some((index, mac))
    };
    fs::read_dir("/sys/class/net").ok()?.flatten().filter_map(ethernet).min()
}

fn parse_mac(text: &str) -> Option<[u8; 6]> {
    let mut mac = [0; 6];
    let mut parts = text.split(':');
    for byte in &mut mac {
        *byte = u8::from_str_radix(parts.next()?, 16).ok()?;
    }
    parts.next().is_none().then_some(mac)
}

/// An address message of the wanted interface: its local address and prefix length.
fn parse_address(body: &[u8], index: u32) -> Option<(Ipv4Addr, u8)> {
    if body.len() < 8 || word(body, 4) != index {
        return None;
    }
    let mut rest = &body[8..];
    while rest.len() >= 4 {
        let length = usize::from(u16::from_le_bytes([rest[0], rest[1]]));
        if rest[2] == IFA_LOCAL as u8 && length == 8 {
            return Some((
                Ipv4Addr::new(*rest.get(4)?, *rest.get(5)?, *rest.get(6)?, *rest.get(7)?),
                body[1],
            ));
        }
        rest = rest.get(length.max(4).next_multiple_of(4)..)?;
    }
    None
}

/// The messages in an answer: kind, sequence number, body.
fn messages(mut bytes: &[u8]) -> impl Iterator<Item = (u16, u32, &[u8])> {
    std::iter::from_fn(move || {
        let length = word(bytes, 0) as usize;
        if length < 16 || length > bytes.len() {
            return None;
        }
        let message = &bytes[..length];
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((u16::from_le_bytes([message[4], message[5]]), word(message, 8), &message[16..]))
    })
}

/// The 32-bit word at `at`; 0 beyond the end.
fn word(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

/// Link, old address, new address, route.
const STEPS: usize = 4;

/// What has to change on the interface. Every message spared is kernel code that a clone under
/// emulation need not translate: a link message alone makes the kernel describe the whole interface.
struct Change {
    index: u32,
    /// Is the link message needed: to bring it up, to change the MAC?
    link: bool,
    mac: Option<[u8; 6]>,
    old: Option<(Ipv4Addr, u8)>,
}

/// Messages to the kernel, numbered from 1, in one buffer.
struct Batch {
    bytes: [u8; BATCH],
    used: usize,
    last: usize,
    sequence: u32,
}

impl Batch {
    fn new() -> Self {
        Self { bytes: [0; BATCH], used: 0, last: 0, sequence: 0 }
    }

    /// All messages of a change of identity, and which step the failure of each would be.
    fn identity(change: &Change, new: &Identity) -> (Self, [Failures; STEPS]) {
        let (mut batch, mut steps) = (Self::new(), [Failures::default(); STEPS]);
        if change.link {
            batch.link_up(change.index, change.mac);
            steps[0] = Failures::MAC;
        }
        if let Some((address, prefix_len)) = change.old {
            batch.address(RTM_DELADDR, 0, change.index, address, prefix_len);
        }
        batch.address(RTM_NEWADDR, CREATE | REPLACE, change.index, new.ipv4, new.prefix_len);
        steps[batch.sequence as usize - 1] = Failures::ADDRESS;
        if !new.gateway.is_unspecified() {
            batch.default_route(change.index, new.gateway);
            steps[batch.sequence as usize - 1] = Failures::ROUTE;
        }
        (batch, steps)
    }

    fn link_up(&mut self, index: u32, mac: Option<[u8; 6]>) {
        self.message(RTM_NEWLINK, 0, |b| {
            b.put(&[0, 0, 0, 0]);
            b.put(&index.to_le_bytes());
            b.put(&IFF_UP.to_le_bytes());
            b.put(&IFF_UP.to_le_bytes());
            if let Some(mac) = mac {
                b.attribute(IFLA_ADDRESS, &mac);
            }
        });
    }

    fn address(&mut self, kind: u16, flags: u16, index: u32, address: Ipv4Addr, prefix_len: u8) {
        self.message(kind, flags, |b| {
            b.put(&[AF_INET, prefix_len, 0, 0]);
            b.put(&index.to_le_bytes());
            b.attribute(IFA_LOCAL, &address.octets());
            b.attribute(IFA_ADDRESS, &address.octets());
        });
    }

    fn default_route(&mut self, index: u32, gateway: Ipv4Addr) {
        self.message(RTM_NEWROUTE, CREATE | REPLACE, |b| {
            b.put(&[AF_INET, 0, 0, 0, ROUTE_TABLE_MAIN, ROUTE_PROTOCOL_BOOT, 0, ROUTE_UNICAST, 0, 0, 0, 0]);
            b.attribute(RTA_GATEWAY, &gateway.octets());
            b.attribute(RTA_OIF, &index.to_le_bytes());
        });
    }

    fn message(&mut self, kind: u16, flags: u16, body: impl FnOnce(&mut Self)) {
        self.last = self.used;
        self.sequence += 1;
        let sequence = self.sequence;
        self.put(&[0; 4]);
        self.put(&kind.to_le_bytes());
        self.put(&(REQUEST | flags).to_le_bytes());
        self.put(&sequence.to_le_bytes());
        self.put(&[0; 4]);
        body(self);
        let length = (self.used - self.last) as u32;
        self.bytes[self.last..self.last + 4].copy_from_slice(&length.to_le_bytes());
    }

    fn attribute(&mut self, kind: u16, value: &[u8]) {
        self.put(&((4 + value.len()) as u16).to_le_bytes());
        self.put(&kind.to_le_bytes());
        self.put(value);
        self.used = self.used.next_multiple_of(4);
    }

    fn put(&mut self, bytes: &[u8]) {
        self.bytes[self.used..self.used + bytes.len()].copy_from_slice(bytes);
        self.used += bytes.len();
    }

    /// The bytes to send; with `ack`, the kernel acknowledges the last message (errors always come).
    fn finish(&mut self, ack: bool) -> &[u8] {
        if ack {
            self.bytes[self.last + 6] |= ACK as u8;
        }
        &self.bytes[..self.used]
    }
}

#[cfg(test)]
mod tests;
