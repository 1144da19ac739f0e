//! `listen` and `admin`: where Flurry can be reached.

use std::net::SocketAddr;

use scaler::yaml::Section;

/// Reads the addresses for clients; at least one.
pub(super) fn read(root: &mut Section<'_>) -> Vec<SocketAddr> {
    const REMEDY: &str = "give addresses with ports, e.g. [0.0.0.0:80]";
    let entries = root.list("listen", REMEDY).not_empty().required().unwrap_or_default();
    entries.into_iter().filter_map(|entry| entry.socket_addr(REMEDY).optional()).collect()
}

/// The admin listener asks nobody who they are, so it must stay on this host.
pub(super) fn is_loopback(address: &SocketAddr) -> Result<(), String> {
    let fine = address.ip().is_loopback();
    fine.then_some(()).ok_or_else(|| format!("must be a loopback address, got {address}"))
}

/// Whether two listeners would get in each other's way.
pub(super) fn collide(a: &SocketAddr, b: &SocketAddr) -> bool {
    let same_ip = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && same_ip
}

/// Complains about addresses that are given twice.
pub(super) fn check_collisions(root: &Section<'_>, listen: &[SocketAddr], admin: SocketAddr) {
    for (index, address) in listen.iter().enumerate() {
        if let Some(other) = listen[..index].iter().position(|other| collide(address, other)) {
            let problem = format!("{address} collides with listen[{other}], {}", listen[other]);
            root.complain(&format!("listen[{index}]"), problem, "give each listener a port of its own");
        }
        if collide(address, &admin) {
            let problem = format!("{admin} collides with listen[{index}], {address}");
            root.complain("admin", problem, "give the admin listener a port of its own");
        }
    }
}
