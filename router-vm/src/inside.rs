//! Process 1 of the router VM, and its only one:
//!
//! ```text
//! mount | load modules | open the port | say ready | for ever: request -> do it -> reply
//! ```
//!
//! All packets are the kernel's affair; this program only gives it its rules.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use nix::mount::{MsFlags, mount};

use crate::control::frame::Decoder;
use crate::control::{Measures, PORT_NAME, Reply, Request};
use crate::netlink::{link, nft};
use crate::plan::{INSIDE, LINK_HOST, LINK_PREFIX, LINK_VM, Plan, WORLD};
use crate::sys;

const PORTS: &str = "/sys/class/virtio-ports";
const APPEAR_DEADLINE: Duration = Duration::from_secs(10);
const NAP: Duration = Duration::from_millis(2);
/// With nobody at the other end a read returns at once.
const UNHEARD: Duration = Duration::from_millis(20);
const READ_BYTES: usize = 64 << 10;

/// Runs the router. Returns only on failure, with what was tried.
#[must_use]
pub fn run() -> String {
    match serve() {
        Ok(never) => match never {},
        Err(why) => why,
    }
}

/// Cuts the power: the host sees the VM end and starts another.
#[must_use]
pub fn give_up() -> io::Error {
    sys::power_off()
}

fn serve() -> Result<std::convert::Infallible, String> {
    for (kind, at) in [("devtmpfs", "/dev"), ("proc", "/proc"), ("sysfs", "/sys")] {
        mount(Some(kind), at, Some(kind), MsFlags::empty(), None::<&str>)
            .map_err(|e| format!("mounting {kind} on {at}: {e}"))?;
    }
    load_modules(Path::new("/modules"))?;
    let mut port = open_port()?;
    link::bring_up("lo", None).map_err(|e| format!("bringing up the loopback device: {e}"))?;
    let failed = |e: io::Error| format!("talking to the host: {e}");
    say(&mut port, &Reply::Ready).map_err(failed)?;
    let (mut decoder, mut room) = (Decoder::default(), vec![0; READ_BYTES]);
    loop {
        match port.read(&mut room) {
            Ok(0) => sleep(UNHEARD),
            Ok(count) => decoder.push(&room[..count]),
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(failed(e)),
        }
        while let Some(frame) = decoder.next_frame() {
            let reply = match Request::decode(&frame) {
                Ok(request) => answer(&request),
                Err(bad) => Reply::Refused(bad.to_string()),
            };
            say(&mut port, &reply).map_err(failed)?;
        }
    }
}

fn say(port: &mut File, reply: &Reply) -> io::Result<()> {
    port.write_all(&reply.encode()?)
}

fn answer(request: &Request) -> Reply {
    match request {
        Request::Apply(plan) => apply(plan).map_or_else(Reply::Refused, |()| Reply::Applied),
        Request::Measure => measure().map_or_else(|e| Reply::Refused(e.to_string()), Reply::Measured),
    }
}

/// What a router has counted, in the calling thread's namespace.
pub(crate) fn measure() -> io::Result<Measures> {
    let connections = fs::read_to_string("/proc/sys/net/netfilter/nf_conntrack_count")?;
    Ok(Measures {
        counts: nft::counts()?,
        connections: connections.trim().parse().map_err(io::Error::other)?,
    })
}

/// The rules come before the devices are up: no packet passes without them.
fn apply(plan: &Plan) -> Result<(), String> {
    let failed = |what: &'static str| move |e: io::Error| format!("{what}: {e}");
    nft::load(&plan.rules).map_err(failed("loading the rules"))?;
    // A margin, for the rules count exactly and tracking forgets late.
    let tracked = plan.connections.saturating_add(plan.connections / 4).max(256);
    set("net/netfilter/nf_conntrack_max", &tracked.to_string())?;
    // Whoever knew the address at another place of a bridge is told of the new one.
    set("net/ipv4/conf/all/arp_notify", "1")?;
    link::bring_up(INSIDE, Some((LINK_VM, LINK_PREFIX))).map_err(failed("the inside device"))?;
    link::bring_up(WORLD, Some(plan.world)).map_err(failed("the world's device"))?;
    link::route(plan.private, LINK_HOST, INSIDE).map_err(failed("the route to the guests"))?;
    link::route(crate::address::Network::ALL, plan.gateway, WORLD)
        .map_err(failed("the route to the world"))?;
    set("net/ipv4/ip_forward", "1")
}

fn set(key: &str, value: &str) -> Result<(), String> {
    fs::write(Path::new("/proc/sys").join(key), value).map_err(|e| format!("setting {key} to {value}: {e}"))
}

/// Loads the modules in the listed order: a file and its parameters on each line.
fn load_modules(dir: &Path) -> Result<(), String> {
    let order = dir.join("order");
    let list = fs::read_to_string(&order).map_err(|e| format!("reading {}: {e}", order.display()))?;
    for line in list.lines().filter(|line| !line.is_empty()) {
        let (name, parameters) = line.split_once(' ').unwrap_or((line, ""));
        let loaded = File::open(dir.join(name)).and_then(|file| sys::load_module(&file, parameters));
        loaded.map_err(|e| format!("module {name}: {e}"))?;
    }
    Ok(())
}

fn open_port() -> Result<File, String> {
    let began = Instant::now();
    let path = loop {
        if let Some(path) = find_port(Path::new(PORTS)) {
            break path;
        }
        if began.elapsed() > APPEAR_DEADLINE {
            return Err(format!("no virtio-serial port is named {PORT_NAME} after {APPEAR_DEADLINE:?}"));
        }
        sleep(NAP);
    };
    let opened = OpenOptions::new().read(true).write(true).open(&path);
    opened.map_err(|e| format!("opening {}: {e}", path.display()))
}

fn find_port(class: &Path) -> Option<PathBuf> {
    let ours = |dir: &fs::DirEntry| {
        fs::read_to_string(dir.path().join("name")).is_ok_and(|name| name.trim() == PORT_NAME)
    };
    let found = fs::read_dir(class).ok()?.flatten().find(ours)?;
    Some(Path::new("/dev").join(found.file_name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_found_by_its_name() {
        let class = tempfile::tempdir().unwrap();
        assert_eq!(find_port(class.path()), None);
        for (device, name) in [("vport1p1", "org.flurry.agent.0\n"), ("vport1p2", "org.flurry.router.0\n")] {
            fs::create_dir(class.path().join(device)).unwrap();
            fs::write(class.path().join(device).join("name"), name).unwrap();
        }
        assert_eq!(find_port(class.path()), Some(PathBuf::from("/dev/vport1p2")));
    }

    #[test]
    fn a_missing_list_of_modules_or_a_missing_module_is_named() {
        let dir = tempfile::tempdir().unwrap();
        assert!(load_modules(dir.path()).unwrap_err().contains("/order"));
        fs::write(dir.path().join("order"), "nothing.ko some=1\n").unwrap();
        assert!(load_modules(dir.path()).unwrap_err().contains("nothing.ko"));
    }
}
