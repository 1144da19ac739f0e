//! Keys to values, and every complaint at once.

use super::*;

fn private() -> Private {
    Private { network: "10.117.0.0/16".parse().unwrap(), parent: Ipv4Addr::new(10, 117, 0, 2) }
}

fn complaints(text: &str) -> String {
    parse(text, private()).unwrap_err().to_string()
}

const WORLD: &str = "world: {address: 192.0.2.2/30, gateway: 192.0.2.1}\n";

#[test]
fn the_annotated_example_says_what_it_seems_to_say() {
    let config = parse(include_str!("../../../deploy/examples/router/router.yaml"), private()).unwrap();
    assert_eq!(config.world.address, Ipv4Addr::new(192, 0, 2, 2));
    assert_eq!(config.outbound.default, Decision::Refuse);
    assert_eq!(config.outbound.rules[1].services, [Service::Ports(Protocol::Tcp, 443, 443), Service::Ping]);
    assert_eq!(config.outbound.rules[2].from, Guest::Parent);
    assert_eq!(config.outbound.rules[3].services, [Service::Ports(Protocol::Tcp, 5432, 5433)]);
    assert_eq!(config.inbound.forwards[0].to_port, 443);
    assert_eq!(config.limits.up, Throttle { total: Some(25_000_000), each: Some(2_500_000) });
    assert_eq!(config.dns.unwrap().servers.len(), 2);
}

#[test]
fn with_a_place_in_the_world_alone_nothing_passes() {
    let config = parse(WORLD, private()).unwrap();
    assert_eq!(config.outbound, OutboundRules { default: Decision::Refuse, rules: Vec::new() });
    assert_eq!(config.inbound, Inbound { parent: Vec::new(), clones: Vec::new(), forwards: Vec::new() });
    assert_eq!(config.limits.up, Throttle::default());
    assert_eq!(config.dns, None);
}

#[test]
fn everything_wrong_is_told_at_once_each_with_its_key() {
    let said = complaints(
        "world: {address: 10.117.0.9/24, gateway: here, bridge: a-name-that-is-too-long}
outbound:
  default: maybe
  rules: [{to: [10.0.0.1/8], services: [tcp/0], from: 10.118.0.1}, {do: allow, services: [udp/9-7]}]
inbound:
  parent: [sctp/1]
  forwards: [{port: tcp/1-2}, {port: tcp/80, to: clones, to_port: 0}]
limits: {up: {each: 10}, down: {total: 1kbit}, connections: 0, conections_each: 3}
dns: {at: 10.117.3.3, servers: []}
",
    );
    for key in [
        "world.address: must lie apart from the guests' network 10.117.0.0/16",
        "world.gateway: must be an IPv4 address",
        "world.bridge: is no name of a network device",
        "outbound.default:",
        "outbound.rules[0].do:",
        "outbound.rules[0].from: must lie in the guests' network",
        "outbound.rules[0].to[0]: has host bits set",
        "outbound.rules[0].services[0]: names no service",
        "outbound.rules[1].services[0]: names no service",
        "inbound.parent[0]: names no service",
        "inbound.forwards[0].port: must be a single port",
        "inbound.forwards[1].to: must be one guest",
        "inbound.forwards[1].to_port:",
        "limits.up.each:",
        "limits.down.total: must be at least 8kbit",
        "limits.connections:",
        "limits.conections_each: is not a known key (did you mean `connections_each`?)",
        "dns.at: must lie outside",
        "dns.servers:",
    ] {
        assert!(said.contains(key), "{key}\n is not in\n{said}");
    }
}

#[test]
fn a_gateway_must_be_another_address_of_the_same_network() {
    for gateway in ["192.0.2.2", "192.0.2.5"] {
        let said = complaints(&format!("world: {{address: 192.0.2.2/30, gateway: {gateway}}}\n"));
        assert!(said.contains("world.gateway: must be another address of 192.0.2.0/30"), "{said}");
    }
}

#[test]
fn a_port_is_forwarded_once_but_tcp_and_udp_are_two_ports() {
    let twice = format!("{WORLD}inbound: {{forwards: [{{port: tcp/80}}, {{port: tcp/80}}]}}\n");
    assert!(complaints(&twice).contains("inbound.forwards[1].port: is forwarded already"));
    let both = format!("{WORLD}inbound: {{forwards: [{{port: tcp/53}}, {{port: udp/53}}]}}\n");
    assert_eq!(parse(&both, private()).unwrap().inbound.forwards[1].to_port, 53);
}

#[test]
fn lists_are_bounded() {
    let rules = "{do: allow},".repeat(257);
    let said = complaints(&format!("{WORLD}outbound: {{rules: [{rules}]}}\n"));
    assert!(said.contains("outbound.rules: must have at most 256 entries, got 257"), "{said}");
}
