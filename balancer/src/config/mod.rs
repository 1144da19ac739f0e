//! `flurry.yaml`: the text becomes a [`Config`] that can only be valid, or all complaints.
//!
//! Every key is described in `CONFIG.md` beside this crate; `deploy/examples/` has whole
//! files. Not checked here: what only the running system knows, such as free ports.

mod account;
mod balance;
mod health;
mod limits;
mod listen;
mod network;
mod outliers;
mod pool;
mod rates;
mod router;
mod routes;
pub(crate) mod state_dir;
mod sticky;
mod tls;
mod traffic;
mod vm;
mod warm;

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::IpNet;
use scaler::Policy;
use scaler::yaml::{self, Complaints, Section};

pub use network::Ipv4Prefix;
pub use pool::{PoolConfig, UpstreamConfig};
pub use router::{RouterConfig, RouterMode};
pub use routes::{RouteConfig, TargetConfig};
pub use vm::{AcceleratorChoice, VmConfig};
pub use warm::WarmRequests;

use crate::account::AccountSettings;
use crate::limit::RateLimitSettings;
use crate::pool::{DEFAULT_POOL, ProbeKind};
use crate::server::{ListenerSettings, Timeouts};

/// Where the admin listener is if nothing is said.
const DEFAULT_ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9900);

/// A whole configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// Name of the tier.
    pub name: String,
    /// Where clients come in.
    pub listen: Vec<ListenerSettings>,
    /// Where metrics and status are; a loopback address.
    pub admin: SocketAddr,
    /// Worker threads of the data plane; `None` for one per processor.
    pub workers: Option<usize>,
    /// The backends, apart from those that a tier of VMs adds.
    pub pool: PoolConfig,
    /// More backends, by name.
    pub pools: BTreeMap<String, PoolConfig>,
    /// Which requests go where; the rest goes to `pool`.
    pub routes: Vec<RouteConfig>,
    /// Limits on the requests of all routes together.
    pub rate_limits: Vec<RateLimitSettings>,
    /// Connections that one client may have; `None` for any number.
    pub connections_per_client: Option<u32>,
    /// Networks of proxies whose X-Forwarded fields are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// The tier of VMs, with its policy.
    pub vm: Option<VmTier>,
    /// Limits on time.
    pub timeouts: Timeouts,
    /// Who is told of each request.
    pub account: AccountSettings,
}

/// A tier of VMs: how one is made, and how many there should be.
#[derive(Debug, Clone, PartialEq)]
pub struct VmTier {
    /// The VM.
    pub vm: VmConfig,
    /// The number of them.
    pub scaling: Policy,
}

impl VmTier {
    /// Whether the other differs in the router's rules at most, which can change while it runs.
    pub(crate) fn same_but_rules(&self, other: &Self) -> bool {
        let unrouted = |tier: &Self| VmConfig { router: None, ..tier.vm.clone() };
        let place = |tier: &Self| tier.vm.router.as_ref().map(|r| (r.mode.clone(), r.config.world.clone()));
        self.scaling == other.scaling && unrouted(self) == unrouted(other) && place(self) == place(other)
    }
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
    /// Reads a file.
    pub(crate) read: &'a dyn Fn(&Path) -> io::Result<Vec<u8>>,
    /// Whether what is written below a path stays in memory.
    pub(crate) in_memory: &'a dyn Fn(&Path) -> bool,
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
        let read = |path: &Path| std::fs::read(path);
        let surroundings = Surroundings { folder, exists, read: &read, in_memory: &state_dir::in_memory };
        Self::parse(&text, &surroundings)
            .map_err(|complaints| ConfigError::Wrong { path: path.to_owned(), complaints })
    }

    pub(crate) fn parse(text: &str, surroundings: &Surroundings<'_>) -> Result<Self, Complaints> {
        yaml::read(text, |root| read(root, surroundings))
    }

    /// How often connections look at their limits, those of routes included.
    pub fn tick(&self) -> Duration {
        let own = self.routes.iter().filter_map(|route| route.settings.response_timeout);
        let response = own.fold(self.timeouts.response, Duration::min);
        Timeouts { response, ..self.timeouts.clone() }.tick()
    }

    /// Whether requests that no route is for have backends.
    pub fn has_default_pool(&self) -> bool {
        self.vm.is_some() || !self.pool.backends.is_empty() || self.routes.is_empty()
    }
}

fn read(root: &mut Section<'_>, surroundings: &Surroundings<'_>) -> Option<Config> {
    let name = name(root);
    let listen = listen::read(root, surroundings);
    let admin = root
        .socket_addr("admin", "give a loopback address and a port, e.g. 127.0.0.1:9900")
        .check(listen::is_loopback)
        .or(DEFAULT_ADMIN);
    let workers = root
        .u32("workers", "give a number of threads, e.g. 2, or leave it out for one per processor")
        .at_least(1)
        .at_most(256)
        .optional();
    let trusted_proxies = listen::networks(root, "trusted_proxies").unwrap_or_default();
    let pool = pool::read(root, surroundings);
    let pools = pools(root, surroundings);
    let known = routes::Known {
        pools: pools.keys().map(String::as_str).collect(),
        listeners: listen.iter().filter_map(|it| it.name.as_deref()).collect(),
    };
    let routes = routes::read(root, &known);
    let rate_limits = rates::read(root);
    let connections_per_client = root
        .u32("connections_per_client", "give the connections that one client may have, e.g. 100")
        .at_least(1)
        .optional();
    let account = account::read(root, &name, surroundings.folder);
    let vm_given = root.has("vm");
    let vm = root.optional_section("vm", |section| vm::read(section, &name, surroundings)).flatten();
    let scaling_given = root.has("scaling");
    let scaling = root.section("scaling", |section| Policy::read(section, Policy::ASSUMED_CLONE_TIME));
    let timeouts = root.section("timeouts", limits::read_timeouts);
    let default_needed = routes.iter().any(|route| route.target == TargetConfig::Pool(None));
    if !vm_given && !root.has("backends") && (routes.is_empty() || default_needed) {
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
    pool::check_loops(root, "", &pool.backends, &listen, admin);
    for (name, pool) in &pools {
        pool::check_loops(root, &format!("pools.{name}."), &pool.backends, &listen, admin);
    }
    if vm_given {
        check_vm_pool(root, &pool);
    }
    if let Some(vm) = &vm {
        network::check_room(root, &vm.network, scaling.max, vm.guest_clones);
    }
    let workers = workers.map(|workers| workers as usize);
    let vm = vm.map(|vm| VmTier { vm, scaling });
    Some(Config {
        name,
        listen,
        admin,
        workers,
        pool,
        pools,
        routes,
        rate_limits,
        connections_per_client,
        trusted_proxies,
        vm,
        timeouts,
        account,
    })
}

/// Reads the pools with names; each needs backends.
fn pools(root: &mut Section<'_>, surroundings: &Surroundings<'_>) -> BTreeMap<String, PoolConfig> {
    const REMEDY: &str = "give pools by name, e.g. {api: {backends: [127.0.0.1:9001]}}";
    let pairs = root.pairs("pools", REMEDY).optional().unwrap_or_default();
    let read = |section: &mut Section<'_>| {
        if !section.has("backends") {
            section.complain("backends", "is missing", "give the addresses of the pool's backends");
        }
        pool::read(section, surroundings)
    };
    let pools: BTreeMap<_, _> = pairs.into_iter().map(|(name, entry)| (name, entry.section(read))).collect();
    if pools.contains_key(DEFAULT_POOL) {
        let problem = format!("`{DEFAULT_POOL}` is what the backends at the top of the file are called");
        root.complain(&format!("pools.{DEFAULT_POOL}"), problem, "give the pool another name");
    }
    pools
}

/// VMs are booted, warmed and asked over plain HTTP/1.1.
fn check_vm_pool(root: &Section<'_>, pool: &PoolConfig) {
    if pool.upstream != UpstreamConfig::default() {
        let remedy = "remove it, or give the backends that it is for a pool of their own under `pools`";
        root.complain(
            "upstream",
            "is given beside `vm`, and VMs are spoken with over plain HTTP/1.1",
            remedy,
        );
    }
    if pool.health.kind != ProbeKind::Http {
        root.complain("health.kind", "is given beside `vm`, and VMs are asked by HTTP", "remove it");
    }
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
