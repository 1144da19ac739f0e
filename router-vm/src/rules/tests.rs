//! The translation, as a table: what the configuration says, which rules it becomes.

use super::*;
use crate::config::{Private, parse};

const WORLD: &str = "world: {address: 192.0.2.2/30, gateway: 192.0.2.1}\n";

/// The rules of a hook in words.
fn rules(keys: &str, hook: Hook) -> Vec<String> {
    let parent = Ipv4Addr::new(10, 117, 0, 2);
    let private = Private { network: "10.117.0.0/16".parse().unwrap(), parent };
    let config = parse(&format!("{WORLD}{keys}"), private).unwrap_or_else(|e| panic!("{e}"));
    let devices = Devices { inside: "in".into(), world: "out".into() };
    let ruleset = translate(&config, &devices);
    let chain = ruleset.chains.into_iter().find(|chain| chain.hook == hook).unwrap();
    chain.rules.iter().map(show).collect()
}

fn show(rule: &Rule) -> String {
    let when: Vec<String> = rule.when.iter().map(show_match).collect();
    let count = rule.count.map(|counter| format!(" [{}]", counter.name())).unwrap_or_default();
    format!("{} -> {:?}{count}", when.join(" "), rule.then)
}

fn show_match(condition: &Match) -> String {
    match condition {
        Match::From(device) => format!("<{device}"),
        Match::To(device) => format!(">{device}"),
        Match::Source(network, is) => format!("{}from {network}", if *is { "" } else { "not " }),
        Match::Destination(network, is) => format!("{}to {network}", if *is { "" } else { "not " }),
        other => format!("{other:?}"),
    }
}

/// Those of the forward hook that `keys` add to an empty configuration.
fn added(keys: &str) -> Vec<String> {
    let without = rules("", Hook::Forward);
    rules(keys, Hook::Forward).into_iter().filter(|rule| !without.contains(rule)).collect()
}

#[test]
fn an_empty_configuration_lets_nothing_new_pass() {
    let new: Vec<String> = rules("", Hook::Forward)
        .into_iter()
        .filter(|rule| {
            rule.contains("Accept") && !rule.contains("Established") && !rule.contains("Redirected")
        })
        .collect();
    assert_eq!(new, [""; 0]);
    assert!(rules("", Hook::Destination).is_empty());
}

#[test]
fn outbound_rules_become_one_rule_for_each_network_and_service() {
    let cases: [(&str, &[&str]); 4] = [
        ("{do: allow}", &["<in >out -> Accept [sent]"]),
        (
            "{do: allow, from: parent, services: [tcp/443, ping]}",
            &[
                "<in >out from 10.117.0.2/32 Protocol(Tcp) Ports(443, 443) -> Accept [sent]",
                "<in >out from 10.117.0.2/32 Protocol(Icmp) -> Accept [sent]",
            ],
        ),
        (
            "{do: refuse, from: clones, to: [192.0.2.0/24, 198.51.100.7]}",
            &[
                "<in >out not from 10.117.0.2/32 to 192.0.2.0/24 -> Reject [refused_outbound]",
                "<in >out not from 10.117.0.2/32 to 198.51.100.7/32 -> Reject [refused_outbound]",
            ],
        ),
        (
            "{do: allow, from: 10.117.0.9, services: [udp/5-7]}",
            &["<in >out from 10.117.0.9/32 Protocol(Udp) Ports(5, 7) -> Accept [sent]"],
        ),
    ];
    for (rule, expected) in cases {
        assert_eq!(added(&format!("outbound: {{rules: [{rule}]}}\n")), expected, "{rule}");
    }
}

#[test]
fn rules_keep_their_order_and_the_default_comes_last() {
    let keys = "outbound: {default: allow, rules: [{do: refuse, services: [tcp/25]}, {do: allow, services: [tcp/80]}]}\n";
    assert_eq!(
        added(keys),
        [
            "<in >out Protocol(Tcp) Ports(25, 25) -> Reject [refused_outbound]",
            "<in >out Protocol(Tcp) Ports(80, 80) -> Accept [sent]",
            "<in >out -> Accept [sent]",
        ]
    );
}

#[test]
fn throttles_come_before_connections_that_are_known() {
    let keys = "limits: {up: {each: 8mbit, total: 80gbit}, down: {each: 8kbit}}\n";
    let all = rules(keys, Hook::Forward);
    let known = all.iter().position(|rule| rule.contains("Established")).unwrap();
    let throttles: Vec<usize> = (0..all.len()).filter(|at| all[*at].contains("[throttled")).collect();
    assert_eq!(throttles.len(), 3);
    assert!(throttles.iter().all(|at| *at < known), "{all:#?}");
    let bucket = |rate, burst| format!("Rate {{ bytes_per_second: {rate}, burst: {burst} }}");
    assert!(all[throttles[0]].contains(&bucket(1_000_000, 131_072)), "{}", all[throttles[0]]);
    assert!(all[throttles[1]].contains(&bucket(10_000_000_000u64, 67_108_864)), "{}", all[throttles[1]]);
    assert!(all[throttles[2]].contains("OverEach(\"down\", Destination"), "{}", all[throttles[2]]);
}

#[test]
fn the_world_reaches_named_ports_and_no_others() {
    assert_eq!(
        added("inbound: {parent: [tcp/22], clones: [tcp/80]}\n"),
        [
            "<out >in to 10.117.0.2/32 Protocol(Tcp) Ports(22, 22) -> Accept [received]",
            "<out >in to 10.117.0.0/16 not to 10.117.0.2/32 Protocol(Tcp) Ports(80, 80) -> Accept [received]",
        ]
    );
}

#[test]
fn forwards_and_name_servers_change_destinations() {
    let keys =
        "inbound: {forwards: [{port: tcp/8443, to: 10.117.0.3, to_port: 443, from: [198.51.100.0/24]}]}
dns: {servers: [192.0.2.53, 192.0.2.54]}
";
    let all = rules(keys, Hook::Destination);
    let asked = "<in to 169.254.53.53/32 Protocol(Udp) Ports(53, 53)";
    assert_eq!(all[0], format!("{asked} OneIn(2) -> ToDestination(192.0.2.53, None)"));
    assert_eq!(all[1], format!("{asked} -> ToDestination(192.0.2.54, None)"));
    assert_eq!(
        all[4],
        "<out from 198.51.100.0/24 to 192.0.2.2/32 Protocol(Tcp) Ports(8443, 8443) -> ToDestination(10.117.0.3, Some(443))"
    );
    assert_eq!(rules(keys, Hook::Source), [">out from 10.117.0.0/16 -> FromSource(192.0.2.2)"]);
}

#[test]
fn a_ruleset_survives_being_sent() {
    let private = Private { network: Network::ALL, parent: Ipv4Addr::LOCALHOST };
    let private = Private { network: "10.117.0.0/16".parse().unwrap(), ..private };
    let text = include_str!("../../../deploy/examples/router/router.yaml");
    let plan = crate::plan::Plan::of(&parse(text, private).unwrap_or_else(|e| panic!("{e}")));
    let sent = serde_json::to_vec(&plan).unwrap();
    assert_eq!(serde_json::from_slice::<crate::plan::Plan>(&sent).unwrap(), plan);
}
