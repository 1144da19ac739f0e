//! Listening sockets: one per TCP address and worker, sharing the port (SO_REUSEPORT); a
//! unix socket is one that all workers accept from.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use nix::sys::socket::{getsockopt, sockopt};
use socket2::{Domain, Protocol, Socket, Type};

use super::proxied::ProxyProtocol;
use crate::net::Address;
use crate::tls::TlsSettings;

/// Connections the kernel may hold for us; it cuts this to `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// One place where clients come in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerSettings {
    /// Where it is.
    pub address: Address,
    /// What routes call it.
    pub name: Option<String>,
    /// Certificates; `None` for a listener without TLS.
    pub tls: Option<TlsSettings>,
    /// Whether HTTP/2 is spoken with clients that ask for it: by ALPN over TLS, by its
    /// preface without.
    pub http2: bool,
    /// Whether connections begin with a PROXY header.
    pub proxy_protocol: Option<ProxyProtocol>,
}

impl From<SocketAddr> for ListenerSettings {
    fn from(address: SocketAddr) -> Self {
        Self { address: address.into(), name: None, tls: None, http2: true, proxy_protocol: None }
    }
}

/// A socket that accepts connections.
#[derive(Debug)]
pub enum Listening {
    /// TCP.
    Tcp(TcpListener),
    /// A unix socket.
    Unix(UnixListener),
}

impl Listening {
    /// Where it really is: port 0 has become a free port.
    pub fn address(&self, asked: &Address) -> Address {
        match self {
            Self::Tcp(listener) => listener.local_addr().map_or_else(|_| asked.clone(), Address::Tcp),
            Self::Unix(_) => asked.clone(),
        }
    }

    /// A socket that another process has listened on at this address.
    ///
    /// # Errors
    /// It does not listen, or not on an address of this kind.
    pub fn inherited(address: &Address, socket: OwnedFd) -> io::Result<Self> {
        let socket = Socket::from(socket);
        let kind = socket.domain()?;
        let fits = match address {
            Address::Tcp(address) => kind == Domain::for_address(*address),
            Address::Unix(_) => kind == Domain::UNIX,
        };
        if !fits || !getsockopt(&socket, sockopt::AcceptConn)? {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a socket that listens there"));
        }
        socket.set_nonblocking(true)?;
        Ok(match address {
            Address::Tcp(_) => Self::Tcp(OwnedFd::from(socket).into()),
            Address::Unix(_) => Self::Unix(OwnedFd::from(socket).into()),
        })
    }

    /// The same socket once more: both accept what comes to it.
    ///
    /// # Errors
    /// No free file descriptor.
    pub fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Tcp(listener) => listener.try_clone().map(Self::Tcp),
            Self::Unix(listener) => listener.try_clone().map(Self::Unix),
        }
    }
}

impl AsFd for Listening {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(listener) => listener.as_fd(),
            Self::Unix(listener) => listener.as_fd(),
        }
    }
}

/// Sockets of one address, bound or inherited.
#[derive(Debug)]
pub(super) struct Sockets {
    /// At least one per worker; the workers take turns.
    pub(super) all: Vec<Listening>,
    /// Who had them before still has them if nothing comes of it.
    pub(super) inherited: bool,
}

impl Sockets {
    /// Of this process alone.
    pub(super) fn bound(all: Vec<Listening>) -> Self {
        Self { all, inherited: false }
    }

    /// Of a process with any number of workers: each socket has connections of its own waiting,
    /// so all must be accepted from, and further workers share.
    pub(super) fn inherited(mut all: Vec<Listening>, workers: usize) -> io::Result<Self> {
        let given = all.len();
        for index in given..workers.max(given) {
            match all.get(index % given.max(1)) {
                Some(shared) => all.push(shared.try_clone()?),
                None => {
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, "an address without sockets"));
                }
            }
        }
        Ok(Self { all, inherited: true })
    }

    /// All of them once more.
    pub(super) fn try_clone(&self) -> io::Result<Vec<Listening>> {
        self.all.iter().map(Listening::try_clone).collect()
    }
}

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("{key}: cannot listen on {address}: {source}{}", remedy(.source))]
pub struct BindError {
    /// The key of the configuration, e.g. `listen[0]`.
    pub key: String,
    /// The address.
    pub address: Address,
    /// What the kernel said.
    pub source: io::Error,
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => " (another program listens there: stop it, or give another port)",
        io::ErrorKind::PermissionDenied => " (ports below 1024 need root or CAP_NET_BIND_SERVICE)",
        io::ErrorKind::AddrNotAvailable => " (this host has no such address: give one of its own)",
        io::ErrorKind::AlreadyExists => " (a file is in the way: remove it, or give another path)",
        io::ErrorKind::NotFound => " (its folder does not exist: make it first)",
        _ => "",
    }
}

/// Makes `count` sockets that share `address`. Port 0 takes a free port, the same for all.
///
/// # Errors
/// [`BindError`] with the key of the configuration.
pub fn bind_shared(key: &str, address: &Address, count: usize) -> Result<Vec<Listening>, BindError> {
    let wrap = |source| BindError { key: key.to_owned(), address: address.clone(), source };
    match address {
        Address::Tcp(address) => shared_tcp(*address, count).map_err(wrap),
        Address::Unix(path) => shared_unix(path, count).map_err(wrap),
    }
}

fn shared_tcp(address: SocketAddr, count: usize) -> io::Result<Vec<Listening>> {
    // SO_REUSEPORT would share the port with another flurry of the same user: an
    // exclusive bind finds out first.
    let trial = listener(address, false)?;
    let address = trial.local_addr()?;
    drop(trial);
    (0..count).map(|_| listener(address, true).map(Listening::Tcp)).collect()
}

fn shared_unix(path: &Path, count: usize) -> io::Result<Vec<Listening>> {
    clear_the_way(path)?;
    let first = UnixListener::bind(path)?;
    first.set_nonblocking(true)?;
    let mut all = (1..count).map(|_| first.try_clone()).collect::<io::Result<Vec<_>>>()?;
    all.push(first);
    Ok(all.into_iter().map(Listening::Unix).collect())
}

/// Removes a socket that nobody listens on any more; anything else stays.
fn clear_the_way(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() => Err(io::ErrorKind::AlreadyExists.into()),
        Ok(_) if UnixStream::connect(path).is_ok() => Err(io::ErrorKind::AddrInUse.into()),
        Ok(_) => std::fs::remove_file(path),
    }
}

/// Makes one socket that shares its address with nobody.
///
/// # Errors
/// [`BindError`] with the key of the configuration.
pub fn bind_alone(key: &str, address: SocketAddr) -> Result<TcpListener, BindError> {
    listener(address, false).map_err(|source| BindError {
        key: key.to_owned(),
        address: address.into(),
        source,
    })
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

    fn bind(address: Address) -> Result<Vec<Listening>, BindError> {
        bind_shared("listen[1]", &address, 3)
    }

    #[test]
    fn workers_share_one_port() {
        let listeners = bind(ANY.into()).unwrap();
        let ports: Vec<u16> =
            listeners.iter().map(|it| it.address(&ANY.into()).tcp().unwrap().port()).collect();
        assert!(ports.iter().all(|port| *port == ports[0] && *port != 0), "{ports:?}");
    }

    #[test]
    fn a_port_in_use_is_named_with_its_key_even_if_it_could_be_shared() {
        let taken = bind(ANY.into()).unwrap();
        let address = taken[0].address(&ANY.into());
        let error = bind(address.clone()).unwrap_err().to_string();
        assert!(error.starts_with(&format!("listen[1]: cannot listen on {address}: ")), "{error}");
        assert!(error.contains("another program listens there"), "{error}");
    }

    #[test]
    fn an_address_of_another_host_is_refused_with_a_remedy() {
        let error = bind_alone("admin", "192.0.2.1:1".parse().unwrap()).unwrap_err().to_string();
        assert!(error.contains("this host has no such address"), "{error}");
    }

    #[test]
    fn a_unix_socket_left_by_a_dead_process_is_replaced_and_a_live_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let address = Address::Unix(folder.path().join("web.sock"));
        let taken = bind(address.clone()).unwrap();
        assert!(bind(address.clone()).unwrap_err().to_string().contains("another program"));
        drop(taken);
        assert_eq!(bind(address).unwrap().len(), 3);
    }

    #[test]
    fn inherited_sockets_are_shared_by_more_workers_and_all_kept_for_fewer() {
        let count = |sockets, workers| Sockets::inherited(sockets, workers).unwrap().all.len();
        assert_eq!(count(bind(ANY.into()).unwrap(), 5), 5);
        assert_eq!(count(bind(ANY.into()).unwrap(), 2), 3);
        assert!(Sockets::inherited(Vec::new(), 2).is_err());
    }

    #[test]
    fn a_file_in_the_way_of_a_unix_socket_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("precious");
        std::fs::write(&path, "data").unwrap();
        let error = bind(Address::Unix(path.clone())).unwrap_err().to_string();
        assert!(error.contains("a file is in the way"), "{error}");
        assert_eq!(std::fs::read_to_string(path).unwrap(), "data");
    }
}
