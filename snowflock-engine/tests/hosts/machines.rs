//! Machines: network and mount namespaces on one switch, made by this test and gone with it.
//!
//! A machine lives for as long as the program that holds it, whatever becomes of the daemons on it. It has
//! names of network namespaces of its own, so that several can have the network of one parent.

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use snowflock_engine::sys::netns::NamespaceThread;
use snowflock_engine::sys::tap;

use crate::wire::BadWire;

/// Namespaces that a process holds.
struct Held(Child);

impl Held {
    fn new() -> Self {
        let script = "mkdir -p /run/netns && mount -t tmpfs none /run/netns && echo && exec sleep infinity";
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "unshare", "--net", "--mount", "sh", "-c", script]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().unwrap();
        // Its one line says that all is made.
        let mut said = [0];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said).unwrap();
        Self(child)
    }

    fn pid(&self) -> String {
        self.0.id().to_string()
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["-t", &self.pid(), "--net", "--mount", program]);
        command
    }

    fn run(&self, words: &[&str]) {
        let output = self.command(words[0]).args(&words[1..]).stdin(Stdio::null()).output().unwrap();
        assert!(output.status.success(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Machines with one address each, 10.9.0.1 and so on, on one switch.
pub(crate) struct Machines {
    machines: Vec<Held>,
    switch: Held,
}

impl Machines {
    pub(crate) fn new(count: usize) -> Self {
        let switch = Held::new();
        switch.run(&["ip", "link", "add", "br0", "type", "bridge", "mcast_snooping", "0"]);
        switch.run(&["ip", "link", "set", "br0", "up"]);
        let mut machines = Self { machines: Vec::new(), switch };
        (0..count).for_each(|host| machines.add(host));
        machines
    }

    fn add(&mut self, host: usize) {
        let (machine, port) = (Held::new(), format!("p{host}"));
        let veth = ["ip", "link", "add", &port, "mtu", "9000", "type", "veth", "peer", "name", "eth0"];
        self.switch.run(&[&veth[..], &["mtu", "9000", "netns", &machine.pid()]].concat());
        self.switch.run(&["ip", "link", "set", &port, "master", "br0", "up"]);
        let address = format!("{}/16", Self::address(host));
        machine.run(&["ip", "address", "add", &address, "dev", "eth0"]);
        machine.run(&["ip", "link", "set", "lo", "up"]);
        machine.run(&["ip", "link", "set", "eth0", "up"]);
        self.machines.push(machine);
    }

    /// Runs something that changes a machine.
    pub(crate) fn run(&self, host: usize, words: &[&str]) {
        self.machines[host].run(words);
    }

    /// Unplugs a machine, or plugs it in again.
    pub(crate) fn plug(&self, host: usize, plugged: bool) {
        let state = if plugged { "up" } else { "down" };
        self.switch.run(&["ip", "link", "set", &format!("p{host}"), state]);
    }

    /// Puts a bad wire between a machine and the switch, for as long as it is held.
    pub(crate) fn spoil(&self, host: usize, seed: u64) -> BadWire {
        let path = PathBuf::from(format!("/proc/{}/ns/net", self.switch.pid()));
        let inside = NamespaceThread::start(&path).unwrap();
        let [near, far, bridge] = ["near", "far", "bad"].map(|word| format!("{word}{host}"));
        let taps =
            [near.clone(), far.clone()].map(|name| inside.run(move || tap::create(&name)).unwrap().unwrap());
        self.switch.run(&["ip", "link", "add", &bridge, "type", "bridge", "mcast_snooping", "0"]);
        for (tap, bridge) in [(&near, bridge.as_str()), (&far, "br0")] {
            self.switch.run(&["ip", "link", "set", tap, "mtu", "9000"]);
            self.switch.run(&["ip", "link", "set", tap, "master", bridge, "up"]);
        }
        self.switch.run(&["ip", "link", "set", &format!("p{host}"), "master", &bridge]);
        self.switch.run(&["ip", "link", "set", &bridge, "up"]);
        let [near, far] = taps;
        BadWire::between(near, far, seed)
    }

    pub(crate) fn address(host: usize) -> Ipv4Addr {
        Ipv4Addr::new(10, 9, 0, host as u8 + 1)
    }

    /// A program on a machine.
    pub(crate) fn command(&self, host: usize, program: &str) -> Command {
        self.machines[host].command(program)
    }

    /// A network namespace that something on a machine has made.
    pub(crate) fn namespace(&self, host: usize, name: &str) -> PathBuf {
        let process = Path::new("/proc").join(self.machines[host].pid());
        process.join("root").join("run/netns").join(name)
    }
}
