//! Rules into the kernel's nf_tables, and its counters out (linux/netfilter/nf_tables.h).
//!
//! A ruleset is one table, replaced as a whole in one transaction: each packet
//! meets the old rules or the new ones. Tracked connections and their
//! translations live on; counters are carried over.

use std::collections::BTreeMap;
use std::io;

use nix::sys::socket::SockProtocol;

use super::Kernel;
use super::message::{ACK, APPEND, Attributes, Batch, CREATE, DUMP, attributes};
use crate::address::Network;
use crate::rules::{Action, Chain, Counter, Hook, Match, Meter, Rate, Rule, Ruleset, Side, State};

/// The table's name in the kernel, IPv4 family.
pub const TABLE: &str = "flurry-router";

const FAMILY_NONE: u8 = 0;
const FAMILY_IPV4: u8 = 2;
const SUBSYSTEM: u16 = 10;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
const NEW_TABLE: u16 = 0;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
const NEW_SET: u16 = 9;
const NEW_OBJECT: u16 = 18;
const GET_OBJECT: u16 = 19;

const DROP: u32 = 0;
const ACCEPT: u32 = 1;
const VERDICT: u32 = 0;
const REGISTER: u32 = 1;
const SECOND_REGISTER: u32 = 2;
const OBJECT_COUNTER: u32 = 1;
const NETWORK_HEADER: u32 = 1;
const TRANSPORT_HEADER: u32 = 2;
const IPV4_PROTOCOL: u32 = 9;
const IPV4_SOURCE: u32 = 12;
const IPV4_DESTINATION: u32 = 16;
const DESTINATION_PORT: u32 = 2;
const EQUAL: u32 = 0;
const NOT_EQUAL: u32 = 1;
const AT_MOST: u32 = 3;
const AT_LEAST: u32 = 5;
const CT_STATE: u32 = 0;
const CT_STATUS: u32 = 2;
/// IPS_DST_NAT.
const REDIRECTED: u32 = 1 << 5;
const META_IN: u32 = 6;
const META_OUT: u32 = 7;
const DEVICE_NAME: usize = 16;
/// Above the limit, not below it.
const OVER: u32 = 1;
/// Administratively prohibited (RFC 1812).
const ICMP_PROHIBITED: u8 = 13;
const SET_TIMEOUT: u32 = 0x10;
const SET_EVALUATE: u32 = 0x20;
/// nft's number for IPv4 addresses, which only listings use.
const KEY_IPV4: u32 = 7;
/// The guests of a /16.
const METER_ENTRIES: u32 = 65_536;
const METER_TIMEOUT_MS: u64 = 600_000;

/// What a counter has counted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Count {
    /// Packets.
    pub packets: u64,
    /// Bytes of IPv4 packets with their headers.
    pub bytes: u64,
}

/// What all counters have counted.
pub type Counts = BTreeMap<Counter, Count>;

/// Puts the rules in place of those that were there, in the calling thread's network namespace.
///
/// # Errors
/// The kernel refused, and nothing has changed; its modules are missing; no right to it.
pub fn load(rules: &Ruleset) -> io::Result<()> {
    let before = counts()?;
    Kernel::open(SockProtocol::NetlinkNetFilter)?.carry_out(&transaction(rules, &before))
}

/// Reads the counters; none without rules.
///
/// # Errors
/// The kernel has no nf_tables; no right to it.
pub fn counts() -> io::Result<Counts> {
    let mut batch = Batch::new();
    message(&mut batch, "list counters", GET_OBJECT, DUMP, |m| {
        m.text(1, TABLE).be32(3, OBJECT_COUNTER);
    });
    let mut counts = Counts::new();
    let listed = Kernel::open(SockProtocol::NetlinkNetFilter)?.list(&batch, |_, body| {
        counts.extend(counter(body.get(4..).unwrap_or_default()));
    });
    match listed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Counts::new()),
        other => other.map(|()| counts),
    }
}

/// A counter object: of our table, with a name of ours.
fn counter(body: &[u8]) -> Option<(Counter, Count)> {
    let find = |wanted| attributes(body).find(|(kind, _)| *kind == wanted).map(|(_, value)| value);
    let text = |value: &[u8]| Some(String::from_utf8_lossy(value.strip_suffix(&[0])?).into_owned());
    if text(find(1)?)? != TABLE {
        return None;
    }
    let (name, data) = (text(find(2)?)?, find(4)?);
    let number = |wanted| {
        let (_, value) = attributes(data).find(|(kind, _)| *kind == wanted)?;
        Some(u64::from_be_bytes(value.try_into().ok()?))
    };
    Some((Counter::named(&name)?, Count { bytes: number(1)?, packets: number(2)? }))
}

fn transaction(rules: &Ruleset, before: &Counts) -> Batch {
    let mut batch = Batch::transaction();
    boundary(&mut batch, BATCH_BEGIN);
    // Deleting what may not be there: make it first.
    for (name, kind, flags) in
        [("table", NEW_TABLE, CREATE), ("former table", DELETE_TABLE, 0), ("table", NEW_TABLE, CREATE)]
    {
        message(&mut batch, name, kind, flags, |m| {
            m.text(1, TABLE);
        });
    }
    for counter in Counter::ALL {
        let count = before.get(&counter).copied().unwrap_or_default();
        object(&mut batch, counter, count);
    }
    for (number, meter) in (1..).zip(&rules.meters) {
        set(&mut batch, number, meter);
    }
    for one in &rules.chains {
        chain(&mut batch, one);
        for rule in &one.rules {
            self::rule(&mut batch, one.hook, rule);
        }
    }
    // Only here to be acknowledged: what went before is then decided.
    message(&mut batch, "all rules", NEW_TABLE, CREATE | ACK, |m| {
        m.text(1, TABLE);
    });
    boundary(&mut batch, BATCH_END);
    batch
}

fn boundary(batch: &mut Batch, kind: u16) {
    batch.message("transaction", kind, 0, |m| {
        m.fixed(&[FAMILY_NONE, 0, 0, SUBSYSTEM as u8]);
    });
}

fn message(
    batch: &mut Batch,
    name: &'static str,
    kind: u16,
    flags: u16,
    fill: impl FnOnce(&mut Attributes<'_>),
) {
    batch.message(name, (SUBSYSTEM << 8) | kind, flags, |m| {
        m.fixed(&[FAMILY_IPV4, 0, 0, 0]);
        fill(m);
    });
}

fn object(batch: &mut Batch, counter: Counter, count: Count) {
    message(batch, "counter", NEW_OBJECT, CREATE, |m| {
        m.text(1, TABLE).text(2, counter.name()).be32(3, OBJECT_COUNTER).nest(4, |data| {
            data.be64(1, count.bytes).be64(2, count.packets);
        });
    });
}

fn set(batch: &mut Batch, number: u32, meter: &Meter) {
    message(batch, "meter", NEW_SET, CREATE, |m| {
        let flags = SET_EVALUATE | if meter.expires { SET_TIMEOUT } else { 0 };
        m.text(1, TABLE).text(2, &meter.name).be32(3, flags).be32(4, KEY_IPV4).be32(5, 4);
        m.nest(9, |description| {
            description.be32(1, METER_ENTRIES);
        });
        m.be32(10, number);
        if meter.expires {
            m.be64(11, METER_TIMEOUT_MS);
        }
    });
}

fn chain(batch: &mut Batch, chain: &Chain) {
    let (name, kind, hook, priority) = place(chain.hook);
    message(batch, "chain", NEW_CHAIN, CREATE, |m| {
        m.text(1, TABLE).text(3, name).nest(4, |at| {
            at.be32(1, hook).be32(2, priority as u32);
        });
        m.be32(5, if chain.accepts { ACCEPT } else { DROP }).text(7, kind);
    });
}

/// Name, type, hook number and priority.
fn place(hook: Hook) -> (&'static str, &'static str, u32, i32) {
    match hook {
        Hook::Destination => ("destination", "nat", 0, -100),
        Hook::Input => ("input", "filter", 1, 0),
        Hook::Forward => ("forward", "filter", 2, 0),
        Hook::Source => ("source", "nat", 4, 100),
    }
}

fn rule(batch: &mut Batch, hook: Hook, rule: &Rule) {
    message(batch, "rule", NEW_RULE, CREATE | APPEND, |m| {
        m.text(1, TABLE).text(2, place(hook).0).nest(4, |list| {
            let mut expressions = Expressions(list);
            rule.when.iter().for_each(|condition| expressions.condition(condition));
            if let Some(counter) = rule.count {
                expressions.add("objref", |e| {
                    e.be32(1, OBJECT_COUNTER).text(2, counter.name());
                });
            }
            expressions.action(&rule.then);
        });
    });
}

/// A rule's program: each expression loads a register, or ends the rule if something does not hold.
struct Expressions<'a, 'b>(&'a mut Attributes<'b>);

impl Expressions<'_, '_> {
    fn add(&mut self, name: &str, fill: impl FnOnce(&mut Attributes<'_>)) {
        self.0.nest(1, |element| expression(element, name, fill));
    }

    fn condition(&mut self, condition: &Match) {
        match condition {
            Match::From(device) => self.device(META_IN, device),
            Match::To(device) => self.device(META_OUT, device),
            Match::Source(network, is) => self.network(IPV4_SOURCE, *network, *is),
            Match::Destination(network, is) => self.network(IPV4_DESTINATION, *network, *is),
            Match::Protocol(protocol) => {
                self.payload(NETWORK_HEADER, IPV4_PROTOCOL, 1);
                self.compare(EQUAL, &[protocol.number()]);
            }
            Match::Ports(first, last) => self.ports(*first, *last),
            Match::State(states) => {
                let bits = states.iter().fold(0, |bits, state| bits | state_bit(*state));
                self.tracked(CT_STATE, bits);
            }
            Match::Redirected => self.tracked(CT_STATUS, REDIRECTED),
            Match::OneIn(count) => {
                self.add("numgen", |e| {
                    e.be32(1, REGISTER).be32(2, *count).be32(3, 1);
                });
                self.compare(EQUAL, &0u32.to_ne_bytes());
            }
            Match::Over(rate) => self.add("limit", |e| bucket(e, *rate)),
            Match::OverEach(meter, side, rate) => {
                self.payload(NETWORK_HEADER, guest_offset(*side), 4);
                self.meter(meter, 1, "limit", |e| bucket(e, *rate));
            }
            Match::Connections(most) => self.add("connlimit", |e| connections(e, *most)),
            Match::ConnectionsEach(meter, most) => {
                self.payload(NETWORK_HEADER, IPV4_SOURCE, 4);
                self.meter(meter, 0, "connlimit", |e| connections(e, *most));
            }
        }
    }

    fn device(&mut self, key: u32, name: &str) {
        self.add("meta", |e| {
            e.be32(1, REGISTER).be32(2, key);
        });
        let mut padded = name.as_bytes().to_vec();
        padded.resize(DEVICE_NAME, 0);
        self.compare(EQUAL, &padded);
    }

    fn network(&mut self, offset: u32, network: Network, is: bool) {
        self.payload(NETWORK_HEADER, offset, 4);
        if network.length() < 32 {
            self.mask(&network.mask().octets());
        }
        self.compare(if is { EQUAL } else { NOT_EQUAL }, &network.address().octets());
    }

    fn ports(&mut self, first: u16, last: u16) {
        self.payload(TRANSPORT_HEADER, DESTINATION_PORT, 2);
        if first == last {
            return self.compare(EQUAL, &first.to_be_bytes());
        }
        self.compare(AT_LEAST, &first.to_be_bytes());
        self.compare(AT_MOST, &last.to_be_bytes());
    }

    fn payload(&mut self, base: u32, offset: u32, length: u32) {
        self.add("payload", |e| {
            e.be32(1, REGISTER).be32(2, base).be32(3, offset).be32(4, length);
        });
    }

    /// Is any of the bits set in what connection tracking knows?
    fn tracked(&mut self, key: u32, bits: u32) {
        self.add("ct", |e| {
            e.be32(1, REGISTER).be32(2, key);
        });
        self.mask(&bits.to_ne_bytes());
        self.compare(NOT_EQUAL, &0u32.to_ne_bytes());
    }

    fn mask(&mut self, mask: &[u8; 4]) {
        self.add("bitwise", |e| {
            e.be32(1, REGISTER).be32(2, REGISTER).be32(3, 4);
            e.nest(4, |data| {
                data.bytes(1, mask);
            });
            e.nest(5, |data| {
                data.bytes(1, &[0; 4]);
            });
        });
    }

    fn compare(&mut self, how: u32, value: &[u8]) {
        self.add("cmp", |e| {
            e.be32(1, REGISTER).be32(2, how).nest(3, |data| {
                data.bytes(1, value);
            });
        });
    }

    /// The guest's own instance of an expression, made when the guest is first seen.
    fn meter(&mut self, set: &str, operation: u32, name: &str, fill: impl FnOnce(&mut Attributes<'_>)) {
        self.add("dynset", |e| {
            e.text(1, set).be32(3, operation).be32(4, REGISTER).nest(7, |inner| {
                expression(inner, name, fill);
            });
        });
    }

    fn action(&mut self, action: &Action) {
        match action {
            Action::Accept => self.verdict(ACCEPT),
            Action::Drop => self.verdict(DROP),
            Action::Reject => self.add("reject", |e| {
                e.be32(1, 0).bytes(2, &[ICMP_PROHIBITED]);
            }),
            Action::ToDestination(address, port) => {
                self.load(REGISTER, &address.octets());
                if let Some(port) = port {
                    self.load(SECOND_REGISTER, &port.to_be_bytes());
                }
                self.translate(1, port.is_some());
            }
            Action::FromSource(address) => {
                self.load(REGISTER, &address.octets());
                self.translate(0, false);
            }
        }
    }

    fn translate(&mut self, kind: u32, with_port: bool) {
        self.add("nat", |e| {
            e.be32(1, kind).be32(2, FAMILY_IPV4.into()).be32(3, REGISTER);
            if with_port {
                e.be32(5, SECOND_REGISTER);
            }
        });
    }

    fn load(&mut self, register: u32, value: &[u8]) {
        self.add("immediate", |e| {
            e.be32(1, register).nest(2, |data| {
                data.bytes(1, value);
            });
        });
    }

    fn verdict(&mut self, code: u32) {
        self.add("immediate", |e| {
            e.be32(1, VERDICT).nest(2, |data| {
                data.nest(2, |verdict| {
                    verdict.be32(1, code);
                });
            });
        });
    }
}

fn expression(into: &mut Attributes<'_>, name: &str, fill: impl FnOnce(&mut Attributes<'_>)) {
    into.text(1, name).nest(2, fill);
}

fn bucket(e: &mut Attributes<'_>, rate: Rate) {
    // Of bytes, in a second, over the limit.
    e.be64(1, rate.bytes_per_second).be64(2, 1).be32(3, rate.burst).be32(4, 1).be32(5, OVER);
}

fn connections(e: &mut Attributes<'_>, most: u32) {
    e.be32(1, most).be32(2, OVER);
}

fn guest_offset(side: Side) -> u32 {
    match side {
        Side::Source => IPV4_SOURCE,
        Side::Destination => IPV4_DESTINATION,
    }
}

fn state_bit(state: State) -> u32 {
    match state {
        State::Invalid => 1,
        State::Established => 2,
        State::Related => 4,
        State::New => 8,
    }
}
