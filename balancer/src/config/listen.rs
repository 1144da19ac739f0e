//! `listen` and `admin`: where Flurry can be reached.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;
use scaler::yaml::{Entry, Section};

use super::{Surroundings, tls};
use crate::net::Address;
use crate::server::{ListenerSettings, ProxyProtocol};

const REMEDY: &str = "give addresses with ports, e.g. [0.0.0.0:80]";
const NETWORK_REMEDY: &str = "give networks as address/bits, e.g. [10.0.0.0/8]";

/// Reads the places where clients come in; at least one. An entry is an address, or a
/// section with more than that.
pub(super) fn read(root: &mut Section<'_>, surroundings: &Surroundings<'_>) -> Vec<ListenerSettings> {
    let entries = root.list("listen", REMEDY).not_empty().required().unwrap_or_default();
    entries.into_iter().filter_map(|entry| listener(entry, surroundings)).collect()
}

fn listener(entry: Entry<'_>, surroundings: &Surroundings<'_>) -> Option<ListenerSettings> {
    if !entry.is_section() {
        let address = entry.string(REMEDY).try_map(|text| text.parse::<Address>()).optional()?;
        return Some(ListenerSettings { address, name: None, tls: None, http2: true, proxy_protocol: None });
    }
    entry.section(|section| {
        let address = section
            .string("address", "give an address and a port, or unix:/path, e.g. 0.0.0.0:443")
            .try_map(|text| text.parse::<Address>())
            .required();
        let name =
            section.string("name", "give the name that routes call it by, e.g. inner").not_empty().optional();
        let http2 = section.bool("http2", "give true or false").or(true);
        let tls =
            section.optional_section("tls", |section| tls::read_server(section, surroundings)).flatten();
        let proxy_protocol = section.optional_section("proxy_protocol", proxy_protocol).flatten();
        Some(ListenerSettings { address: address?, name, tls, http2, proxy_protocol })
    })
}

/// Reads a list of networks; a bare address is a network of one.
pub(super) fn networks(section: &mut Section<'_>, key: &str) -> Option<Vec<IpNet>> {
    let entries = section.list(key, NETWORK_REMEDY).not_empty().optional()?;
    let network = |entry: Entry<'_>| entry.string(NETWORK_REMEDY).try_map(|text| network(&text)).optional();
    Some(entries.into_iter().filter_map(network).collect())
}

fn network(text: &str) -> Result<IpNet, String> {
    let alone = || text.parse::<IpAddr>().map(IpNet::from);
    text.parse::<IpNet>().or_else(|_| alone()).map_err(|_| format!("must be a network, got `{text}`"))
}

/// Whoever is believed about who a client is must be named: nobody is believed by default.
fn proxy_protocol(section: &mut Section<'_>) -> Option<ProxyProtocol> {
    if !section.has("from") {
        section.complain("from", "is missing", "give the networks of your proxies, e.g. [10.0.0.0/8]");
    }
    networks(section, "from").map(|from| ProxyProtocol { from })
}

/// The admin listener asks nobody who they are, so it must stay on this host.
pub(super) fn is_loopback(address: &SocketAddr) -> Result<(), String> {
    let fine = address.ip().is_loopback();
    fine.then_some(()).ok_or_else(|| format!("must be a loopback address, got {address}"))
}

/// Whether two listeners would get in each other's way.
pub(super) fn collide(a: &Address, b: &Address) -> bool {
    let (Address::Tcp(a), Address::Tcp(b)) = (a, b) else { return a == b };
    let same_ip = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && same_ip
}

/// Complains about addresses that are given twice.
pub(super) fn check_collisions(root: &Section<'_>, listen: &[ListenerSettings], admin: SocketAddr) {
    for (index, listener) in listen.iter().enumerate() {
        let address = &listener.address;
        if let Some(other) = listen[..index].iter().position(|other| collide(address, &other.address)) {
            let problem = format!("{address} collides with listen[{other}], {}", listen[other].address);
            root.complain(&format!("listen[{index}]"), problem, "give each listener a port of its own");
        }
        if collide(address, &admin.into()) {
            let problem = format!("{admin} collides with listen[{index}], {address}");
            root.complain("admin", problem, "give the admin listener a port of its own");
        }
    }
}
