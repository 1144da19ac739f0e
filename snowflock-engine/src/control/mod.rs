//! The engine: SnowFlock's programming interface, and the one owner of the
//! life of every VM.
//!
//! ```text
//!   sf_request_ticket(n) -> ticket for m <= n, or a refusal
//!   sf_checkpoint_parent() -> checkpoint        sf_clone(ticket) = both
//!   sf_create_clones(ticket, checkpoint) -> clones that have joined
//!   sf_exit(clone), sf_kill(ticket), sf_join(ticket)
//! ```
//!
//! [`Engine`] is a handle; behind it one thread owns all state (`owner`), hands
//! slow work to worker threads, and publishes a numbered [`View`].

use std::collections::BTreeSet;
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc;
use std::time::Duration;

use tokio::sync::{oneshot, watch};

use crate::agent::AgentError;
use crate::descriptor::DescriptorError;
use crate::hypervisor::qemu::accelerator::{self, NoKvm};
use crate::hypervisor::qemu::{self, Choice, Qemu, Wish};
use crate::hypervisor::{BootImage, Hypervisor, HypervisorError, Machine};
use crate::memory::protocol::CheckpointId;
use crate::network::identity::{AddressBlock, CloneId};
use crate::network::{Dialer, Network, NetworkError, Overlay};
use crate::sys::uffd::Uffd;
use crate::wire::RequestId;

mod birth;
mod checkpoint;
mod guest_api;
mod host;
mod ledger;
mod lifecycle;
mod memory_server;
mod owner;
mod registry;
mod supply;
mod ticket;
mod travel;
mod view;

pub use host::{ENV_PROGRAMS, Programs, console_tail};
pub use ledger::LedgerError;
pub use lifecycle::LifeState;
pub use memory_server::{MemoryServer, RemoteView, ServerError};
pub use supply::PAGE_LIMIT;
pub use ticket::{Refusal, Ticket, TicketAnswer, TicketId};
pub use travel::{MAX_PARCEL, Parcel, TravelError};
pub use view::{CheckpointView, ForkTimes, PauseTimes, View, VmView};

use host::Host;
use ledger::Ledger;
use owner::{Command, Event, Owner};
use ticket::Room;

/// What an engine is made for.
#[derive(Debug, Clone)]
pub struct EngineSpec {
    /// Name of the parent: of its network namespace, and in its clones' host names.
    pub name: String,
    /// Shape of parent and clones.
    pub machine: Machine,
    /// What the parent boots from.
    pub image: BootImage,
    /// Addresses of the private network.
    pub block: AddressBlock,
    /// KVM or TCG.
    pub accelerator: Wish,
    /// Hollow shells to keep waiting.
    pub shells: u32,
    /// Clones that may live at once.
    pub max_clones: u32,
    /// Memory that one clone is reckoned with when tickets are granted, MiB.
    pub clone_mib: u64,
    /// Folder for all files of this engine, on a file system that keeps sparse files.
    pub state_folder: PathBuf,
    /// The parent must have its identity by then.
    pub boot_limit: Duration,
    /// A clone must have its identity by then.
    pub identity_limit: Duration,
    /// The hooks in a guest get this long for each event: before a fork, before an exit.
    pub hook_limit: Duration,
    /// Clones that processes in the parent may ask for, at once; 0: they may ask for nothing.
    pub guest_clones: u32,
    /// Programs to use.
    pub programs: Programs,
    /// What it shares with other hosts; `None` for an engine alone.
    pub between: Option<BetweenHosts>,
}

/// The network between hosts that have clones of one parent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BetweenHosts {
    /// Address of this host in it.
    pub address: Ipv4Addr,
    /// Multicast group and port, for pages; the same on all hosts.
    pub group: SocketAddrV4,
    /// Whether the parent is here, and with it the gateway of the private network.
    pub parent: bool,
    /// Whether all memory of copied checkpoints is fetched in the end, beside what clones touch.
    pub fill: bool,
}

impl BetweenHosts {
    fn overlay(&self) -> Overlay {
        Overlay { local: self.address, group: *self.group.ip(), gateway: self.parent }
    }
}

/// Why the engine did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A program is not installed.
    #[error("the program {name} is in none of {folders:?}")]
    NoProgram {
        /// Its file name.
        name: String,
        /// Where it was looked for.
        folders: Vec<PathBuf>,
    },
    /// KVM was asked for and does not work.
    #[error(transparent)]
    NoKvm(#[from] NoKvm),
    /// Page faults of guests cannot be served on this host.
    #[error("guests cannot be forked on this host")]
    NoUserfaultfd(#[source] io::Error),
    /// The state folder cannot be used.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The private network cannot be made.
    #[error("the private network cannot be made")]
    Network(#[from] NetworkError),
    /// The hypervisor did not do its part.
    #[error(transparent)]
    Hypervisor(#[from] HypervisorError),
    /// Guest memory is not served.
    #[error(transparent)]
    Memory(#[from] ServerError),
    /// The guest has no identity.
    #[error(transparent)]
    Agent(#[from] AgentError),
    /// A guest that was booted does not speak with us.
    #[error("the guest did not come up, its console: {console}")]
    NotUp {
        /// The last lines that it printed.
        console: String,
        /// What was noticed.
        source: AgentError,
    },
    /// The VM descriptor is not to be trusted, or not for this host.
    #[error(transparent)]
    Descriptor(#[from] DescriptorError),
    /// A checkpoint does not get to or from another host.
    #[error(transparent)]
    Travel(#[from] TravelError),
    /// A system call failed.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: String,
        /// The system's reason.
        source: io::Error,
    },
    /// No memory or file descriptor left for an image.
    #[error("no memory or file descriptor is left for an image")]
    Image(#[from] io::Error),
    /// The VM does not run, or its line was taken.
    #[error("{0} cannot be forked now: it does not run, or another fork of it is under way")]
    NotForkable(CloneId),
    /// There is no such ticket, or it was used.
    #[error("ticket {} is unknown, used or killed", .0.0)]
    NoTicket(TicketId),
    /// There is no such checkpoint.
    #[error("checkpoint {} does not exist (any more)", .0.0)]
    NoCheckpoint(CheckpointId),
    /// The parent has booted before.
    #[error("the parent has been booted already")]
    BootedAlready,
    /// The engine was shut down.
    #[error("the engine has been shut down")]
    Stopped,
}

/// The outcome of `sf_create_clones`: every promised clone is in one of the lists.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Created {
    /// Those that have their own identity.
    pub joined: Vec<CloneId>,
    /// Those that could not be made, and why.
    pub failed: Vec<(CloneId, String)>,
}

/// A handle on a running engine. Cheap to copy.
#[derive(Debug, Clone)]
pub struct Engine {
    events: mpsc::Sender<Event>,
    /// `None` in the handle of those whom the engine does not live for: its own guests.
    _keep: Option<Arc<Keep>>,
    view: watch::Receiver<Arc<View>>,
    dialer: Dialer,
    choice: Choice,
    /// Clones that may live at once, and memory that one is reckoned with, MiB.
    bounds: (u32, u64),
}

/// With the last of these the engine ends.
#[derive(Debug)]
struct Keep(mpsc::Sender<Event>);

impl Drop for Keep {
    fn drop(&mut self) {
        // Nobody waits for the answer, and who was told to shut down before does not listen.
        let _ = self.0.send(Event::Command(Command::ShutDown(oneshot::channel().0)));
    }
}

impl Engine {
    /// Removes what a former run has left, makes the private network and starts shells, on QEMU. Blocks
    /// for up to a few seconds while KVM is tried.
    ///
    /// # Errors
    /// See [`EngineError`]; nothing is left behind then.
    pub fn start(spec: EngineSpec) -> Result<Self, EngineError> {
        Self::start_on(spec, |spec, folder| {
            let programs = &spec.programs;
            let choice = accelerator::choose(spec.accelerator, &programs.qemu, &spec.image.kernel, folder)?;
            let programs = qemu::Programs { qemu: programs.qemu.clone(), shim: programs.shim.clone() };
            let machine = spec.machine.clone();
            let driver = Qemu::new(programs, machine, choice.accelerator, spec.image.disk_bytes, folder)?;
            Ok((Box::new(driver), choice))
        })
    }

    /// The same on any driver: `make` is told the specification and the state folder, which is empty then.
    ///
    /// # Errors
    /// As for [`Engine::start`], and those of `make`.
    pub fn start_on(
        spec: EngineSpec,
        make: impl FnOnce(&EngineSpec, &Path) -> Result<(Box<dyn Hypervisor>, Choice), EngineError>,
    ) -> Result<Self, EngineError> {
        Uffd::probe().map_err(EngineError::NoUserfaultfd)?;
        let ledger = Ledger::open(&spec.state_folder, &spec.name)?;
        let started = make(&spec, ledger.folder())
            .and_then(|(hypervisor, choice)| Self::start_with(&spec, hypervisor, choice));
        match started {
            Ok((engine, owner)) => {
                let run = move || owner.run(ledger);
                std::thread::Builder::new().name("engine".into()).spawn(run)?;
                Ok(engine)
            }
            Err(error) => {
                if let Err(left) = ledger.close(&spec.name) {
                    tracing::warn!(error = %left, "not everything was removed");
                }
                Err(error)
            }
        }
    }

    fn start_with(
        spec: &EngineSpec,
        hypervisor: Box<dyn Hypervisor>,
        choice: Choice,
    ) -> Result<(Self, Owner), EngineError> {
        let base = match &spec.between {
            Some(_) if !spec.image.disk.as_os_str().is_empty() => {
                let what = || format!("read the disk image {}", spec.image.disk.display());
                let digest = travel::digest(&spec.image.disk);
                Some(digest.map_err(|source| EngineError::System { what: what(), source })?)
            }
            _ => None,
        };
        let network = Network::create(
            &spec.name,
            spec.block,
            spec.between.as_ref().map(BetweenHosts::overlay).as_ref(),
        )?;
        let dialer = network.dialer();
        let (calls, called) = tokio::sync::mpsc::channel(guest_api::WAITING);
        let host = Host {
            name: spec.name.clone(),
            hypervisor,
            network,
            programs: spec.programs.clone(),
            folder: spec.state_folder.clone(),
            image: spec.image.clone(),
            machine: spec.machine.clone(),
            between: spec.between.clone(),
            base,
            closing: AtomicBool::new(false),
            calls,
        };
        let (events, inbox) = mpsc::channel();
        let (publish, view) = watch::channel(Arc::new(View::default()));
        supply::watch(view.clone(), events.clone())?;
        let owner = Owner::new(spec, host, inbox, events.clone(), publish);
        let keep = Arc::new(Keep(events.clone()));
        let bounds = (spec.max_clones, spec.clone_mib);
        let guests = Self { events, _keep: None, view, dialer, choice, bounds };
        let engine = Self { _keep: Some(keep), ..guests.clone() };
        guest_api::start(guests, spec.guest_clones, called)?;
        Ok((engine, owner))
    }

    /// Boots the parent; it has its identity when this returns.
    ///
    /// # Errors
    /// The VM does not start, or its agent does not answer in time; the VM is gone then.
    pub async fn boot(&self) -> Result<(), EngineError> {
        self.ask(Command::Boot).await?
    }

    /// SnowFlock's `sf_request_ticket`: the right to `wanted` clones, or to fewer.
    ///
    /// # Errors
    /// The engine was shut down. A refusal is not an error.
    pub async fn sf_request_ticket(&self, wanted: u32) -> Result<TicketAnswer, EngineError> {
        self.ask(|reply| Command::RequestTicket(wanted, reply)).await
    }

    /// SnowFlock's `sf_checkpoint_parent`: freezes the parent as it is now.
    ///
    /// # Errors
    /// The parent does not run, or a step failed; it goes on in any case.
    pub async fn sf_checkpoint_parent(&self) -> Result<CheckpointId, EngineError> {
        self.checkpoint(CloneId::PARENT).await
    }

    /// Freezes any running VM as it is now: a clone can be forked, too.
    ///
    /// # Errors
    /// As for [`Engine::sf_checkpoint_parent`].
    pub async fn checkpoint(&self, of: CloneId) -> Result<CheckpointId, EngineError> {
        self.ask(|reply| Command::Checkpoint(of, None, reply)).await?
    }

    /// The same because of this call of the VM: it returns in the clones as well.
    async fn checkpoint_asked_by(&self, of: CloneId, call: RequestId) -> Result<CheckpointId, EngineError> {
        self.ask(|reply| Command::Checkpoint(of, Some(call), reply)).await?
    }

    /// What another host needs to make clones of a checkpoint of the parent, for its [`Engine::import`].
    /// It holds the key of the checkpoint's pages.
    ///
    /// # Errors
    /// There is no such checkpoint, or no network between hosts.
    pub async fn export(&self, checkpoint: CheckpointId) -> Result<Vec<u8>, EngineError> {
        self.ask(|reply| Command::Export(checkpoint, reply)).await?
    }

    /// Makes clones of another host's checkpoint possible here.
    ///
    /// # Errors
    /// The parcel is damaged or not for this host, or the disk does not come.
    pub async fn import(&self, parcel: Arc<Vec<u8>>) -> Result<CheckpointId, EngineError> {
        self.ask(|reply| Command::Import(parcel, reply)).await?
    }

    /// Other hosts have clones of these checkpoints: they do not end, newer ones or not.
    pub fn hold(&self, checkpoints: BTreeSet<CheckpointId>) {
        let _ = self.say(Command::Hold(checkpoints));
    }

    /// This checkpoint is to end with its last clone, newer ones or not.
    pub fn release(&self, checkpoint: CheckpointId) {
        let _ = self.say(Command::Release(checkpoint));
    }

    /// SnowFlock's `sf_create_clones`: uses a ticket up. Returns when each of its clones has joined or failed.
    ///
    /// # Errors
    /// Ticket or checkpoint do not exist, or the descriptor is damaged: then nothing was started, and
    /// the ticket still stands.
    pub async fn sf_create_clones(
        &self,
        ticket: TicketId,
        checkpoint: CheckpointId,
    ) -> Result<Created, EngineError> {
        self.ask(|reply| Command::CreateClones(ticket, checkpoint, reply)).await?
    }

    /// SnowFlock's `sf_clone`: checkpoint and clones in one.
    ///
    /// # Errors
    /// As for both.
    pub async fn sf_clone(&self, ticket: TicketId) -> Result<Created, EngineError> {
        let checkpoint = self.sf_checkpoint_parent().await?;
        self.sf_create_clones(ticket, checkpoint).await
    }

    /// SnowFlock's `sf_exit`: ends one clone. Returns when it has left nothing behind.
    ///
    /// # Errors
    /// The engine was shut down.
    pub async fn sf_exit(&self, clone: CloneId) -> Result<(), EngineError> {
        self.ask(|reply| Command::Exit(clone, reply)).await
    }

    /// SnowFlock's `sf_kill`: ends all clones of a ticket at once, and the ticket. Returns when they have left
    /// nothing behind.
    ///
    /// # Errors
    /// There is no such ticket.
    pub async fn sf_kill(&self, ticket: TicketId) -> Result<(), EngineError> {
        for ended in self.ask(|reply| Command::Kill(ticket, reply)).await?? {
            ended.await.map_err(|_| EngineError::Stopped)?;
        }
        Ok(())
    }

    /// SnowFlock's `sf_join`: waits until all clones of a ticket have ended.
    ///
    /// # Errors
    /// The engine was shut down.
    pub async fn sf_join(&self, ticket: TicketId) -> Result<(), EngineError> {
        let ended = |view: &Arc<View>| {
            view.clones.iter().filter(|c| c.ticket == Some(ticket)).all(|c| !c.state.is_alive())
        };
        self.view.clone().wait_for(ended).await.map(drop).map_err(|_| EngineError::Stopped)
    }

    /// Tells that a VM answers requests; `first_response` counts from the start of its birth.
    pub fn ready(&self, id: CloneId, first_response: Duration) {
        let _ = self.say(Command::Ready(id, first_response));
    }

    /// Tells that a clone gets no new requests; it is to be ended with [`Engine::sf_exit`].
    pub fn retire(&self, id: CloneId) {
        let _ = self.say(Command::Retire(id));
    }

    /// One of many hosts: from now on only these clone IDs are used, and so many shells are kept waiting. IDs
    /// that were used before are not used again, and shells that wait with other ones end. An engine alone
    /// uses all, and keeps what its specification says.
    ///
    /// They are in use before anything that is asked after this call; the view shows them when it has ended.
    ///
    /// # Errors
    /// The engine was shut down.
    pub fn use_ids(
        &self,
        ids: Vec<std::ops::Range<u32>>,
        shells: u32,
    ) -> impl Future<Output = Result<(), EngineError>> + Send + use<> {
        let (reply, used) = oneshot::channel();
        let said = self.say(Command::UseIds(ids, shells, reply));
        async move {
            said?;
            used.await.map_err(|_| EngineError::Stopped)
        }
    }

    /// Clones that the host has room for now: places, and available memory.
    #[must_use]
    pub fn free(&self) -> u32 {
        let (view, (limit, needed_mib)) = (self.view.borrow().clone(), self.bounds);
        let held = registry::held(view.clones.iter().map(|clone| &clone.state));
        ticket::grant(u32::MAX, Room { limit, held, available_mib: Host::available_mib(), needed_mib })
            .unwrap_or(0)
    }

    /// The numbered view, to look at or to wait for.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<Arc<View>> {
        self.view.clone()
    }

    /// Makes connections to guests.
    #[must_use]
    pub fn dialer(&self) -> Dialer {
        self.dialer.clone()
    }

    /// Which accelerator is used, and why.
    #[must_use]
    pub fn accelerator(&self) -> &Choice {
        &self.choice
    }

    /// Ends all VMs and removes all that the engine made.
    ///
    /// # Errors
    /// Something could not be removed, or the engine was shut down before.
    pub async fn shut_down(&self) -> Result<(), EngineError> {
        self.ask(Command::ShutDown).await?
    }

    async fn ask<T>(&self, command: impl FnOnce(oneshot::Sender<T>) -> Command) -> Result<T, EngineError> {
        let (reply, answer) = oneshot::channel();
        self.say(command(reply))?;
        answer.await.map_err(|_| EngineError::Stopped)
    }

    fn say(&self, command: Command) -> Result<(), EngineError> {
        self.events.send(Event::Command(command)).map_err(|_| EngineError::Stopped)
    }
}

/// An error with its causes, on one line.
#[must_use]
pub fn report(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
