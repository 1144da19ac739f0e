//! Listening sockets: one per address and worker, sharing the port (SO_REUSEPORT).

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections the kernel may hold for us; it cuts this to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{key}: cannot listen on {address}: {source}{}", remedy(.source))]
pub struct BindError {
    /// The key of the configuration, e.g. `listen[0]`.
    pub key: String,
    /// The address.
    pub address: SocketAddr,
    /// What the kernel said.
    pub source: io::Error,
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => " (another program listens there: stop it, or give another port)",
        io::ErrorKind::PermissionDenied => " (ports below 1024 need root or CAP_NET_BIND_SERVICE)",
        io::ErrorKind::AddrNotAvailable => " (this host has no such address: give one of its own)",
        _ => "",
    }
}

/// Makes `count` sockets that share `address`. Port 0 takes a free port, the same for all.
///
/// # Errors
/// [`BindError`] with the key of the configuration.
pub fn bind_shared(key: &str, address: SocketAddr, count: usize) -> Result<Vec<TcpListener>, BindError> {
    let wrap = |address| move |source| BindError { key: key.to_owned(), address, source };
    // SO_REUSEPORT would share the port with another flurry of the same user: an
    // exclusive bind finds out first.
    let trial = listener(address, false).map_err(wrap(address))?;
    let address = trial.local_addr().map_err(wrap(address))?;
    drop(trial);
    (0..count).map(|_| listener(address, true).map_err(wrap(address))).collect()
}

/// Makes one socket that shares its address with nobody.
///
/// # Errors
/// [`BindError`] with the key of the configuration.
pub fn bind_alone(key: &str, address: SocketAddr) -> Result<TcpListener, BindError> {
    listener(address, false).map_err(|source| BindError { key: key.to_owned(), address, source })
}

fn listener(address: SocketAddr, shared: bool) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 0);

    #[test]
    fn workers_share_one_port() {
        let listeners = bind_shared("listen[0]", ANY, 3).unwrap();
        let ports: Vec<u16> = listeners.iter().map(|it| it.local_addr().unwrap().port()).collect();
        assert!(ports.iter().all(|port| *port == ports[0] && *port != 0), "{ports:?}");
    }

    #[test]
    fn a_port_in_use_is_named_with_its_key_even_if_it_could_be_shared() {
        let taken = bind_shared("listen[0]", ANY, 1).unwrap();
        let address = taken[0].local_addr().unwrap();
        let error = bind_shared("listen[1]", address, 1).unwrap_err().to_string();
        assert!(error.starts_with(&format!("listen[1]: cannot listen on {address}: ")), "{error}");
        assert!(error.contains("another program listens there"), "{error}");
    }

    #[test]
    fn an_address_of_another_host_is_refused_with_a_remedy() {
        let error = bind_alone("admin", "192.0.2.1:1".parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains("this host has no such address"), "{error}");
    }
}
