//! A small internet: guests behind a bridge, a server in the world, a router between the two.
//!
//! ```text
//! [guest .2]--\
//! [guest .3]---[bridge .1]==router==[world: server 198.51.100.1]
//! ```

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use nix::sched::{CloneFlags, setns};
use nix::sys::socket::Backlog;
use router_vm::config::{Config, Private, parse};
use router_vm::host::{Mode, Router, Site, VmKind};

/// Environment variable: the folder of the router's image.
const ENV_IMAGE: &str = "FLURRY_TEST_ROUTER";

pub(crate) const PARENT: Ipv4Addr = Ipv4Addr::new(10, 119, 0, 2);
pub(crate) const CLONE: Ipv4Addr = Ipv4Addr::new(10, 119, 0, 3);
pub(crate) const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 2);
pub(crate) const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// Another address of the world.
pub(crate) const STRANGER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 2);
const WORLD_KEYS: &str = "world: {address: 192.0.2.2/30, gateway: 192.0.2.1}\n";
const LIMIT: Duration = Duration::from_secs(20);

/// The two modes, each by a name.
pub(crate) fn modes() -> [(&'static str, Mode); 2] {
    [("distributed", Mode::Distributed), ("vm", vm_mode())]
}

pub(crate) fn vm_mode() -> Mode {
    let built = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/images/router");
    let image = std::env::var_os(ENV_IMAGE).map_or_else(built, PathBuf::from);
    assert!(
        image.join("vmlinux").is_file(),
        "{} holds no image of the router; build one with `flurry image router`, or name it in {ENV_IMAGE}",
        image.display()
    );
    Mode::Vm(VmKind { qemu: "qemu-system-x86_64".into(), image, kvm: false })
}

/// A configuration with these keys beside `world`.
pub(crate) fn config(keys: &str) -> Config {
    let private = Private { network: "10.119.0.0/16".parse().unwrap(), parent: PARENT };
    parse(&format!("{WORLD_KEYS}{keys}"), private).unwrap_or_else(|complaints| panic!("{complaints}"))
}

/// Namespaces that go with this value.
pub(crate) struct World {
    name: String,
    folder: tempfile::TempDir,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

impl World {
    pub(crate) fn new() -> Self {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("flurry-rt-{}-{number}", std::process::id());
        let world = Self { name, folder: tempfile::tempdir().unwrap() };
        for place in ["net", "world", "parent", "clone"] {
            ip(&["netns", "add", &world.namespace(place)]);
            world.ip(place, "link set lo up");
        }
        world.ip("net", "link add br0 type bridge stp_state 0 forward_delay 0");
        world.ip("net", "address add 10.119.0.1/16 dev br0");
        world.ip("net", "link set br0 up");
        for (place, address) in [("parent", PARENT), ("clone", CLONE)] {
            let guest = world.namespace(place);
            world.ip("net", &format!("link add {place} type veth peer name eth0 netns {guest}"));
            world.ip("net", &format!("link set {place} master br0 up"));
            world.ip(place, &format!("address add {address}/16 dev eth0"));
            world.ip(place, "link set eth0 up");
            world.ip(place, "route add default via 10.119.0.1");
        }
        for address in [SERVER, STRANGER] {
            world.ip("world", &format!("address add {address}/32 dev lo"));
        }
        world
    }

    pub(crate) fn namespace(&self, place: &str) -> String {
        format!("{}-{place}", self.name)
    }

    fn ip(&self, place: &str, words: &str) {
        let namespace = self.namespace(place);
        let all: Vec<&str> = ["-n", &namespace].into_iter().chain(words.split(' ')).collect();
        ip(&all);
    }

    pub(crate) fn site(&self) -> Site {
        Site {
            name: self.name.clone(),
            namespace: self.namespace("net"),
            bridge: "br0".into(),
            world_namespace: Some(self.namespace("world")),
            folder: self.folder.path().into(),
        }
    }

    pub(crate) fn router(&self, mode: &Mode, keys: &str) -> Router {
        let router = Router::start(self.site(), mode, &config(keys));
        let router = router.unwrap_or_else(|error| panic!("{error} {:?}\n{}", error, self.consoles()));
        // Connections from the world to guests at their own addresses.
        self.ip("world", &format!("route replace 10.119.0.0/16 via {ROUTER}"));
        router
    }

    /// What router VMs have said.
    pub(crate) fn consoles(&self) -> String {
        let files = std::fs::read_dir(self.folder.path()).unwrap().flatten();
        files.map(|file| std::fs::read_to_string(file.path()).unwrap_or_default()).collect()
    }

    /// Runs `job` in a namespace.
    pub(crate) fn at<T: Send>(&self, place: &str, job: impl FnOnce() -> T + Send) -> T {
        let file = File::open(Path::new("/run/netns").join(self.namespace(place))).unwrap();
        std::thread::scope(|scope| {
            let enter = || {
                setns(&file, CloneFlags::CLONE_NEWNET).unwrap();
                job()
            };
            scope.spawn(enter).join().unwrap()
        })
    }

    pub(crate) fn listen(&self, place: &str, address: Ipv4Addr, port: u16) -> TcpListener {
        let listener = self.at(place, || TcpListener::bind(SocketAddrV4::new(address, port)).unwrap());
        // Room for all that a test leaves waiting.
        nix::sys::socket::listen(&listener, Backlog::MAXCONN).unwrap();
        listener
    }

    pub(crate) fn udp(&self, place: &str, address: Ipv4Addr, port: u16) -> UdpSocket {
        let socket = self.at(place, || UdpSocket::bind(SocketAddrV4::new(address, port)).unwrap());
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket
    }

    pub(crate) fn connect(
        &self,
        place: &str,
        to: Ipv4Addr,
        port: u16,
        limit: Duration,
    ) -> io::Result<TcpStream> {
        let stream =
            self.at(place, || TcpStream::connect_timeout(&SocketAddrV4::new(to, port).into(), limit))?;
        stream.set_read_timeout(Some(LIMIT))?;
        stream.set_write_timeout(Some(LIMIT))?;
        Ok(stream)
    }

    /// Connects, and has one byte go each way. Gives the address that the listener saw.
    pub(crate) fn reach(
        &self,
        from: &str,
        to: Ipv4Addr,
        port: u16,
        listener: &TcpListener,
    ) -> io::Result<Ipv4Addr> {
        let stream = self.connect(from, to, port, LIMIT)?;
        let mut flow = Flow::new(stream, listener)?;
        flow.round_trip()?;
        match flow.far.peer_addr()?.ip() {
            std::net::IpAddr::V4(address) => Ok(address),
            std::net::IpAddr::V6(_) => Err(io::Error::other("an IPv6 peer on IPv4")),
        }
    }

    /// A connection that stays.
    pub(crate) fn flow(&self, from: &str, to: Ipv4Addr, port: u16, listener: &TcpListener) -> Flow {
        let stream = self.connect(from, to, port, LIMIT).unwrap();
        Flow::new(stream, listener).unwrap()
    }

    /// Many connections, which nobody has accepted yet.
    pub(crate) fn connections(&self, from: &str, to: Ipv4Addr, port: u16, count: usize) -> Vec<TcpStream> {
        let to = SocketAddrV4::new(to, port).into();
        let one = |_| TcpStream::connect_timeout(&to, LIMIT).unwrap();
        self.at(from, || (0..count).map(one).collect())
    }

    /// Gives a guest one more address.
    pub(crate) fn add_address(&self, place: &str, address: Ipv4Addr) {
        self.ip(place, &format!("address add {address}/32 dev eth0"));
    }

    /// Is a connection refused or left unanswered?
    pub(crate) fn unreachable(&self, from: &str, to: Ipv4Addr, port: u16) -> bool {
        self.connect(from, to, port, Duration::from_millis(1500)).is_err()
    }
}

/// Both ends of a connection.
pub(crate) struct Flow {
    pub(crate) near: TcpStream,
    pub(crate) far: TcpStream,
}

impl Flow {
    pub(crate) fn new(near: TcpStream, listener: &TcpListener) -> io::Result<Self> {
        near.set_read_timeout(Some(LIMIT))?;
        let (far, _) = listener.accept()?;
        far.set_read_timeout(Some(LIMIT))?;
        far.set_write_timeout(Some(LIMIT))?;
        Ok(Self { near, far })
    }

    /// One byte there, one back.
    pub(crate) fn round_trip(&mut self) -> io::Result<()> {
        let mut byte = [0];
        self.near.write_all(b"a")?;
        self.far.read_exact(&mut byte)?;
        self.far.write_all(b"b")?;
        self.near.read_exact(&mut byte)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for place in ["parent", "clone", "world", "net"] {
            let _ = Command::new("ip").args(["netns", "delete", &self.namespace(place)]).status();
        }
    }
}

fn ip(words: &[&str]) {
    let output = Command::new("ip").args(words).output().expect("ip can be started");
    assert!(output.status.success(), "ip {words:?}: {}", String::from_utf8_lossy(&output.stderr));
}
