//! Configuration -> rules. Order matters, and is the same for every configuration:
//!
//! ```text
//! forward, from inside to world:  spoofed? | throttle | established | limits | outbound rules | default
//! forward, from world to inside:  throttle | established | limits | forwards | named ports | refuse
//! forward, anything else:         dropped
//! ```
//!
//! Throttles come first, for most packets belong to established connections.

use std::net::Ipv4Addr;

use super::{
    Action, Chain, Counter, Devices, Hook, Match, Meter, Protocol, Rate, Rule, Ruleset, Side, State,
};
use crate::address::Network;
use crate::config::{Config, Decision, Dns, Forward, Guest, Outbound, Service, Throttle};

const UP: &str = "up";
const DOWN: &str = "down";
const CONNECTIONS: &str = "connections";
const DNS_PORT: u16 = 53;

/// The rules of a configuration, between these devices.
#[must_use]
pub fn translate(config: &Config, devices: &Devices) -> Ruleset {
    let from = Translation { config, devices };
    let meter = |name: &str, expires| Meter { name: name.into(), expires };
    Ruleset {
        meters: vec![meter(UP, true), meter(DOWN, true), meter(CONNECTIONS, false)],
        chains: vec![
            Chain { hook: Hook::Destination, accepts: true, rules: from.destinations() },
            Chain { hook: Hook::Source, accepts: true, rules: from.sources() },
            Chain { hook: Hook::Input, accepts: true, rules: from.input() },
            Chain { hook: Hook::Forward, accepts: false, rules: from.forward() },
        ],
    }
}

struct Translation<'a> {
    config: &'a Config,
    devices: &'a Devices,
}

fn rule(when: Vec<Match>, count: impl Into<Option<Counter>>, then: Action) -> Rule {
    Rule { when, count: count.into(), then }
}

impl Translation<'_> {
    fn outwards(&self, more: impl IntoIterator<Item = Match>) -> Vec<Match> {
        let ways = [Match::From(self.devices.inside.clone()), Match::To(self.devices.world.clone())];
        ways.into_iter().chain(more).collect()
    }

    fn inwards(&self, more: impl IntoIterator<Item = Match>) -> Vec<Match> {
        let ways = [Match::From(self.devices.world.clone()), Match::To(self.devices.inside.clone())];
        ways.into_iter().chain(more).collect()
    }

    fn of_world(&self, more: impl IntoIterator<Item = Match>) -> Vec<Match> {
        [Match::From(self.devices.world.clone())].into_iter().chain(more).collect()
    }

    fn destinations(&self) -> Vec<Rule> {
        let dns = self.config.dns.iter().flat_map(|dns| self.dns(dns));
        let forwards = self.config.inbound.forwards.iter().flat_map(|forward| self.port_forward(forward));
        dns.chain(forwards).collect()
    }

    /// Each of n servers gets its share: the first one question in n, the next one in n - 1 of the rest.
    fn dns(&self, dns: &Dns) -> Vec<Rule> {
        let mut rules = Vec::new();
        for protocol in [Protocol::Udp, Protocol::Tcp] {
            for (server, left) in dns.servers.iter().zip((1..=dns.servers.len() as u32).rev()) {
                let mut when = vec![
                    Match::From(self.devices.inside.clone()),
                    Match::Destination(Network::host(dns.at), true),
                    Match::Protocol(protocol),
                    Match::Ports(DNS_PORT, DNS_PORT),
                ];
                when.extend((left > 1).then_some(Match::OneIn(left)));
                rules.push(rule(when, None, Action::ToDestination(*server, None)));
            }
        }
        rules
    }

    fn port_forward(&self, forward: &Forward) -> Vec<Rule> {
        let guest = forward.to.address(&self.config.private);
        let one = |network: &Network| {
            let mut when = self.of_world(source(*network));
            when.push(Match::Destination(Network::host(self.config.world.address), true));
            when.extend([Match::Protocol(forward.protocol), Match::Ports(forward.port, forward.port)]);
            rule(when, None, Action::ToDestination(guest, Some(forward.to_port)))
        };
        forward.from.iter().map(one).collect()
    }

    fn sources(&self) -> Vec<Rule> {
        let when =
            vec![Match::To(self.devices.world.clone()), Match::Source(self.config.private.network, true)];
        vec![rule(when, None, Action::FromSource(self.config.world.address))]
    }

    /// Nothing listens in the router; what the world sends to it is answered only if it is a ping.
    fn input(&self) -> Vec<Rule> {
        let known = Match::State(vec![State::Established, State::Related]);
        vec![
            rule(self.of_world([known]), None, Action::Accept),
            rule(self.of_world([Match::Protocol(Protocol::Icmp)]), None, Action::Accept),
            rule(self.of_world([]), Counter::RefusedInbound, Action::Drop),
        ]
    }

    fn forward(&self) -> Vec<Rule> {
        let limits = &self.config.limits;
        let stranger = Match::Source(self.config.private.network, false);
        let mut rules = vec![rule(self.outwards([stranger]), Counter::Spoofed, Action::Drop)];
        for (throttle, meter, side) in
            [(&limits.up, UP, Side::Source), (&limits.down, DOWN, Side::Destination)]
        {
            rules.extend(self.throttle(throttle, meter, side));
        }
        let known = || Match::State(vec![State::Established, State::Related]);
        rules.push(rule(self.outwards([known()]), Counter::Sent, Action::Accept));
        rules.push(rule(self.inwards([known()]), Counter::Received, Action::Accept));
        rules.push(rule(vec![Match::State(vec![State::Invalid])], None, Action::Drop));
        rules.extend(self.connections());
        rules.push(rule(self.outwards([Match::Redirected]), Counter::Sent, Action::Accept));
        rules.extend(self.config.outbound.rules.iter().flat_map(|asked| self.outbound(asked)));
        rules.push(self.decided(self.config.outbound.default, self.outwards([])));
        rules.push(rule(self.inwards([Match::Redirected]), Counter::Received, Action::Accept));
        rules.extend(self.named_ports());
        rules.push(rule(self.of_world([]), Counter::RefusedInbound, Action::Drop));
        rules
    }

    fn throttle(&self, throttle: &Throttle, meter: &str, side: Side) -> Vec<Rule> {
        let way = |more: Match| match side {
            Side::Source => self.outwards([more]),
            Side::Destination => self.inwards([more]),
        };
        let each = throttle.each.map(|rate| Match::OverEach(meter.into(), side, bucket(rate)));
        let total = throttle.total.map(|rate| Match::Over(bucket(rate)));
        let each = each.map(|over| rule(way(over), Counter::ThrottledEach, Action::Drop));
        let total = total.map(|over| rule(way(over), Counter::ThrottledTotal, Action::Drop));
        each.into_iter().chain(total).collect()
    }

    fn connections(&self) -> Vec<Rule> {
        let limits = &self.config.limits;
        let new = || Match::State(vec![State::New]);
        let each = limits.connections_each.map(|most| {
            let over = Match::ConnectionsEach(CONNECTIONS.into(), most);
            rule(self.outwards([new(), over]), Counter::Connections, Action::Drop)
        });
        let total =
            rule(vec![new(), Match::Connections(limits.connections)], Counter::Connections, Action::Drop);
        each.into_iter().chain([total]).collect()
    }

    fn outbound(&self, asked: &Outbound) -> Vec<Rule> {
        let mut rules = Vec::new();
        for network in &asked.to {
            for service in &asked.services {
                let guests = guests(asked.from, &self.config.private);
                let to = destination(*network);
                let when = self.outwards(guests.into_iter().chain(to).chain(service_of(*service)));
                rules.push(self.decided(asked.decision, when));
            }
        }
        rules
    }

    fn decided(&self, decision: Decision, when: Vec<Match>) -> Rule {
        match decision {
            Decision::Allow => rule(when, Counter::Sent, Action::Accept),
            Decision::Refuse => rule(when, Counter::RefusedOutbound, Action::Reject),
        }
    }

    fn named_ports(&self) -> Vec<Rule> {
        let inbound = &self.config.inbound;
        let ways = [(Guest::Parent, &inbound.parent), (Guest::Clones, &inbound.clones)];
        let rules = ways.into_iter().flat_map(|(guest, services)| {
            services.iter().map(move |service| {
                let to = guests_addressed(guest, &self.config.private);
                let when = self.inwards(to.into_iter().chain(service_of(*service)));
                rule(when, Counter::Received, Action::Accept)
            })
        });
        rules.collect()
    }
}

/// A bucket of a tenth of a second evens out what a sender's segments come in;
/// never smaller than two of the largest that the devices hand over at once.
fn bucket(bytes_per_second: u64) -> Rate {
    let burst = (bytes_per_second / 10).clamp(LEAST_BURST, MOST_BURST);
    Rate { bytes_per_second, burst: burst as u32 }
}

const LEAST_BURST: u64 = 128 << 10;
const MOST_BURST: u64 = 64 << 20;
const _: () = assert!(MOST_BURST <= u32::MAX as u64);

fn source(network: Network) -> Option<Match> {
    (network != Network::ALL).then_some(Match::Source(network, true))
}

fn destination(network: Network) -> Option<Match> {
    (network != Network::ALL).then_some(Match::Destination(network, true))
}

fn guests(from: Guest, private: &crate::config::Private) -> Vec<Match> {
    let one = |address: Ipv4Addr, is| vec![Match::Source(Network::host(address), is)];
    match from {
        Guest::All => Vec::new(),
        Guest::Parent => one(private.parent, true),
        Guest::Clones => one(private.parent, false),
        Guest::At(address) => one(address, true),
    }
}

fn guests_addressed(to: Guest, private: &crate::config::Private) -> Vec<Match> {
    let mut when = vec![Match::Destination(private.network, true)];
    match to {
        Guest::All => {}
        Guest::Parent => when = vec![Match::Destination(Network::host(private.parent), true)],
        Guest::Clones => when.push(Match::Destination(Network::host(private.parent), false)),
        Guest::At(address) => when = vec![Match::Destination(Network::host(address), true)],
    }
    when
}

fn service_of(service: Service) -> Vec<Match> {
    match service {
        Service::Any => Vec::new(),
        Service::Ping => vec![Match::Protocol(Protocol::Icmp)],
        Service::Ports(protocol, first, last) => {
            vec![Match::Protocol(protocol), Match::Ports(first, last)]
        }
    }
}
