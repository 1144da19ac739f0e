//! SFLD: its brain, the Engine of its host, and the connection with SFMD.
//!
//! SFMD may be away for as long as it likes: the Engine goes on, and SFLD tries again and again.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep, sleep_until};

use super::config::{DriverChoice, SfldConfig, VmConfig};
use super::{DaemonError, Signals};
use crate::control::{
    BetweenHosts, Created, Engine, EngineError, EngineSpec, Programs, TicketAnswer, report,
};
use crate::hosts::certificates::{Credentials, Role};
use crate::hosts::ids::{IdRange, Unique};
use crate::hosts::link::{Link, Sender, connect};
use crate::hosts::message::{CloneGoal, CloneReport, CloneWish, Made, Room, ToHost};
use crate::hosts::steward::{HostState, Input, Order, Outcome, Output, Steward};
use crate::hypervisor::plain::Plain;
use crate::hypervisor::qemu::{Accelerator, Choice, Wish};
use crate::hypervisor::{BootImage, Machine};

/// Between two tries to reach SFMD.
const RETRY: Duration = Duration::from_millis(500);
/// Events that wait for the brain; then readers wait.
const EVENTS: usize = 256;
/// A guest that boots, or that takes its identity, gets so long.
const BOOT_LIMIT: Duration = Duration::from_secs(120);
const IDENTITY_LIMIT: Duration = Duration::from_secs(10);
const HOOK_LIMIT: Duration = Duration::from_secs(2);
/// Memory that a clone is reckoned with beside a quarter of its guest's: the hypervisor itself.
const HYPERVISOR_MIB: u64 = 64;

/// What other tasks tell the one with the brain.
enum Event {
    Connected(Sender),
    Said(ToHost),
    Disconnected,
    Done(Outcome),
}

/// Runs SFLD until SIGTERM or SIGINT; then its VMs end, and nothing is left of them.
///
/// # Errors
/// It cannot start, or something could not be removed.
pub async fn run(config: &SfldConfig) -> Result<(), DaemonError> {
    let mut signals = Signals::new()?;
    let credentials = Credentials::load(&config.certificates)?;
    match credentials.role()? {
        Role::Host(_) => {}
        found => return Err(DaemonError::Role { found, wanted: "a host" }),
    }
    let tls = credentials.client()?;
    let instance = Unique::fresh().map_err(DaemonError::system("name this run"))?;
    let for_start = config.clone();
    let engine = tokio::task::spawn_blocking(move || start_engine(&for_start)).await;
    let engine = engine.map_err(std::io::Error::other).map_err(DaemonError::system("start the engine"))??;
    let booted = tokio::select! {
        booted = boot(&engine, config.vm.parent) => booted.map(|()| true),
        () = signals.stop_asked_for() => Ok(false),
    };
    if let Ok(true) = booted {
        tracing::info!(sfmd = %config.sfmd, parent = config.vm.parent, "this host is ready");
        let sfld = Sfld::new(engine.clone(), config, instance);
        tokio::select! {
            () = sfld.run(config.sfmd, tls) => {}
            () = signals.stop_asked_for() => tracing::info!("stopping: all VMs end"),
        }
    }
    let cleaned = engine.shut_down().await;
    booted?;
    Ok(cleaned?)
}

/// Boots the parent, if this host has one.
async fn boot(engine: &Engine, parent: bool) -> Result<(), EngineError> {
    if parent { engine.boot().await } else { Ok(()) }
}

fn start_engine(config: &SfldConfig) -> Result<Engine, DaemonError> {
    let vm = &config.vm;
    let plain = vm.driver == DriverChoice::Plain;
    let programs = if plain { Programs::find_without_qemu()? } else { Programs::find()? };
    let spec = EngineSpec {
        name: vm.name.as_str().to_owned(),
        machine: Machine { memory_mib: vm.memory_mib, vcpus: vm.vcpus },
        image: BootImage {
            kernel: vm.kernel.clone(),
            initrd: vm.initrd.clone(),
            cmdline: vm.cmdline.clone(),
            disk: vm.disk.clone(),
            disk_format: vm.disk_format.clone(),
            disk_bytes: vm.disk_bytes,
        },
        block: vm.network.parse().map_err(|error| DaemonError::Config(format!("vm.network: {error}")))?,
        accelerator: Wish::Auto,
        // Shells have clone IDs, which SFMD leases.
        shells: 0,
        max_clones: vm.max_clones,
        clone_mib: clone_mib(vm),
        state_folder: vm.state_dir.clone(),
        boot_limit: BOOT_LIMIT,
        identity_limit: IDENTITY_LIMIT,
        hook_limit: HOOK_LIMIT,
        guest_clones: 0,
        programs,
        between: config.between_hosts.as_ref().map(|between| BetweenHosts {
            address: between.address,
            group: between.group,
            parent: vm.parent,
            fill: between.fill,
        }),
    };
    if !plain {
        return Ok(Engine::start(spec)?);
    }
    Ok(Engine::start_on(spec, |spec, folder| {
        let program = spec.programs.memtap.with_file_name("flurry-plain-vm");
        let memory_bytes = spec.machine.memory_bytes();
        let plain = Plain { program, memory_bytes, folder: folder.to_owned(), user: None };
        let choice = Choice { accelerator: Accelerator::Tcg, reason: "plain memory".into() };
        Ok((Box::new(plain), choice))
    })?)
}

fn clone_mib(vm: &VmConfig) -> u64 {
    u64::from(vm.memory_mib) / 4 + HYPERVISOR_MIB
}

/// The one task with the brain.
struct Sfld {
    engine: Engine,
    steward: Steward,
    began: Instant,
    shells: u32,
    max_clones: u32,
    shares: bool,
    events: mpsc::Sender<Event>,
    inbox: mpsc::Receiver<Event>,
    line: Option<Sender>,
    /// Ends the present connection's reader.
    hang_up: mpsc::Sender<()>,
}

impl Sfld {
    fn new(engine: Engine, config: &SfldConfig, instance: Unique) -> Self {
        let (events, inbox) = mpsc::channel(EVENTS);
        Self {
            engine,
            steward: Steward::new(instance),
            began: Instant::now(),
            shells: config.vm.shells,
            max_clones: config.vm.max_clones,
            shares: config.between_hosts.is_some(),
            events,
            inbox,
            line: None,
            hang_up: mpsc::channel(1).0,
        }
    }

    async fn run(mut self, to: SocketAddr, tls: Arc<ClientConfig>) {
        let (hang_up, hung_up) = mpsc::channel(1);
        self.hang_up = hang_up;
        let events = self.events.clone();
        tokio::select! {
            () = keep_connected(to, tls, events, hung_up) => {}
            () = self.obey() => {}
        }
    }

    async fn obey(&mut self) {
        let mut view = self.engine.view();
        self.take(Input::Shows(self.shows())).await;
        loop {
            let wake = self.steward.poll_timeout().map(|at| self.began + at);
            let sleep = async {
                match wake {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let input = tokio::select! {
                event = self.inbox.recv() => match event {
                    Some(event) => self.input(event),
                    None => return,
                },
                changed = view.changed() => match changed {
                    Ok(()) => Input::Shows(self.shows()),
                    Err(_) => return,
                },
                () = sleep => Input::Timeout,
            };
            self.take(input).await;
        }
    }

    fn input(&mut self, event: Event) -> Input {
        match event {
            Event::Connected(line) => {
                self.line = Some(line);
                Input::Connected
            }
            Event::Said(message) => Input::Said(message),
            Event::Disconnected => {
                self.line = None;
                Input::Disconnected
            }
            Event::Done(outcome) => Input::Done(outcome, self.shows()),
        }
    }

    async fn take(&mut self, input: Input) {
        self.steward.handle(self.began.elapsed(), input);
        while let Some(output) = self.steward.poll_output() {
            match output {
                Output::Say(message) => {
                    if let Some(line) = &mut self.line
                        && let Err(error) = line.send(&message).await
                    {
                        tracing::warn!("{}", report(&error));
                        self.drop_line();
                    }
                }
                Output::HangUp(why) => {
                    tracing::warn!("{why}");
                    self.drop_line();
                }
                Output::Order(order) => self.order(order),
            }
        }
    }

    fn drop_line(&mut self) {
        self.line = None;
        let _ = self.hang_up.try_send(());
    }

    /// What the Engine has now.
    fn shows(&self) -> HostState {
        let view = self.engine.view().borrow().clone();
        let clones = view.clones.iter();
        HostState {
            room: Room { limit: self.max_clones, free: self.engine.free(), ids: view.ids_left.unwrap_or(0) },
            parent: view.parent.as_ref().map(|parent| parent.state.clone()),
            shares: self.shares,
            checkpoints: view.checkpoints.iter().map(|checkpoint| checkpoint.id).collect(),
            clones: clones
                .map(|clone| CloneReport { clone: clone.id, state: clone.state.clone(), ipv4: clone.ip })
                .collect(),
        }
    }

    /// Has the Engine do something; a task of its own tells what came of it.
    fn order(&self, order: Order) {
        let engine = self.engine.clone();
        let events = self.events.clone();
        match order {
            Order::Advance(wish) => return advance(engine, &wish),
            Order::UseIds(ids) => {
                let range = |ids: IdRange| ids.first..ids.first.saturating_add(ids.count);
                let used = engine.use_ids(ids.into_iter().map(range).collect(), self.shells);
                tokio::spawn(async move {
                    if used.await.is_ok() {
                        let _ = events.send(Event::Done(Outcome::UsesIds)).await;
                    }
                });
                return;
            }
            Order::Hold(checkpoints) => return engine.hold(checkpoints.into_iter().collect()),
            Order::Release(checkpoint) => return engine.release(checkpoint),
            _ => {}
        }
        tokio::spawn(async move {
            if let Some(outcome) = carry_out(&engine, order).await {
                let _ = events.send(Event::Done(outcome)).await;
            }
        });
    }
}

fn advance(engine: Engine, wish: &CloneWish) {
    let clone = wish.clone;
    match wish.goal {
        CloneGoal::Ready { first_response_ms } => {
            engine.ready(clone, Duration::from_millis(first_response_ms.into()));
        }
        CloneGoal::Retiring => engine.retire(clone),
        CloneGoal::Gone => {
            tokio::spawn(async move { engine.sf_exit(clone).await });
        }
    }
}

async fn carry_out(engine: &Engine, order: Order) -> Option<Outcome> {
    match order {
        Order::Ticket(ticket, clones) => {
            let answer = match engine.sf_request_ticket(clones).await {
                Ok(TicketAnswer::Granted(granted)) => Ok((granted.id, granted.clones)),
                Ok(TicketAnswer::Refused(refusal)) => Err(refusal.to_string()),
                Err(error) => Err(report(&error)),
            };
            Some(Outcome::Ticket(ticket, answer))
        }
        Order::Checkpoint(checkpoint) => {
            let answer = engine.sf_checkpoint_parent().await.map_err(|error| report(&error));
            Some(Outcome::Checkpoint(checkpoint, answer))
        }
        Order::Create(ticket, local, from) => {
            let answer = engine.sf_create_clones(local, from).await;
            let made = |created: Created| Made { joined: created.joined, failed: created.failed };
            Some(Outcome::Created(ticket, answer.map(made).map_err(|error| report(&error))))
        }
        Order::Kill(ticket, local) => {
            if let Err(error) = engine.sf_kill(local).await {
                tracing::debug!(%ticket, "nothing to end: {}", report(&error));
            }
            Some(Outcome::Killed(ticket))
        }
        Order::Export(checkpoint, local) => {
            let answer = engine.export(local).await.map(Arc::new).map_err(|error| report(&error));
            Some(Outcome::Exported(checkpoint, answer))
        }
        Order::Import(checkpoint, from, parcel) => {
            let answer = engine.import(parcel).await.map_err(|error| report(&error));
            Some(Outcome::Imported(checkpoint, from, answer))
        }
        Order::UseIds(_) | Order::Advance(_) | Order::Hold(_) | Order::Release(_) => None,
    }
}

/// Connects, reads until the connection ends or is given up, and again.
async fn keep_connected(
    to: SocketAddr,
    tls: Arc<ClientConfig>,
    events: mpsc::Sender<Event>,
    mut hung_up: mpsc::Receiver<()>,
) {
    let mut complained = false;
    loop {
        match connect(to, Arc::clone(&tls)).await {
            Ok(Link { mut receiver, sender }) => {
                complained = false;
                while hung_up.try_recv().is_ok() {}
                let _ = events.send(Event::Connected(sender)).await;
                loop {
                    let received = tokio::select! {
                        received = receiver.receive::<ToHost>() => received,
                        _ = hung_up.recv() => break,
                    };
                    match received {
                        Ok(Some(message)) => drop(events.send(Event::Said(message)).await),
                        Ok(None) => break,
                        Err(error) => {
                            tracing::warn!("{}", report(&error));
                            break;
                        }
                    }
                }
                let _ = events.send(Event::Disconnected).await;
            }
            // Once is enough while it stays away.
            Err(error) if !complained => {
                tracing::warn!("{}; trying again until it is there", report(&error));
                complained = true;
            }
            Err(_) => {}
        }
        sleep(RETRY).await;
    }
}
