//! Makes and removes the namespace with its bridge, and taps on it, by the
//! tools `ip`, `bridge` and `nft`. Nothing here is on the path of a fork: a
//! port is made when its shell is spawned.

use std::fs::File;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tokio::net::{TcpSocket, TcpStream};

use super::filter;
use super::identity::{AddressBlock, CloneId, MacAddress, gateway_mac, mac_address};
use super::overlay::{self, Overlay};
use crate::sys::netns::NamespaceThread;
use crate::sys::tap;

/// The bridge's name in its namespace.
pub const BRIDGE: &str = "br0";

/// Why the network is not as it should be.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// A tool is missing or said no.
    #[error("{command}: {said}")]
    Tool {
        /// The command line and what it was fed.
        command: String,
        /// What it printed.
        said: String,
    },
    /// A system call failed.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: String,
        /// The system's reason.
        source: io::Error,
    },
}

/// The network of one parent and its clones. Dropping it leaves it in place: see [`Network::remove`].
#[derive(Debug)]
pub struct Network {
    name: String,
    parent: String,
    block: AddressBlock,
    inside: NamespaceThread,
}

/// A guest's place in the network: its tap and its addresses.
#[derive(Debug)]
pub struct Port {
    /// Whose place it is.
    pub id: CloneId,
    /// The tap. The device vanishes when it is closed here and in the hypervisor.
    pub tap: File,
    /// Hardware address that the guest is to use.
    pub mac: MacAddress,
    /// Address that the guest is to use.
    pub ip: Ipv4Addr,
}

impl Network {
    /// Makes the network of the parent with this name; with an overlay, this host's part of it.
    ///
    /// # Errors
    /// The namespace exists, a tool is missing, or the user is not root.
    pub fn create(
        parent: &str,
        block: AddressBlock,
        overlay: Option<&Overlay>,
    ) -> Result<Self, NetworkError> {
        let name = namespace_name(parent);
        tool(Command::new("ip").args(["netns", "add", &name]), "")?;
        let made = Self::furnish(&name, parent, block, overlay).and_then(|()| {
            let path = PathBuf::from("/run/netns").join(&name);
            NamespaceThread::start(&path)
                .map_err(|source| NetworkError::System { what: format!("enter {}", path.display()), source })
        });
        match made {
            Ok(inside) => Ok(Self { name, parent: parent.into(), block, inside }),
            Err(error) => {
                let _ = tool(Command::new("ip").args(["netns", "delete", &name]), "");
                Err(error)
            }
        }
    }

    /// The bridge's address is given: by itself it would take the lowest of its taps', and change it when
    /// a tap comes or goes, while guests send to the old one.
    fn furnish(
        name: &str,
        parent: &str,
        block: AddressBlock,
        overlay: Option<&Overlay>,
    ) -> Result<(), NetworkError> {
        let joined = match overlay {
            None => String::new(),
            Some(overlay) => {
                let script = overlay.make(parent, name)?;
                tool(Command::new("ip").args(["-batch", "-"]), &script)?;
                Overlay::join(parent)
            }
        };
        let (mac, has_gateway) = (gateway_mac(parent), overlay.is_none_or(|overlay| overlay.gateway));
        if !has_gateway {
            let script = format!(
                "link set lo up
link add {BRIDGE} type bridge stp_state 0 forward_delay 0 mcast_snooping 0
{joined}link set {BRIDGE} up
"
            );
            return tool(Command::new("ip").args(["-n", name, "-batch", "-"]), &script);
        }
        let script = format!(
            "link set lo up
link add {BRIDGE} address {mac} type bridge stp_state 0 forward_delay 0 mcast_snooping 0
address add {}/{} dev {BRIDGE}
{joined}link set {BRIDGE} up
",
            block.gateway(),
            block.prefix_len()
        );
        tool(Command::new("ip").args(["-n", name, "-batch", "-"]), &script)
    }

    /// Makes the place of a guest.
    ///
    /// # Errors
    /// A device of this ID exists, or a tool says no; nothing is left then.
    pub fn add_port(&self, id: CloneId) -> Result<Port, NetworkError> {
        let (tap_name, mac, ip) = (tap_name(id), mac_address(&self.parent, id), self.block.address(id));
        let system = |what: String| move |source| NetworkError::System { what, source };
        let for_thread = tap_name.clone();
        let tap = self
            .inside
            .run(move || tap::create(&for_thread))
            .and_then(|made| made)
            .map_err(system(format!("create the tap {tap_name}")))?;
        self.attach(&tap_name, mac, ip)?;
        Ok(Port { id, tap, mac, ip })
    }

    /// The addresses of a guest are fixed: nothing is learned from what guests send.
    fn attach(&self, tap: &str, mac: MacAddress, ip: Ipv4Addr) -> Result<(), NetworkError> {
        self.nft(&(filter::no_rules(tap) + &filter::rules(tap, mac, ip)))?;
        let links = format!(
            "link set {tap} master {BRIDGE}\nlink set {tap} up\nneighbour replace {ip} lladdr {mac} dev {BRIDGE} nud permanent\n"
        );
        tool(Command::new("ip").args(["-n", &self.name, "-batch", "-"]), &links)?;
        let bridge = format!("link set dev {tap} learning off\nfdb replace {mac} dev {tap} master static\n");
        tool(Command::new("bridge").args(["-n", &self.name, "-batch", "-"]), &bridge)
    }

    /// Removes what a guest's place has left besides its tap, which goes when it is closed. The bridge
    /// may have forgotten the address by itself.
    ///
    /// # Errors
    /// A tool is missing or says no.
    pub fn remove_port(&self, id: CloneId) -> Result<(), NetworkError> {
        self.nft(&filter::no_rules(&tap_name(id)))?;
        let ip = self.block.address(id);
        let script = format!(
            "neighbour replace {ip} lladdr 00:00:00:00:00:00 dev {BRIDGE} nud noarp\nneighbour delete {ip} dev {BRIDGE}\n"
        );
        tool(Command::new("ip").args(["-n", &self.name, "-batch", "-"]), &script)
    }

    fn nft(&self, script: &str) -> Result<(), NetworkError> {
        tool(Command::new("ip").args(["netns", "exec", &self.name, "nft", "-f", "-"]), script)
    }

    /// The address block.
    #[must_use]
    pub fn block(&self) -> AddressBlock {
        self.block
    }

    /// The namespace's name.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.name
    }

    /// Makes connections into this network.
    #[must_use]
    pub fn dialer(&self) -> Dialer {
        Dialer { inside: self.inside.clone() }
    }

    /// Removes the network of this parent, if there is one. VMs must be gone before.
    ///
    /// # Errors
    /// The tool is missing or says no.
    pub fn remove(parent: &str) -> Result<(), NetworkError> {
        let name = namespace_name(parent);
        // Left between its making and its move into the namespace, which it goes with.
        let device = overlay::device(parent);
        if PathBuf::from("/sys/class/net").join(&device).exists() {
            tool(Command::new("ip").args(["link", "delete", &device]), "")?;
        }
        if !PathBuf::from("/run/netns").join(&name).exists() {
            return Ok(());
        }
        // A namespace goes some time after its name, and the overlay's number is taken until then.
        let overlay = Command::new("ip").args(["-n", &name, "link", "delete", &device]).output();
        if let Err(source) = overlay {
            return Err(NetworkError::System { what: format!("remove {device}"), source });
        }
        tool(Command::new("ip").args(["netns", "delete", &name]), "")
    }
}

/// Makes TCP connections to guests. Cheap to copy.
#[derive(Debug, Clone)]
pub struct Dialer {
    inside: NamespaceThread,
}

impl Dialer {
    /// Connects to a guest.
    ///
    /// # Errors
    /// As for connect(2); the network is gone.
    pub async fn dial(&self, to: SocketAddr) -> io::Result<TcpStream> {
        let (send, made) = tokio::sync::oneshot::channel();
        self.inside.submit(move || {
            let _ = send.send(if to.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() });
        })?;
        let socket = made.await.map_err(io::Error::other)??;
        socket.set_nodelay(true)?;
        socket.connect(to).await
    }
}

/// The name of the namespace of a parent's network, as `ip netns` calls it.
#[must_use]
pub fn namespace_name(parent: &str) -> String {
    format!("flurry-{parent}")
}

fn tap_name(id: CloneId) -> String {
    format!("tap{}", id.0)
}

/// Runs a tool with this on its standard input.
fn tool(command: &mut Command, script: &str) -> Result<(), NetworkError> {
    let describe = |command: &Command| format!("{command:?} with {script:?}");
    let failed = |command: &Command, said: String| NetworkError::Tool { command: describe(command), said };
    command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|e| failed(command, format!("cannot be started: {e}")))?;
    if let Some(mut stdin) = child.stdin.take() {
        // A tool that ends early says why on its standard error.
        let _ = stdin.write_all(script.as_bytes());
    }
    let output = child.wait_with_output().map_err(|e| failed(command, e.to_string()))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(command, String::from_utf8_lossy(&output.stderr).trim().to_owned()))
}
