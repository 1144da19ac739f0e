//! Measures mcdist on this machine, as root, and prints a JSON list of figures for `tests/bench mcdist`.
//!
//!     cargo run --release -p snowflock-engine --example mcdist target/release [simulated|goodput|faults|crowd]
//!
//! Hosts are network namespaces on one bridge; sender and receivers are threads of this process, and
//! memserver and memtap real processes. All share this machine's processors.

#![allow(clippy::unwrap_used, reason = "a measurement that cannot be made ends")]

#[path = "../tests/mcdist/network.rs"]
mod network;

use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddrV4, TcpListener, TcpStream};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use network::Network;
use serde_json::{Value, json};
use snowflock_engine::hypervisor::plain::content;
use snowflock_engine::mcdist::distributor::{Distributor, DistributorConfig};
use snowflock_engine::mcdist::fetcher::FetcherConfig;
use snowflock_engine::mcdist::geometry::{Geometry, StreamId};
use snowflock_engine::mcdist::seal::{DistributionId, Key};
use snowflock_engine::mcdist::sender::Rates;
use snowflock_engine::mcdist::simulate::{Scenario, run};
use snowflock_engine::memory::bench::{FEWEST_PAGES, FrozenParent, Walk, remote_fault_service};
use snowflock_engine::memory::fetching::RemotePages;
use snowflock_engine::memory::frozen::{FrozenView, Source};
use snowflock_engine::memory::image::Image;
use snowflock_engine::memory::layers::Layers;
use snowflock_engine::memory::remote::MemoryProcess;
use snowflock_engine::memory::{PAGE_BYTES, PageIndex};
use snowflock_engine::sys::memory::memfd;

/// 64 MiB.
const PAGES: u32 = 16_384;
const RECEIVERS: u8 = 32;
/// Slow enough that two processors play 33 hosts at line rate.
const LINK_MBIT: u32 = 250;

fn main() {
    let programs = PathBuf::from(std::env::args().nth(1).expect("the folder of the programs is needed"));
    let only = std::env::args().nth(2);
    let is_wanted = |name: &str| only.as_ref().is_none_or(|only| only == name);
    let mut figures = Vec::new();
    if is_wanted("simulated") {
        figures.extend(simulated());
    }
    if is_wanted("goodput") {
        figures.extend(goodput());
    }
    if is_wanted("faults") {
        figures.extend(faults(&programs));
    }
    if is_wanted("crowd") {
        figures.extend(crowd());
    }
    println!("{}", Value::from(figures));
}

fn figure(what: &str, value: f64, unit: &str, better: &str, goals: (f64, f64), than: Option<&str>) -> Value {
    json!({"what": what, "value": value, "unit": unit, "better": better,
           "must": goals.0, "aim": goals.1, "compared_with": than})
}

/// 512 receivers in virtual time. Pages of 256 bytes on a link as much slower behave as pages of 4 KiB
/// on a gigabit: what counts is datagrams in time.
fn simulated() -> Vec<Value> {
    let slower = 16.0;
    let Rates { initial, least, most } = Rates::default();
    let rates = Rates { initial: initial / slower, least: least / slower, most: most / slower };
    let (uplink, downlink) = (125e6 / slower, 125e6 / slower);
    let scenario = Scenario {
        receivers: 512,
        pages: (PAGES, 0),
        page_bytes: 256,
        zero: 0.0,
        same: 0.0,
        loss: 0.01,
        rates,
        uplink,
        downlink,
        ..Scenario::default()
    };
    let outcome = run(&scenario, 1, Duration::from_secs(600));
    eprintln!("simulated: {outcome:?}");
    let finished = outcome.end().expect("every receiver completes");
    vec![
        figure(
            "512 simulated receivers, 1 % loss: payload sent / image",
            outcome.payload_ratio,
            "ratio",
            "lower",
            (1.5, 1.15),
            None,
        ),
        json!({"what": "the same: virtual time to the last page, 1 Gbit/s", "value": finished.as_secs_f64(), "unit": "s",
               "better": "lower", "must": null, "aim": null, "compared_with": null}),
    ]
}

fn filled(pages: u32) -> File {
    let ram = memfd("flurry-bench-ram", u64::from(pages) * PAGE_BYTES as u64).unwrap();
    for page in (0..pages).map(PageIndex) {
        ram.write_all_at(&content::page(1, page), page.offset()).unwrap();
    }
    ram
}

fn distribute(network: &Network, pages: u32) -> (Distributor, DistributorConfig) {
    let view = FrozenView { image: Image::new(pages).unwrap(), source: Source::RamFile(filled(pages)) };
    let config = DistributorConfig {
        distribution: DistributionId(1),
        key: Key::random().unwrap(),
        address: SocketAddrV4::new(Network::address(0), 7077),
        group: Network::group(),
        split: None,
    };
    let geometry = Geometry::new(&[(StreamId::MEMORY, pages)]).unwrap();
    let for_thread = config.clone();
    let started = network.inside(0).run(move || Distributor::start(for_thread, geometry, view));
    (started.unwrap().unwrap(), config)
}

fn fetching(config: &DistributorConfig, host: u8, fills: bool) -> FetcherConfig {
    FetcherConfig {
        distribution: config.distribution,
        key: config.key.clone(),
        sender: config.address,
        group: config.group,
        interface: Network::address(host),
        fills,
    }
}

/// Starts a receiver on each of these hosts.
fn receive(
    network: &Network,
    config: &DistributorConfig,
    hosts: std::ops::RangeInclusive<u8>,
    pages: u32,
) -> Vec<RemotePages> {
    let start = |host| {
        let (from, image) = (fetching(config, host, true), Image::new(pages).unwrap());
        network.inside(host).run(move || RemotePages::start(image, None, from)).unwrap().unwrap()
    };
    hosts.map(start).collect()
}

fn wait_for(receivers: &[RemotePages], start: Instant) -> Duration {
    while receivers.iter().any(|one| one.image().count() < one.image().present().pages()) {
        assert!(start.elapsed() < Duration::from_secs(120), "a receiver does not complete");
        std::thread::sleep(Duration::from_millis(1));
    }
    start.elapsed()
}

fn assert_right(image: &Image) {
    let mut found = [0; PAGE_BYTES];
    for page in (0..image.present().pages()).step_by(97).map(PageIndex) {
        image.read(page, &mut found).unwrap();
        assert_eq!(found, content::page(1, page), "page {}", page.0);
    }
}

/// One sender's thread to one receiver's, over a veth pair with MTU 9,000 and a bridge.
fn goodput() -> Vec<Value> {
    let pages = 131_072;
    let network = Network::new(2, 9_000);
    let (sender, config) = distribute(&network, pages);
    let start = Instant::now();
    let receivers = receive(&network, &config, 1..=1, pages);
    let took = wait_for(&receivers, start);
    assert_right(receivers[0].image());
    let bits = f64::from(pages) * PAGE_BYTES as f64 * 8.0;
    eprintln!("goodput: {took:?} {:?} {:?}", sender.stats(), receivers[0].stats());
    vec![figure(
        "goodput of one memserver core over veth, 512 MiB sealed",
        bits / took.as_secs_f64() / 1e9,
        "Gbit/s",
        "higher",
        (3.0, 8.0),
        None,
    )]
}

fn start(
    network: &Network,
    host: u8,
    program: PathBuf,
    folder: &Path,
) -> (MemoryProcess, std::process::Child) {
    let folder = folder.to_path_buf();
    let started = network.inside(host).run(move || {
        let log = File::options().create(true).append(true).open(folder.join("memory.log")).unwrap();
        MemoryProcess::start(&program, &folder, log)
    });
    started.unwrap().unwrap()
}

/// From the touch of a page that only another host has to the moment when the toucher goes on.
fn faults(programs: &Path) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let network = Network::new(2, 9_000);
    let (server, mut server_child) = start(&network, 0, programs.join("flurry-memserver"), folder.path());
    let (tap, mut tap_child) = start(&network, 1, programs.join("flurry-memtap"), folder.path());
    let parent = FrozenParent::freeze(&server, FEWEST_PAGES, |page| content::page(1, page)).unwrap();
    let config = DistributorConfig {
        distribution: DistributionId(2),
        key: Key::random().unwrap(),
        address: SocketAddrV4::new(Network::address(0), 7077),
        group: Network::group(),
        split: None,
    };
    server.distribute(&parent.view, &Layers::default(), &config).unwrap();
    let (image, from) = (Image::new(FEWEST_PAGES).unwrap(), fetching(&config, 1, false));
    let expected = |page| content::word(1, page, 0);
    let (touches, stats) = remote_fault_service(&tap, &image, &from, Walk::Random(1), expected).unwrap();
    eprintln!("faults: {touches:?} {stats:?}");
    drop((server, tap));
    server_child.wait().unwrap();
    tap_child.wait().unwrap();
    let micros = |time: Duration| time.as_secs_f64() * 1e6;
    vec![
        figure(
            "remote fault service over veth, p50",
            micros(touches.p50),
            "us",
            "lower",
            (120.0, 60.0),
            Some("SnowFlock: 275"),
        ),
        json!({"what": "the same, p99", "value": micros(touches.p99), "unit": "us", "better": "lower",
               "must": null, "aim": null, "compared_with": null}),
    ]
}

/// 32 receivers of one image, and the same by a TCP connection each, on links shaped alike.
fn crowd() -> Vec<Value> {
    let network = Network::new(RECEIVERS + 1, 9_000);
    (0..=RECEIVERS).for_each(|host| network.shape(host, LINK_MBIT));
    let (sender, config) = distribute(&network, PAGES);
    let start = Instant::now();
    let receivers = receive(&network, &config, 1..=RECEIVERS, PAGES);
    let took = wait_for(&receivers, start);
    let stats = sender.stats();
    eprintln!("crowd: {took:?} {stats:?} {:?}", receivers[0].stats());
    receivers.iter().for_each(|one| assert_right(one.image()));
    drop((receivers, sender));
    let tcp = crowd_by_tcp(&network);
    eprintln!("crowd by TCP: {tcp:?}");
    let ratio = stats.payload_bytes as f64 / (f64::from(PAGES) * PAGE_BYTES as f64);
    let faster = tcp.as_secs_f64() / took.as_secs_f64();
    let than = format!(
        "TCP {:.1} s, mcdist {:.2} s on links of {LINK_MBIT} Mbit/s (tbf)",
        tcp.as_secs_f64(),
        took.as_secs_f64()
    );
    vec![
        figure("32 receivers of 64 MiB: payload sent / image", ratio, "ratio", "lower", (1.3, 1.05), None),
        figure(
            "the same, times faster than a TCP connection each",
            faster,
            "times",
            "higher",
            (8.0, 20.0),
            Some(&than),
        ),
    ]
}

fn crowd_by_tcp(network: &Network) -> Duration {
    let address = SocketAddrV4::new(Network::address(0), 7078);
    let listener = network.inside(0).run(move || TcpListener::bind(address)).unwrap().unwrap();
    let ram = filled(PAGES);
    let mut bytes = vec![0; PAGES as usize * PAGE_BYTES];
    ram.read_exact_at(&mut bytes, 0).unwrap();
    let start = Instant::now();
    let connect = |host| network.inside(host).run(move || TcpStream::connect(address)).unwrap().unwrap();
    std::thread::scope(|scope| {
        let (listener, bytes) = (&listener, &bytes);
        for host in 1..=RECEIVERS {
            let mut stream = connect(host);
            scope.spawn(move || {
                let (mut buffer, mut left) = (vec![0; 1 << 18], bytes.len());
                while left > 0 {
                    let read = stream.read(&mut buffer).unwrap();
                    assert!(read > 0, "the connection ended early");
                    left -= read;
                }
            });
            let (mut peer, _) = listener.accept().unwrap();
            scope.spawn(move || peer.write_all(bytes).unwrap());
        }
    });
    start.elapsed()
}
