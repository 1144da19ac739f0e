//! Many connections, too many, too much, and a router that dies under all that.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use router_vm::host::Router;
use router_vm::rules::Counter;

use crate::world::{CLONE, Flow, PARENT, SERVER, World, config, modes, vm_mode};

const OPEN: &str = "outbound: {default: allow}\n";
const PORT: u16 = 443;
const CONNECTIONS: usize = 10_000;
const FILES: u64 = CONNECTIONS as u64 + 500;

/// Bytes that a guest gets through in this time.
fn sent_in(world: &World, guest: &str, time: Duration) -> u64 {
    let server = world.listen("world", SERVER, PORT);
    let Flow { mut near, mut far } = world.flow(guest, SERVER, PORT, &server);
    far.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    let ends = Instant::now() + time;
    let sender = std::thread::spawn(move || {
        let chunk = vec![0; 32 << 10];
        while Instant::now() < ends && near.write_all(&chunk).is_ok() {}
    });
    let (mut bytes, mut room) = (0, vec![0; 256 << 10]);
    while Instant::now() < ends {
        bytes += far.read(&mut room).unwrap_or_default() as u64;
    }
    drop(far);
    sender.join().unwrap();
    bytes
}

#[test]
fn a_throttled_guest_is_far_slower_than_one_without_limits() {
    const RATE: u64 = 500_000;
    const TIME: Duration = Duration::from_secs(4);
    for (name, mode) in modes() {
        let world = World::new();
        let router = world.router(&mode, OPEN);
        let free = sent_in(&world, "clone", TIME);
        router.change(&config(&format!("{OPEN}limits: {{up: {{each: 4mbit}}}}\n"))).expect(name);
        let slow = sent_in(&world, "clone", TIME);
        assert!(slow < free / 3, "{name}: {slow} of {free} bytes");
        // The bucket, full at first, comes on top.
        let most = RATE * TIME.as_secs() * 5 / 4 + (128 << 10);
        assert!((RATE..most).contains(&slow), "{name}: {slow} bytes");
        assert!(router.measure().unwrap().counts[&Counter::ThrottledEach].packets > 0, "{name}");
        router.change(&config(&format!("{OPEN}limits: {{up: {{total: 4mbit}}}}\n"))).expect(name);
        let slow = sent_in(&world, "parent", TIME);
        assert!((RATE..most).contains(&slow), "{name}: {slow} bytes of all");
        assert!(router.measure().unwrap().counts[&Counter::ThrottledTotal].packets > 0, "{name}");
    }
}

#[test]
fn ten_thousand_connections_are_translated_at_once_through_a_change_of_rules() {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, FILES.min(hard), hard).unwrap();
    for (name, mode) in modes() {
        let world = World::new();
        let router = world.router(&mode, OPEN);
        let servers = [441, 442, 443, 444].map(|port| world.listen("world", SERVER, port));
        let groups = ["parent", "clone", "parent", "clone"].into_iter().zip(441..).enumerate();
        let mut near: Vec<Vec<TcpStream>> = Vec::new();
        for (index, (guest, port)) in groups {
            if index == 2 {
                router.change(&config(&format!("{OPEN}inbound: {{parent: [tcp/1]}}\n"))).expect(name);
            }
            near.push(world.connections(guest, SERVER, port, CONNECTIONS / 4));
        }
        let tracked = router.measure().unwrap().connections;
        assert!(tracked >= CONNECTIONS as u64, "{name}: {tracked}");
        for (streams, server) in near.into_iter().zip(&servers) {
            round_trips(streams, server).expect(name);
        }
    }
}

/// The other ends wait in the listener's queue, in the same order.
fn round_trips(streams: Vec<TcpStream>, server: &TcpListener) -> std::io::Result<()> {
    streams.into_iter().take(50).try_for_each(|near| Flow::new(near, server)?.round_trip())
}

#[test]
fn connections_above_a_limit_are_not_made_and_those_of_others_are() {
    for (name, mode) in modes() {
        let world = World::new();
        let router =
            world.router(&mode, &format!("{OPEN}limits: {{connections_each: 20, connections: 30}}\n"));
        let _server = world.listen("world", SERVER, PORT);
        let _of_clone = world.connections("clone", SERVER, PORT, 20);
        assert!(world.unreachable("clone", SERVER, PORT), "{name}: the 21st of the clone");
        let _of_parent = world.connections("parent", SERVER, PORT, 10);
        assert!(world.unreachable("parent", SERVER, PORT), "{name}: the 31st of all");
        assert!(router.measure().unwrap().counts[&Counter::Connections].packets >= 2, "{name}");
    }
}

#[test]
fn a_killed_router_vm_is_replaced_and_traffic_inside_does_not_notice() {
    let world = World::new();
    let router = world.router(&vm_mode(), OPEN);
    let (inside, outside) = (world.listen("parent", PARENT, 80), world.listen("world", SERVER, PORT));
    let mut through = world.flow("clone", SERVER, PORT, &outside);
    through.round_trip().unwrap();
    let mut web = world.flow("net", PARENT, 80, &inside);
    let mut own = world.flow("clone", PARENT, 80, &inside);
    let (first, _) = router.serving().unwrap();
    kill(Pid::from_raw(i32::try_from(first).unwrap()), Signal::SIGKILL).unwrap();
    while !replaced(&router, first) {
        web.round_trip().unwrap();
        own.round_trip().unwrap();
    }
    world.reach("clone", SERVER, PORT, &outside).unwrap();
    // The guest speaks first, so the connection made before is tracked again.
    through.round_trip().unwrap();
    let server = world.udp("world", SERVER, 9);
    let guest = world.udp("clone", CLONE, 9);
    guest.send_to(b"x", (SERVER, 9)).unwrap();
    server.recv_from(&mut [0; 4]).unwrap();
}

fn replaced(router: &Router, first: u32) -> bool {
    router.serving().is_some_and(|(pid, replaced)| pid != first && replaced == 1)
}
