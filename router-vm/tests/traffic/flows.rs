//! Who reaches whom, and under which address.

use std::net::Ipv4Addr;

use router_vm::rules::Counter;

use crate::world::{CLONE, PARENT, ROUTER, SERVER, STRANGER, World, config, modes};

const NAME_SERVICE: Ipv4Addr = Ipv4Addr::new(169, 254, 53, 53);

/// Allowed: 443 for all, 22 of the stranger for the parent; inbound 80 of the parent, 8443 -> clone:443.
const KEYS: &str = "outbound:
  rules:
    - {do: refuse, to: [198.51.100.2], from: clones}
    - {do: allow, services: [tcp/443]}
    - {do: allow, from: parent, to: [198.51.100.2], services: [tcp/20-22]}
inbound:
  parent: [tcp/80]
  forwards: [{port: tcp/8443, to: 10.119.0.3, to_port: 443, from: [192.0.2.1]}]
dns: {servers: [198.51.100.1]}
";

#[test]
fn the_reachability_matrix_is_the_same_in_both_modes() {
    for (name, mode) in modes() {
        let world = World::new();
        let router = world.router(&mode, KEYS);
        reachable(&world, name);
        unreachable(&world, name);
        let measures = router.measure().unwrap();
        for counter in [Counter::Sent, Counter::Received, Counter::RefusedOutbound, Counter::RefusedInbound] {
            assert!(measures.counts[&counter].packets > 0, "{name}: {counter:?} in {measures:?}");
        }
        assert!(measures.connections > 0, "{name}");
    }
}

fn reachable(world: &World, name: &str) {
    let outwards = [("parent", SERVER, 443), ("clone", SERVER, 443), ("parent", STRANGER, 22)];
    for (guest, to, port) in outwards {
        let server = world.listen("world", to, port);
        let seen = world.reach(guest, to, port, &server);
        assert_eq!(seen.expect(name), ROUTER, "{name}: {guest} -> {to}:{port}");
    }
    // To a guest's own address, and to a port of the router's.
    for (guest, at, port, to, to_port) in
        [("parent", PARENT, 80, PARENT, 80), ("clone", CLONE, 443, ROUTER, 8443)]
    {
        let server = world.listen(guest, at, port);
        let seen = world.reach("world", to, to_port, &server);
        assert!(seen.is_ok(), "{name}: world -> {to}:{to_port}: {seen:?}");
    }
}

fn unreachable(world: &World, name: &str) {
    let _listening = [
        world.listen("world", SERVER, 80),
        world.listen("world", STRANGER, 443),
        world.listen("parent", PARENT, 22),
        world.listen("clone", CLONE, 80),
    ];
    for (from, to, port) in [
        ("parent", SERVER, 80),
        ("clone", STRANGER, 443),
        ("clone", STRANGER, 22),
        ("world", PARENT, 22),
        ("world", CLONE, 80),
        ("world", ROUTER, 80),
    ] {
        assert!(world.unreachable(from, to, port), "{name}: {from} -> {to}:{port}");
    }
}

#[test]
fn names_are_asked_of_one_address_and_answered_by_a_server() {
    for (name, mode) in modes() {
        let world = World::new();
        let _router = world.router(&mode, KEYS);
        let server = world.udp("world", SERVER, 53);
        let guest = world.udp("clone", CLONE, 5353);
        guest.send_to(b"question", (NAME_SERVICE, 53)).unwrap();
        let mut room = [0; 64];
        let (count, from) = server.recv_from(&mut room).expect(name);
        assert_eq!((&room[..count], from.ip()), (b"question".as_slice(), ROUTER.into()), "{name}");
        server.send_to(b"answer", from).unwrap();
        let (count, from) = guest.recv_from(&mut room).expect(name);
        assert_eq!((&room[..count], from.ip()), (b"answer".as_slice(), NAME_SERVICE.into()), "{name}");
    }
}

#[test]
fn a_guest_that_sends_under_an_address_of_the_world_is_not_heard() {
    for (name, mode) in modes() {
        let world = World::new();
        let router = world.router(&mode, "outbound: {default: allow}\n");
        let server = world.udp("world", SERVER, 7);
        server.set_read_timeout(Some(std::time::Duration::from_millis(700))).unwrap();
        world.add_address("clone", Ipv4Addr::new(203, 0, 113, 9));
        let liar = world.udp("clone", Ipv4Addr::new(203, 0, 113, 9), 7);
        liar.send_to(b"lie", (SERVER, 7)).unwrap();
        assert!(server.recv_from(&mut [0; 8]).is_err(), "{name}");
        assert!(router.measure().unwrap().counts[&Counter::Spoofed].packets > 0, "{name}");
    }
}

#[test]
fn rules_change_at_once_and_connections_that_are_allowed_live_on() {
    for (name, mode) in modes() {
        let world = World::new();
        let router = world.router(&mode, "outbound: {rules: [{do: allow, services: [tcp/443]}]}\n");
        let (https, http) = (world.listen("world", SERVER, 443), world.listen("world", SERVER, 80));
        let mut flow = world.flow("clone", SERVER, 443, &https);
        flow.round_trip().expect(name);
        assert!(world.unreachable("clone", SERVER, 80), "{name}");
        let sent = router.measure().unwrap().counts[&Counter::Sent].packets;
        router.change(&config("outbound: {rules: [{do: allow, services: [tcp/80]}]}\n")).expect(name);
        flow.round_trip().expect(name);
        assert!(world.unreachable("clone", SERVER, 443), "{name}");
        world.reach("clone", SERVER, 80, &http).expect(name);
        let after = router.measure().unwrap().counts[&Counter::Sent].packets;
        assert!(after > sent, "{name}: counters are carried over a change: {sent} then {after}");
    }
}
