//! Reads the keys of `ROUTER.md`.

use std::net::Ipv4Addr;

use scaler::yaml::{self, Complaints, Entry, Section};

use super::{
    Config, Decision, Dns, Forward, Guest, Inbound, Limits, Outbound, OutboundRules, Private, Service,
    Throttle, World,
};
use crate::address::{Network, split};
use crate::rules::Protocol;

/// A connection takes about 320 bytes of the router's memory, and a VM has 64 MiB.
const MOST_CONNECTIONS: u32 = 65_536;
const DEFAULT_CONNECTIONS: u32 = 16_384;
/// Each rule costs every new connection some time.
const MOST_RULES: usize = 256;
const SLOWEST: u64 = 1_000;
/// Guests reach it by their default route, and it is nobody's.
const DEFAULT_DNS: Ipv4Addr = Ipv4Addr::new(169, 254, 53, 53);
const LONGEST_DEVICE: usize = 15;

/// Reads a document of its own.
///
/// # Errors
/// All complaints.
pub fn parse(text: &str, private: Private) -> Result<Config, Complaints> {
    yaml::read(text, |root| read(root, private))
}

/// Reads the section of a larger document; `None` if a required key is missing or wrong.
pub fn read(s: &mut Section<'_>, private: Private) -> Option<Config> {
    let world = s.section("world", |world| self::world(world, private));
    let outbound = s.section("outbound", |outbound| self::outbound(outbound, private));
    let inbound = s.section("inbound", |inbound| self::inbound(inbound, private));
    let limits = s.section("limits", self::limits);
    let dns = s.optional_section("dns", |dns| self::dns(dns, private)).flatten();
    Some(Config { private, world: world?, outbound, inbound, limits, dns })
}

fn world(s: &mut Section<'_>, private: Private) -> Option<World> {
    let remedy = "give the router's address in the world with its prefix, e.g. 192.0.2.2/30";
    let address = s.string("address", remedy).try_map(|text| placed(&text, private)).required();
    let remedy = "give the address of the next hop, e.g. 192.0.2.1";
    let gateway = s.string("gateway", remedy).try_map(|text| ip(&text)).required();
    let remedy = "name a bridge of this host, or leave it out";
    let bridge = s.string("bridge", remedy).check(|name| device(name)).optional();
    let ((address, length), gateway) = (address?, gateway?);
    if gateway == address || !Network::around(address, length).contains(gateway) {
        let problem = format!("must be another address of {}", Network::around(address, length));
        s.complain("gateway", format!("{problem}, got {gateway}"), remedy);
        return None;
    }
    Some(World { address, length, gateway, bridge })
}

fn placed(text: &str, private: Private) -> Result<(Ipv4Addr, u8), String> {
    let (address, length) = split(text)?;
    if !(1..=30).contains(&length) {
        return Err(format!("must have a prefix of 1 to 30 bits, got `{text}`"));
    }
    if Network::around(address, length).overlaps(private.network) {
        return Err(format!("must lie apart from the guests' network {}, got `{text}`", private.network));
    }
    Ok((address, length))
}

fn ip(text: &str) -> Result<Ipv4Addr, String> {
    text.parse().map_err(|_| format!("must be an IPv4 address, got `{text}`"))
}

fn device(name: &str) -> Result<(), String> {
    let fine = !name.is_empty()
        && name.len() <= LONGEST_DEVICE
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    fine.then_some(()).ok_or_else(|| format!("is no name of a network device, got `{name}`"))
}

fn outbound(s: &mut Section<'_>, private: Private) -> OutboundRules {
    let words = [("allow", Decision::Allow), ("refuse", Decision::Refuse)];
    let default = s.choice("default", &words, "write allow or refuse").or(Decision::Refuse);
    let remedy = "give a list of rules, e.g. [{do: allow, services: [tcp/443]}]";
    let entries = s.list("rules", remedy).check(|all| few(all, MOST_RULES)).optional().unwrap_or_default();
    let rule = |s: &mut Section<'_>| {
        let decision = s.choice("do", &words, "write allow or refuse").required();
        let from = s.string("from", GUEST_REMEDY).try_map(|text| guest(&text, private)).or(Guest::All);
        let to = networks(s, "to");
        let services = services(s, "services").unwrap_or_else(|| vec![Service::Any]);
        Some(Outbound { decision: decision?, from, to, services })
    };
    OutboundRules { default, rules: entries.into_iter().filter_map(|entry| entry.section(rule)).collect() }
}

const GUEST_REMEDY: &str = "write all, parent, clones or the address of a guest";

fn guest(text: &str, private: Private) -> Result<Guest, String> {
    match text {
        "all" => return Ok(Guest::All),
        "parent" => return Ok(Guest::Parent),
        "clones" => return Ok(Guest::Clones),
        _ => {}
    }
    let address: Ipv4Addr = text.parse().map_err(|_| format!("names no guest, got `{text}`"))?;
    let theirs = private.network.contains(address);
    let outside = || format!("must lie in the guests' network {}, got {address}", private.network);
    theirs.then_some(Guest::At(address)).ok_or_else(outside)
}

fn single_guest(text: &str, private: Private) -> Result<Guest, String> {
    match guest(text, private)? {
        one @ (Guest::Parent | Guest::At(_)) => Ok(one),
        Guest::All | Guest::Clones => Err(format!("must be one guest, got `{text}`")),
    }
}

fn networks(s: &mut Section<'_>, key: &str) -> Vec<Network> {
    const REMEDY: &str = "give a list of networks, e.g. [192.0.2.0/24]";
    let entries = s.list(key, REMEDY).not_empty().check(|all| few(all, MOST_RULES)).optional();
    let one = |entry: Entry<'_>| entry.string(REMEDY).try_map(|text| text.parse()).optional();
    entries.map_or_else(|| vec![Network::ALL], |all| all.into_iter().filter_map(one).collect())
}

fn services(s: &mut Section<'_>, key: &str) -> Option<Vec<Service>> {
    const REMEDY: &str = "give a list of any, ping, tcp/PORT or udp/FIRST-LAST, e.g. [tcp/443]";
    let entries = s.list(key, REMEDY).check(|all| few(all, MOST_RULES)).optional()?;
    let one = |entry: Entry<'_>| entry.string(REMEDY).try_map(|text| service(&text)).optional();
    Some(entries.into_iter().filter_map(one).collect())
}

fn few<T>(all: &[T], most: usize) -> Result<(), String> {
    let problem = || format!("must have at most {most} entries, got {}", all.len());
    (all.len() <= most).then_some(()).ok_or_else(problem)
}

fn service(text: &str) -> Result<Service, String> {
    match text {
        "any" => Ok(Service::Any),
        "ping" => Ok(Service::Ping),
        _ => ports(text).map(|(protocol, first, last)| Service::Ports(protocol, first, last)),
    }
}

/// `tcp/443`, `udp/5000-5010`.
fn ports(text: &str) -> Result<(Protocol, u16, u16), String> {
    let malformed = || format!("names no service, got `{text}`");
    let (protocol, ports) = text.split_once('/').ok_or_else(malformed)?;
    let protocol = match protocol {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        _ => return Err(malformed()),
    };
    let (first, last) = ports.split_once('-').unwrap_or((ports, ports));
    let port = |text: &str| text.parse().ok().filter(|port: &u16| *port > 0).ok_or_else(malformed);
    let (first, last) = (port(first)?, port(last)?);
    if first > last { Err(malformed()) } else { Ok((protocol, first, last)) }
}

fn inbound(s: &mut Section<'_>, private: Private) -> Inbound {
    let parent = services(s, "parent").unwrap_or_default();
    let clones = services(s, "clones").unwrap_or_default();
    let remedy = "give a list of forwards, e.g. [{port: tcp/8443, to: parent, to_port: 443}]";
    let entries = s.list("forwards", remedy).check(|all| few(all, MOST_RULES)).optional();
    let entries = entries.unwrap_or_default().into_iter().enumerate();
    let forwards: Vec<Forward> = entries
        .filter_map(|(index, entry)| Some((index, entry.section(|s| forward(s, private))?)))
        .fold(Vec::new(), |mut taken: Vec<Forward>, (index, forward)| {
            if taken.iter().any(|other| (other.protocol, other.port) == (forward.protocol, forward.port)) {
                let key = format!("forwards[{index}].port");
                s.complain(&key, "is forwarded already", "forward each port once");
            }
            taken.push(forward);
            taken
        });
    Inbound { parent, clones, forwards }
}

fn forward(s: &mut Section<'_>, private: Private) -> Option<Forward> {
    let single = |text: String| match ports(&text)? {
        (protocol, first, last) if first == last => Ok((protocol, first)),
        _ => Err(format!("must be a single port, got `{text}`")),
    };
    let port = s.string("port", "give a port of the router, e.g. tcp/8443").try_map(single).required();
    let remedy = "write parent or the address of a guest";
    let to = s.string("to", remedy).try_map(|text| single_guest(&text, private)).or(Guest::Parent);
    let to_port = s.u32("to_port", "give the guest's port, e.g. 443").at_least(1).at_most(65_535).optional();
    let from = networks(s, "from");
    let (protocol, port) = port?;
    let to_port = to_port.and_then(|port| u16::try_from(port).ok()).unwrap_or(port);
    Some(Forward { protocol, port, to, to_port, from })
}

fn limits(s: &mut Section<'_>) -> Limits {
    let up = s.section("up", throttle);
    let down = s.section("down", throttle);
    let remedy = "give a number of connections, e.g. 16384";
    let connections = s.u32("connections", remedy).at_least(1).at_most(MOST_CONNECTIONS);
    let each = s.u32("connections_each", remedy).at_least(1).at_most(MOST_CONNECTIONS).optional();
    Limits { up, down, connections: connections.or(DEFAULT_CONNECTIONS), connections_each: each }
}

fn throttle(s: &mut Section<'_>) -> Throttle {
    let mut rate = |key: &str| {
        let remedy = "give a rate, e.g. 500kbit, 100mbit or 1gbit";
        s.string(key, remedy).try_map(|text| bytes_per_second(&text)).optional()
    };
    Throttle { total: rate("total"), each: rate("each") }
}

/// `100mbit` is 12,500,000 bytes a second.
fn bytes_per_second(text: &str) -> Result<u64, String> {
    let malformed = || format!("must be a number with kbit, mbit or gbit, got `{text}`");
    let units = [("kbit", 125), ("mbit", 125_000), ("gbit", 125_000_000)];
    let (number, unit) = units
        .iter()
        .find_map(|(name, unit)| Some((text.strip_suffix(name)?, *unit)))
        .ok_or_else(malformed)?;
    let number: u64 = number.trim().parse().map_err(|_| malformed())?;
    let rate = number.checked_mul(unit).ok_or_else(malformed)?;
    if rate < SLOWEST { Err(format!("must be at least 8kbit, got `{text}`")) } else { Ok(rate) }
}

fn dns(s: &mut Section<'_>, private: Private) -> Option<Dns> {
    const REMEDY: &str = "give one to eight addresses of name servers, e.g. [192.0.2.53]";
    let apart = |text: String| match ip(&text)? {
        address if private.network.contains(address) => {
            Err(format!("must lie outside of the guests' network {}, got {address}", private.network))
        }
        address => Ok(address),
    };
    let at = s.string("at", "give the address that guests ask, or leave it out").try_map(apart);
    let at = at.or(DEFAULT_DNS);
    let entries = s.list("servers", REMEDY).not_empty().check(|all| few(all, 8)).required()?;
    let one = |entry: Entry<'_>| entry.string(REMEDY).try_map(|text| ip(&text)).optional();
    Some(Dns { at, servers: entries.into_iter().filter_map(one).collect() })
}
