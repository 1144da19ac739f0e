//! `backends`: the fixed ones.

use std::net::SocketAddr;

use scaler::yaml::Section;

use super::listen::collide;

const REMEDY: &str = "give the address and port of a backend, e.g. 127.0.0.1:9001";

/// Reads the fixed backends; an empty list is complained about.
pub(super) fn read(root: &mut Section<'_>) -> Vec<SocketAddr> {
    let entries = root.list("backends", REMEDY).not_empty().optional().unwrap_or_default();
    let reachable = |address: &SocketAddr| match (address.port(), address.ip().is_unspecified()) {
        (0, _) => Err(format!("must have a port above 0, got {address}")),
        (_, true) => Err(format!("must be an address to connect to, got {address}")),
        _ => Ok(()),
    };
    let address = |entry: scaler::yaml::Entry<'_>| entry.socket_addr(REMEDY).check(reachable).optional();
    entries.into_iter().filter_map(address).collect()
}

/// Complains about backends given twice, and about Flurry forwarding to itself.
pub(super) fn check_loops(
    root: &Section<'_>,
    backends: &[SocketAddr],
    listen: &[SocketAddr],
    admin: SocketAddr,
) {
    for (index, backend) in backends.iter().enumerate() {
        let key = format!("backends[{index}]");
        if let Some(other) = backends[..index].iter().position(|other| other == backend) {
            root.complain(&key, format!("{backend} is backends[{other}] already"), "remove one of them");
        }
        let own = |address: &&SocketAddr| {
            collide(address, backend) && (backend.ip().is_loopback() || address.ip() == backend.ip())
        };
        if let Some(own) = listen.iter().chain([&admin]).find(own) {
            root.complain(&key, format!("{backend} is Flurry itself, which listens on {own}"), REMEDY);
        }
    }
}
