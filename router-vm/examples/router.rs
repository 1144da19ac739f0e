//! Measures a router: time until it serves, time to replace a killed VM, accuracy of throttles. Prints a
//! JSON list for `tests/bench router`. As root; `FLURRY_TEST_ROUTER` names the folder of the image.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot be made ends")]

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

#[allow(dead_code, reason = "tests use more of it")]
#[path = "../tests/traffic/world.rs"]
mod world;

use world::{Flow, SERVER, World, config, modes, vm_mode};

const OPEN: &str = "outbound: {default: allow}\n";
const PORT: u16 = 443;
/// The bucket is empty after the first second.
const SETTLING: Duration = Duration::from_secs(1);
const MEASURED: Duration = Duration::from_secs(5);
const RATES_MBIT: [u64; 2] = [8, 40];

fn main() {
    let mut rows = vec![ready(), replace()];
    for (name, mode) in modes() {
        let world = World::new();
        let router = world.router(&mode, OPEN);
        for mbit in RATES_MBIT {
            router.change(&config(&format!("{OPEN}limits: {{up: {{each: {mbit}mbit}}}}\n"))).unwrap();
            rows.push(accuracy(&world, name, mbit));
        }
    }
    println!("{}", serde_json::to_string_pretty(&rows).unwrap());
}

fn row(what: &str, value: f64, unit: &str, must: f64, aim: Option<f64>) -> Value {
    json!({"what": what, "value": value, "unit": unit, "better": "lower", "must": must, "aim": aim,
        "compared_with": null})
}

fn ready() -> Value {
    let (world, mode) = (World::new(), vm_mode());
    let began = Instant::now();
    let router = world.router(&mode, OPEN);
    let took = began.elapsed().as_secs_f64();
    drop(router);
    row("router VM: from nothing until it serves", took, "s", 3.0, None)
}

fn replace() -> Value {
    let world = World::new();
    let router = world.router(&vm_mode(), OPEN);
    let server = world.listen("world", SERVER, PORT);
    world.reach("clone", SERVER, PORT, &server).unwrap();
    // The second one must have booted, or this measures a boot.
    std::thread::sleep(Duration::from_secs(5));
    let (first, _) = router.serving().unwrap();
    kill(Pid::from_raw(i32::try_from(first).unwrap()), Signal::SIGKILL).unwrap();
    let began = Instant::now();
    while world.connect("clone", SERVER, PORT, Duration::from_millis(50)).is_err() {}
    row(
        "router VM killed: until the next passes a new connection",
        began.elapsed().as_secs_f64(),
        "s",
        1.0,
        Some(0.3),
    )
}

/// How far what a guest gets through in seconds is from what it may, in percent.
fn accuracy(world: &World, mode: &str, mbit: u64) -> Value {
    let server = world.listen("world", SERVER, PORT);
    let Flow { mut near, mut far } = world.flow("clone", SERVER, PORT, &server);
    let sender = std::thread::spawn(move || while near.write_all(&[0; 32 << 10]).is_ok() {});
    let (began, mut room, mut bytes) = (Instant::now(), vec![0; 1 << 20], 0);
    let mut counted_from = None;
    while began.elapsed() < SETTLING + MEASURED {
        let count = far.read(&mut room).unwrap() as u64;
        if began.elapsed() >= SETTLING {
            match counted_from {
                None => counted_from = Some(Instant::now()),
                Some(_) => bytes += count,
            }
        }
    }
    let seconds = counted_from.unwrap().elapsed().as_secs_f64();
    drop(far);
    sender.join().unwrap();
    let off = (bytes as f64 * 8.0 / seconds / (mbit as f64 * 1e6) - 1.0).abs() * 100.0;
    row(&format!("throttle to {mbit} Mbit/s, {mode}: deviation of TCP's goodput"), off, "%", 10.0, Some(5.0))
}
