//! The devices around a router: towards the guests' bridge and towards the world.

use std::fs::{self, File};

use super::place::{inside, ip, perhaps_inside};
use super::{RouterError, Site, system};
use crate::config::World;
use crate::plan::{LINK_HOST, LINK_PREFIX, LINK_VM};
use crate::sys;

/// The end of the way to the world in the bridge's namespace, in `distributed` mode.
pub(super) const NEAR_END: &str = "world0";
/// Two VMs: one serves, one waits.
pub(super) const SLOTS: usize = 2;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Taps,
    Veth,
}

/// The devices of one router.
#[derive(Debug, Clone)]
pub(super) struct Links {
    site: Site,
    world: World,
    kind: Kind,
}

impl Links {
    /// A pair of taps for each VM.
    pub(super) fn taps(site: &Site, world: &World) -> Result<Self, RouterError> {
        let links = Self { site: site.clone(), world: world.clone(), kind: Kind::Taps };
        links.remove();
        let made = (0..SLOTS).try_for_each(|slot| links.make_taps(slot));
        links.or_removed(made)
    }

    /// A veth between the bridge's namespace and the world, and the way to the world through it.
    pub(super) fn veth(site: &Site, world: &World) -> Result<Self, RouterError> {
        let links = Self { site: site.clone(), world: world.clone(), kind: Kind::Veth };
        links.remove();
        let made = links.make_veth();
        links.or_removed(made)
    }

    fn or_removed(self, made: Result<(), RouterError>) -> Result<Self, RouterError> {
        if made.is_err() {
            self.remove();
        }
        made.map(|()| self)
    }

    fn make_taps(&self, slot: usize) -> Result<(), RouterError> {
        let tap = |name: &str| format!("tuntap add dev {name} mode tap\nlink set {name} up\n");
        ip(Some(&self.site.namespace), &tap(&inside_tap(slot)))?;
        let far = self.far_end(slot);
        ip(self.site.world_namespace.as_deref(), &(tap(&far) + &self.joined(&far)))
    }

    fn make_veth(&self) -> Result<(), RouterError> {
        let far = self.far_end(0);
        let world = self.site.world_namespace.as_deref();
        let near = format!("{far}n");
        ip(world, &format!("link add {far} type veth peer name {near}\n"))?;
        ip(world, &format!("link set {near} netns {} name {NEAR_END}\n", self.site.namespace))?;
        ip(world, &format!("link set {far} up\n{}{}", self.joined(&far), self.gateway_on(&far)))?;
        let World { address, length, gateway, .. } = self.world;
        let lines = format!(
            "address add {address}/{length} dev {NEAR_END}\nlink set {NEAR_END} up\nroute replace default via {gateway}\n"
        );
        ip(Some(&self.site.namespace), &lines)
    }

    /// Attaches the world's end to the bridge of the host, if there is one.
    fn joined(&self, far: &str) -> String {
        self.world
            .bridge
            .as_ref()
            .map(|bridge| format!("link set {far} master {bridge}\n"))
            .unwrap_or_default()
    }

    /// Without a bridge the host is the next hop.
    fn gateway_on(&self, far: &str) -> String {
        let World { gateway, length, bridge, .. } = &self.world;
        let ours = || format!("address replace {gateway}/{length} dev {far}\n");
        if bridge.is_none() { ours() } else { String::new() }
    }

    /// Lets the bridge's namespace forward.
    pub(super) fn open(&self) -> Result<(), RouterError> {
        inside(&self.site.namespace, || fs::write("/proc/sys/net/ipv4/ip_forward", "1"))?
            .map_err(system("let the bridge's namespace forward"))
    }

    /// Leads all traffic to the VM of this slot. Its hardware addresses are told and not asked for: a
    /// question that comes before it listens is repeated only after a second.
    pub(super) fn lead_to(&self, slot: usize) -> Result<(), RouterError> {
        let [near_mac, far_mac] = self.macs();
        let (ours, other) = (inside_tap(slot), inside_tap(1 - slot));
        let lines = format!(
            "address flush dev {other}
address replace {LINK_HOST}/{LINK_PREFIX} dev {ours}
neighbour replace {LINK_VM} lladdr {near_mac} dev {ours} nud permanent
route replace default via {LINK_VM} dev {ours}
"
        );
        ip(Some(&self.site.namespace), &lines)?;
        if self.world.bridge.is_some() {
            return Ok(());
        }
        let (far, address) = (self.far_end(slot), self.world.address);
        let lines = format!(
            "address flush dev {}\n{}neighbour replace {address} lladdr {far_mac} dev {far} nud permanent\n",
            self.far_end(1 - slot),
            self.gateway_on(&far)
        );
        ip(self.site.world_namespace.as_deref(), &lines)
    }

    /// The two taps of a VM, opened: inside, world.
    pub(super) fn open_taps(&self, slot: usize) -> Result<(File, File), RouterError> {
        let open = |name: String| move || sys::open_tap(&name);
        let near =
            inside(&self.site.namespace, open(inside_tap(slot)))?.map_err(system("open the tap inside"))?;
        let far = perhaps_inside(self.site.world_namespace.as_deref(), open(self.far_end(slot)))?
            .map_err(system("open the tap towards the world"))?;
        Ok((near, far))
    }

    /// Hardware addresses of the VM: the same for both slots, so that nobody must learn new ones.
    pub(super) fn macs(&self) -> [String; 2] {
        let [a, b, c, d] = crc32fast::hash(self.site.name.as_bytes()).to_be_bytes();
        [1, 2].map(|card| format!("02:{card:02x}:{a:02x}:{b:02x}:{c:02x}:{d:02x}"))
    }

    /// The end that is in the world's namespace. Names of devices have 15 bytes.
    fn far_end(&self, slot: usize) -> String {
        format!("rt{slot}-{:08x}", crc32fast::hash(self.site.name.as_bytes()))
    }

    /// Takes away what is there of it, as far as it is.
    pub(super) fn remove(&self) {
        for slot in 0..SLOTS {
            let _ =
                ip(self.site.world_namespace.as_deref(), &format!("link delete {}\n", self.far_end(slot)));
            if self.kind == Kind::Taps {
                let _ = ip(Some(&self.site.namespace), &format!("link delete {}\n", inside_tap(slot)));
            }
        }
    }
}

fn inside_tap(slot: usize) -> String {
    format!("router{slot}")
}
