//! The host's side: devices, the VM or the rules in the bridge's namespace, and the facade over both.
//!
//! ```text
//! vm           [bridge's namespace: bridge -- router0 (tap)]=[VM eth0 | eth1]=[tap: world]
//! distributed  [bridge's namespace: bridge ---- rules ---- world0 (veth)]=====[veth: world]
//! ```
//!
//! Guests keep the bridge as their gateway, so nothing in a guest differs between the two.

mod keeper;
mod links;
mod place;
mod vm;

use std::fs::File;
use std::path::PathBuf;

use crate::config::Config;
use crate::control::Measures;
use crate::netlink::nft;
use crate::plan::Plan;
use crate::rules::{Devices, translate};
use keeper::Keeper;
use links::Links;
use place::inside;

/// Why there is no router, or not the one that was asked for.
#[derive(Debug, thiserror::Error)]
pub enum RouterError {
    /// A tool is missing or said no.
    #[error("{command}: {said}")]
    Tool {
        /// The command line and what it was fed.
        command: String,
        /// What it printed.
        said: String,
    },
    /// The kernel said no.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: String,
        /// The system's reason.
        source: std::io::Error,
    },
    /// The router VM said no.
    #[error("the router VM refused: {0}")]
    Refused(String),
    /// The router VM does not serve.
    #[error("the router VM does not serve: {0}")]
    NotServing(String),
}

fn system(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> RouterError {
    |source| RouterError::System { what: what.into(), source }
}

/// Where the router stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Site {
    /// The tier's name, from which device names are made.
    pub name: String,
    /// The network namespace of the bridge that guests are on, as `ip netns` calls it.
    pub namespace: String,
    /// That bridge.
    pub bridge: String,
    /// The namespace towards the world; `None` for that of this process.
    pub world_namespace: Option<String>,
    /// An existing folder for consoles.
    pub folder: PathBuf,
}

/// What router VMs are started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmKind {
    /// QEMU.
    pub qemu: PathBuf,
    /// The folder of the image.
    pub image: PathBuf,
    /// With hardware virtualisation, not emulated.
    pub kvm: bool,
}

/// Who applies the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mode {
    /// A VM, with a second one ready to take its place.
    Vm(VmKind),
    /// This host, in the namespace of the bridge.
    Distributed,
}

/// A running router. Dropping it stops it, and guests have no way out any more.
#[derive(Debug)]
pub struct Router {
    site: Site,
    keeper: Option<Keeper>,
    // After the keeper: its VMs hold the devices.
    links: Links,
}

impl Router {
    /// Starts it and waits until it serves.
    ///
    /// # Errors
    /// The site is not as it is said to be, a tool is missing, the VM does not start.
    pub fn start(site: Site, mode: &Mode, config: &Config) -> Result<Self, RouterError> {
        match mode {
            Mode::Distributed => {
                let links = Links::veth(&site, &config.world)?;
                let router = Self { site, keeper: None, links };
                router.load(config)?;
                router.links.open()?;
                Ok(router)
            }
            Mode::Vm(kind) => {
                let kernel = kind.image.join("vmlinux");
                File::open(&kernel).map_err(system(format!("open {}", kernel.display())))?;
                let links = Links::taps(&site, &config.world)?;
                links.open()?;
                let keeper = Keeper::start(&site, kind, links.clone(), Plan::of(config))?;
                Ok(Self { site, keeper: Some(keeper), links })
            }
        }
    }

    /// Puts other rules in force at once; connections live on. The place in the world stays as it was.
    ///
    /// # Errors
    /// They were refused, and the former ones are in force.
    pub fn change(&self, config: &Config) -> Result<(), RouterError> {
        match &self.keeper {
            Some(keeper) => keeper.change(Plan::of(config)),
            None => self.load(config),
        }
    }

    /// What was counted.
    ///
    /// # Errors
    /// The router VM does not serve at the moment.
    pub fn measure(&self) -> Result<Measures, RouterError> {
        match &self.keeper {
            Some(keeper) => keeper.measure(),
            None => inside(&self.site.namespace, crate::inside::measure)?.map_err(system("read counters")),
        }
    }

    /// The process of the VM that serves now, and how many had to be replaced. `None` without a VM.
    #[must_use]
    pub fn serving(&self) -> Option<(u32, u64)> {
        self.keeper.as_ref().and_then(Keeper::serving)
    }

    fn load(&self, config: &Config) -> Result<(), RouterError> {
        let devices = Devices { inside: self.site.bridge.clone(), world: links::NEAR_END.into() };
        let rules = translate(config, &devices);
        inside(&self.site.namespace, move || nft::load(&rules))?.map_err(system("load the rules"))
    }
}

impl Drop for Router {
    fn drop(&mut self) {
        self.keeper.take();
        self.links.remove();
    }
}
