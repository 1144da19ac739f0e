//! `flurry.yaml`: the text becomes a [`Config`] that can only be valid, or all complaints.
//!
//! Every key is described in `CONFIG.md` beside this crate; `deploy/examples/` has whole
//! files. Not checked here: what only the running system knows, such as free ports.

mod backends;
mod health;
mod limits;
mod listen;
mod network;
mod vm;
mod warm;

use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use scaler::Policy;
use scaler::yaml::{self, Complaints, Section};

pub use network::Ipv4Prefix;
pub use vm::{AcceleratorChoice, VmConfig};
pub use warm::WarmRequests;

use crate::pool::{HealthSettings, PoolSettings, QueueSettings};
use crate::server::{DataPlaneSettings, Timeouts};

/// Time from `sf_create_clones` to a clone's first answer that scaling defaults are made
/// for; what this host really needs is measured when it runs.
const ASSUMED_CLONE_TIME: Duration = Duration::from_millis(250);

/// Where the admin listener is if nothing is said.
const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9900);

/// A whole configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Name of the tier.
    pub name: String,
    /// Where clients come in.
    pub listen: Vec<SocketAddr>,
    /// Where metrics and status are; a loopback address.
    pub admin: SocketAddr,
    /// Worker threads of the data plane; `None` for one per processor.
    pub workers: Option<usize>,
    /// Backends that are always there.
    pub backends: Vec<SocketAddr>,
    /// Requests that one backend may serve at once; `None` for any number.
    pub max_in_flight: Option<u32>,
    /// The tier of VMs, with its policy.
    pub vm: Option<VmTier>,
    /// How backends are probed and judged.
    pub health: HealthSettings,
    /// The wait for a backend.
    pub queue: QueueSettings,
    /// Limits on time.
    pub timeouts: Timeouts,
}

/// A tier of VMs: how one is made, and how many there should be.
#[derive(Debug, Clone, PartialEq)]
pub struct VmTier {
    /// The VM.
    pub vm: VmConfig,
    /// The number of them.
    pub scaling: Policy,
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{}: cannot be read: {source} (give the path of a readable file)", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is wrong.
    #[error("{}", located(path, complaints))]
    Wrong {
        /// The file.
        path: PathBuf,
        /// All that is wrong with it.
        complaints: Complaints,
    },
}

/// One complaint a line, each with the file in front.
fn located(path: &Path, complaints: &Complaints) -> String {
    let line = |complaint| format!("{}: {complaint}", path.display());
    complaints.as_slice().iter().map(line).collect::<Vec<_>>().join("\n")
}

/// What a configuration refers to outside of itself.
pub(crate) struct Surroundings<'a> {
    /// The folder that relative paths start from: that of the file.
    pub(crate) folder: &'a Path,
    /// Whether a path leads to something.
    pub(crate) exists: &'a dyn Fn(&Path) -> bool,
}

impl Config {
    /// Reads a file and everything it refers to.
    ///
    /// # Errors
    /// [`ConfigError`] with all complaints at once.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        Self::load_with(path, &|path| path.exists())
    }

    /// Reads a file for a machine other than this one: what it refers to need not exist.
    ///
    /// # Errors
    /// [`ConfigError`] with all complaints at once.
    pub fn load_elsewhere(path: &Path) -> Result<Self, ConfigError> {
        Self::load_with(path, &|_| true)
    }

    fn load_with(path: &Path, exists: &dyn Fn(&Path) -> bool) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path)
            .map_err(|source| ConfigError::Unreadable { path: path.to_owned(), source })?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let surroundings = Surroundings { folder, exists };
        Self::parse(&text, &surroundings)
            .map_err(|complaints| ConfigError::Wrong { path: path.to_owned(), complaints })
    }

    pub(crate) fn parse(text: &str, surroundings: &Surroundings<'_>) -> Result<Self, Complaints> {
        yaml::read(text, |root| read(root, surroundings))
    }

    /// What the pool is made with.
    pub fn pool_settings(&self) -> PoolSettings {
        PoolSettings { health: self.health.clone(), queue: self.queue, max_in_flight: self.max_in_flight }
    }

    /// What the data plane is made with.
    pub fn data_plane_settings(&self) -> DataPlaneSettings {
        DataPlaneSettings { timeouts: self.timeouts.clone() }
    }
}

fn read(root: &mut Section<'_>, surroundings: &Surroundings<'_>) -> Option<Config> {
    let name = name(root);
    let listen = listen::read(root);
    let admin = root
        .socket_addr("admin", "give a loopback address and a port, e.g. 127.0.0.1:9900")
        .check(listen::is_loopback)
        .or(DEFAULT_ADMIN);
    let workers = root
        .u32("workers", "give a number of threads, e.g. 2, or leave it out for one per processor")
        .at_least(1)
        .at_most(256)
        .optional();
    let backends = backends::read(root);
    let max_in_flight = root
        .u32("max_in_flight", "give the requests that one backend may serve at once, e.g. 64")
        .at_least(1)
        .optional();
    let vm_given = root.has("vm");
    let vm = root.optional_section("vm", |section| vm::read(section, &name, surroundings)).flatten();
    let scaling_given = root.has("scaling");
    let scaling = root.section("scaling", |section| Policy::read(section, ASSUMED_CLONE_TIME));
    let health = root.section("health", health::read);
    let queue = root.section("queue", limits::read_queue);
    let timeouts = root.section("timeouts", limits::read_timeouts);
    if !vm_given && !root.has("backends") {
        root.complain(
            "backends",
            "is missing, and so is `vm`: there is nothing to forward to",
            "give `backends: [127.0.0.1:9001]` or a section `vm`",
        );
    }
    if scaling_given && !vm_given {
        root.complain("scaling", "is given without `vm`", "remove it, or give a section `vm`");
    }
    listen::check_collisions(root, &listen, admin);
    backends::check_loops(root, &backends, &listen, admin);
    if let Some(vm) = &vm {
        network::check_room(root, &vm.network, scaling.max);
    }
    let workers = workers.map(|workers| workers as usize);
    let vm = vm.map(|vm| VmTier { vm, scaling });
    Some(Config { name, listen, admin, workers, backends, max_in_flight, vm, health, queue, timeouts })
}

/// The name is part of paths and of names of network interfaces.
fn name(root: &mut Section<'_>) -> String {
    const LONGEST: usize = 32;
    let fits = |name: &String| {
        let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        let fits = (1..=LONGEST).contains(&name.len()) && name.chars().all(plain) && !name.starts_with('-');
        fits.then_some(()).ok_or_else(|| {
            format!("must be 1 to {LONGEST} of a-z, 0-9 and -, not beginning with -, got `{name}`")
        })
    };
    root.string("name", "give the tier a short name, e.g. shop").check(fits).or("tier".to_owned())
}

#[cfg(test)]
mod tests;
