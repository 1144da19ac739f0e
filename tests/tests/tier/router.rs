//! A tier with a way out: the world reaches a forwarded port of the router VM, whose rules change and
//! which dies, while clients of the tier notice nothing.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use flurry_tests::load::Load;
use flurry_tests::tier::{Flurry, TierSite};
use flurry_tests::wait::{LONG, until_true};
use nix::sched::{CloneFlags, setns};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

const ROUTER: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(198, 18, 119, 2), 8080);
const CLIENTS: u32 = 2;
/// An emulated guest on a busy host.
const PATIENCE: Duration = Duration::from_secs(20);
const FORWARD: &str = ", inbound: {forwards: [{port: tcp/8080, to_port: 80}]}";

/// A host of the world, at a bridge of this one. It goes with this value.
struct Outside {
    name: String,
}

impl Outside {
    fn new() -> Self {
        let outside = Self { name: format!("fl{}", std::process::id()) };
        let name = &outside.name;
        ip(&format!("netns add {name}"));
        ip(&format!("link add {name} type bridge forward_delay 0"));
        ip(&format!("link set {name} up"));
        ip(&format!("link add {name}v type veth peer name eth0 netns {name}"));
        ip(&format!("link set {name}v master {name} up"));
        ip(&format!("-n {name} address add 198.18.119.1/30 dev eth0"));
        ip(&format!("-n {name} link set eth0 up"));
        outside
    }

    /// Asks the forwarded port for the parent's health.
    fn asks(&self) -> io::Result<String> {
        let namespace = File::open(Path::new("/run/netns").join(&self.name))?;
        let ask = || {
            setns(&namespace, CloneFlags::CLONE_NEWNET)?;
            let mut stream = TcpStream::connect_timeout(&ROUTER.into(), Duration::from_secs(2))?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: parent\r\nConnection: close\r\n\r\n")?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).map(|_| answer)
        };
        std::thread::scope(|scope| scope.spawn(ask).join().unwrap())
    }

    fn is_answered(&self) -> bool {
        self.asks().is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        // By name: a namespace with closing connections outlives its deletion.
        for device in [format!("{}v", self.name), self.name.clone()] {
            let _ = Command::new("ip").args(["link", "delete", &device]).status();
        }
        let _ = Command::new("ip").args(["netns", "delete", &self.name]).status();
    }
}

fn ip(words: &str) {
    let status = Command::new("ip").args(words.split(' ')).status().unwrap();
    assert!(status.success(), "ip {words}");
}

fn section(outside: &Outside, rules: &str) -> Option<String> {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/images/router");
    let image = std::env::var_os("FLURRY_TEST_ROUTER").map_or_else(built, PathBuf::from);
    let world = format!("{{address: 198.18.119.2/30, gateway: 198.18.119.1, bridge: {}}}", outside.name);
    Some(format!("{{mode: vm, image: {}, world: {world}{rules}}}", image.display()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_router_vm_forwards_changes_its_rules_and_is_replaced_while_the_tier_serves_on() {
    let outside = Outside::new();
    let mut site = TierSite::new("router");
    site.config.router = section(&outside, FORWARD);
    let mut flurry = site.serving(1).await;
    assert!(outside.is_answered(), "{:?}\n{}", outside.asks(), flurry.said());
    let load = Load::start(flurry.listen, CLIENTS);
    load.goes_on(5).await;

    // One serves and one waits: whichever ends, the port is answered again.
    let first = vms(&site);
    assert_eq!(first.len(), 2);
    for ended in first {
        kill(Pid::from_raw(ended), Signal::SIGKILL).unwrap();
        until_true("there are two again", LONG, async || {
            vms(&site).len() == 2 && !vms(&site).contains(&ended)
        })
        .await;
        until_true("the port is answered", LONG, async || outside.is_answered()).await;
    }
    shows(&mut flurry, "flurry_router_vm_replaced_total ").await;

    site.config.router = section(&outside, "");
    site.write();
    flurry.signal(Signal::SIGHUP);
    until_true("the port is closed", LONG, async || outside.asks().is_err()).await;
    shows(&mut flurry, "flurry_router_packets_total{what=\"received\"}").await;

    load.goes_on(5).await;
    let outcome = load.stop().await;
    assert_eq!(outcome.failures, [] as [String; 0]);
    flurry.stop().await;
    site.site().assert_nothing_left();
    assert_eq!(vms(&site), [0; 0], "no router VM is left");
}

async fn shows(flurry: &mut Flurry, line: &str) {
    until_true(line, LONG, async || flurry.admin_page("/metrics").await.contains(line)).await;
}

/// Process numbers of the tier's router VMs.
fn vms(site: &TierSite) -> Vec<i32> {
    let ours = format!("flurry-router-{}-", site.config.name);
    let processes = std::fs::read_dir("/proc").unwrap().flatten();
    let number = |entry: std::fs::DirEntry| {
        let line = std::fs::read(entry.path().join("cmdline")).ok()?;
        let fits = line.split(|byte| *byte == 0).any(|word| word.starts_with(ours.as_bytes()));
        fits.then(|| entry.file_name().to_str()?.parse().ok()).flatten()
    };
    processes.filter_map(number).collect()
}
