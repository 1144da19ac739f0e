//! Hosts as network namespaces on one bridge, made by this test and gone with it.

use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use snowflock_engine::sys::netns::NamespaceThread;

static NETWORKS: AtomicU32 = AtomicU32::new(0);

/// A page network of several hosts. Each has one address, 10.9.0.1 and so on.
pub(crate) struct Network {
    name: String,
    hosts: u8,
}

impl Network {
    /// So many hosts, on links with this MTU.
    pub(crate) fn new(hosts: u8, mtu: u32) -> Self {
        let number = NETWORKS.fetch_add(1, Ordering::Relaxed);
        // Whatever fails from here on: what was made is removed.
        let network = Self { name: format!("mcd{}n{number}", std::process::id()), hosts };
        let switch = network.switch();
        run(&["ip", "netns", "add", &switch]);
        let mtu = mtu.to_string();
        run(&[
            "ip",
            "-n",
            &switch,
            "link",
            "add",
            "br0",
            "mtu",
            &mtu,
            "type",
            "bridge",
            "mcast_snooping",
            "0",
        ]);
        run(&["ip", "-n", &switch, "link", "set", "br0", "up"]);
        (0..hosts).for_each(|host| network.add(host, &mtu));
        network
    }

    fn switch(&self) -> String {
        format!("{}sw", self.name)
    }

    /// The namespace of a host.
    pub(crate) fn host(&self, host: u8) -> String {
        format!("{}h{host}", self.name)
    }

    fn add(&self, host: u8, mtu: &str) {
        let (switch, name, port) = (self.switch(), self.host(host), format!("p{host}"));
        run(&["ip", "netns", "add", &name]);
        let veth =
            ["ip", "-n", &switch, "link", "add", &port, "mtu", mtu, "type", "veth", "peer", "name", "eth0"];
        run(&[&veth[..], &["mtu", mtu, "netns", &name]].concat());
        run(&["ip", "-n", &switch, "link", "set", &port, "master", "br0", "up"]);
        let address = format!("{}/16", Self::address(host));
        run(&["ip", "-n", &name, "address", "add", &address, "dev", "eth0"]);
        run(&["ip", "-n", &name, "link", "set", "lo", "up"]);
        run(&["ip", "-n", &name, "link", "set", "eth0", "up"]);
    }

    /// The address of a host.
    pub(crate) fn address(host: u8) -> Ipv4Addr {
        Ipv4Addr::new(10, 9, 0, host + 1)
    }

    /// The group that all use.
    pub(crate) fn group() -> SocketAddrV4 {
        SocketAddrV4::new(Ipv4Addr::new(239, 255, 70, 76), 7076)
    }

    /// A thread inside a host.
    pub(crate) fn inside(&self, host: u8) -> NamespaceThread {
        NamespaceThread::start(Path::new(&format!("/run/netns/{}", self.host(host)))).unwrap()
    }

    /// A rule for what comes in at a host.
    #[allow(dead_code, reason = "tests drop datagrams, measurements do not")]
    pub(crate) fn filter(&self, host: u8, rule: &str) {
        let host = self.host(host);
        let nft = |what: &[&str]| run(&[&["ip", "netns", "exec", &host, "nft"], what].concat());
        nft(&["add", "table", "ip", "t"]);
        nft(&["add", "chain", "ip", "t", "c", "{ type filter hook input priority 0; }"]);
        nft(&["add", "rule", "ip", "t", "c", rule]);
    }

    /// Shapes the link of a host, both ways.
    #[allow(dead_code, reason = "measurements shape links, tests do not")]
    pub(crate) fn shape(&self, host: u8, mbit: u32) {
        let rate = format!("{mbit}mbit");
        // Room for all that a socket may have queued, so that a full queue holds back who fills it.
        let shape = ["root", "tbf", "rate", &rate, "burst", "256k", "limit", "8mb"];
        let (host, port) = (self.host(host), format!("p{host}"));
        run(&[&["tc", "-n", &host, "qdisc", "replace", "dev", "eth0"], &shape[..]].concat());
        run(&[&["tc", "-n", &self.switch(), "qdisc", "replace", "dev", &port], &shape[..]].concat());
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let all = (0..self.hosts).map(|host| self.host(host)).chain([self.switch()]);
        for name in all.filter(|name| Path::new("/run/netns").join(name).exists()) {
            let removed = Command::new("ip").args(["netns", "del", &name]).status();
            let is_gone = removed.is_ok_and(|status| status.success());
            assert!(std::thread::panicking() || is_gone, "the namespace {name} is left");
        }
    }
}

fn run(words: &[&str]) {
    let output = Command::new(words[0]).args(&words[1..]).stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
}
