//! The data plane's outside: sockets, threads, connections of clients, and their end.
//!
//!   accept -> entrance (PROXY header, TLS) -> guard (framing) -> hyper -> proxy::Door -> backend
//!
//! Not here: what happens to a request (see [`crate::proxy`]).

mod connection;
mod corked;
mod entrance;
pub mod framing;
mod guard;
mod http2;
mod listen;
mod pace;
mod parking;
mod proxied;
mod session;
mod tunnel;
mod worker;

use std::io;
use std::sync::Arc;
use std::thread;

use arc_swap::ArcSwap;
use ipnet::IpNet;
use tokio::sync::{mpsc, oneshot, watch};

pub(crate) use http2::ThisThread;
use listen::Sockets;
pub use listen::{BindError, ListenerSettings, Listening, bind_alone, bind_shared};
pub use proxied::ProxyProtocol;
pub use session::Timeouts;
pub(crate) use session::{Client, Expired, Session};
pub(crate) use tunnel::Tunnel;
pub(crate) use worker::Worker;
use worker::{Command, WorkerEnd, WorkerSeed};

use entrance::Entrance;

use crate::hot_restart::{Inherited, Offer};
use crate::load::Load;
use crate::net::Address;
use crate::route::Plan;
use crate::tls::TlsError;

/// Why the data plane cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// Certificates cannot be used.
    #[error("{key}.tls: {source}")]
    Tls {
        /// The key of the listener.
        key: String,
        /// What is wrong with them.
        source: TlsError,
    },
    /// A thread cannot be started.
    #[error("cannot start a worker thread: {0}")]
    Thread(#[source] io::Error),
}

/// The running data plane.
pub struct DataPlane {
    doors: Vec<Door>,
    workers: Vec<Running>,
    trusted_proxies: Arc<[IpNet]>,
    stop: watch::Sender<bool>,
}

/// A worker, seen from outside.
struct Running {
    commands: mpsc::UnboundedSender<Command>,
    end: oneshot::Receiver<io::Result<WorkerEnd>>,
}

/// A place that is listened on.
struct Door {
    settings: ListenerSettings,
    /// With its real port.
    address: Address,
    entrance: Arc<ArcSwap<Entrance>>,
    /// Its sockets once more, for a process that takes over.
    kept: Vec<Listening>,
}

/// What is about to be listened on: sockets are bound, nothing is accepted yet.
pub struct Prepared {
    /// In the order of the settings.
    doors: Vec<(Door, Option<Sockets>)>,
    trusted_proxies: Arc<[IpNet]>,
}

impl Drop for Prepared {
    /// What is not listened on after all leaves no file.
    fn drop(&mut self) {
        let is_ours = |sockets: &Option<Sockets>| sockets.as_ref().is_some_and(|it| !it.inherited);
        self.doors.iter().filter(|it| is_ours(&it.1)).for_each(|(door, _)| door.address.remove_file());
    }
}

/// How the data plane ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    /// Connections that were busy beyond the drain deadline, and were cut.
    pub cut: usize,
}

impl DataPlane {
    /// Starts one worker per set of counters in `load`. Nothing is listened on yet.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub fn start(plan: &Arc<ArcSwap<Plan>>, load: &Load) -> Result<Self, StartError> {
        let mut plane = Self {
            doors: Vec::new(),
            workers: Vec::new(),
            trusted_proxies: Arc::default(),
            stop: watch::Sender::new(false),
        };
        let workers = load.workers();
        for index in 0..workers {
            let (plan, counters) = (Arc::clone(plan), load.worker(index));
            let (sender, commands) = mpsc::unbounded_channel();
            let stop = plane.stop.subscribe();
            let seed = WorkerSeed { index, workers, commands, plan, counters, stop };
            let end = spawn(seed).map_err(StartError::Thread)?;
            plane.workers.push(Running { commands: sender, end });
        }
        Ok(plane)
    }

    /// Binds what is neither listened on yet nor inherited, and checks certificates. Changes nothing.
    ///
    /// # Errors
    /// [`StartError`] with the key of the configuration.
    pub fn prepare(
        &self,
        listen: &[ListenerSettings],
        trusted_proxies: &[IpNet],
        inherited: &mut Inherited,
    ) -> Result<Prepared, StartError> {
        let trusted_proxies: Arc<[IpNet]> = trusted_proxies.into();
        let mut prepared = Prepared { doors: Vec::new(), trusted_proxies };
        for (index, settings) in listen.iter().enumerate() {
            let key = format!("listen[{index}]");
            let door = self.prepare_one(&key, settings, &prepared.trusted_proxies, inherited)?;
            prepared.doors.push(door);
        }
        Ok(prepared)
    }

    fn prepare_one(
        &self,
        key: &str,
        settings: &ListenerSettings,
        trusted_proxies: &Arc<[IpNet]>,
        inherited: &mut Inherited,
    ) -> Result<(Door, Option<Sockets>), StartError> {
        let open = self.doors.iter().find(|door| door.settings.address == settings.address);
        let same = open.filter(|it| it.settings == *settings && self.trusted_proxies == *trusted_proxies);
        let entrance = match same {
            // Its tickets stay good.
            Some(door) => door.entrance.load_full(),
            None => Arc::new(
                Entrance::new(settings, Arc::clone(trusted_proxies))
                    .map_err(|source| StartError::Tls { key: key.to_owned(), source })?,
            ),
        };
        let entrance = Arc::new(ArcSwap::new(entrance));
        let settings = settings.clone();
        if let Some(door) = open {
            let address = door.address.clone();
            return Ok((Door { settings, address, entrance, kept: Vec::new() }, None));
        }
        let (sockets, kept) = self.sockets(key, &settings.address, inherited)?;
        let address = kept.first().map(|socket| socket.address(&settings.address));
        let address = address.unwrap_or_else(|| settings.address.clone());
        Ok((Door { settings, address, entrance, kept }, Some(sockets)))
    }

    /// The sockets of an address, and the same once more.
    fn sockets(
        &self,
        key: &str,
        address: &Address,
        inherited: &mut Inherited,
    ) -> Result<(Sockets, Vec<Listening>), BindError> {
        let workers = self.workers.len();
        let wrap = |source| BindError { key: key.to_owned(), address: address.clone(), source };
        let sockets = match inherited.take(address) {
            Some(sockets) => Sockets::inherited(sockets, workers).map_err(wrap)?,
            None => Sockets::bound(bind_shared(key, address, workers)?),
        };
        let kept = sockets.try_clone().map_err(wrap)?;
        Ok((sockets, kept))
    }

    /// Listens on what was prepared and on nothing else. Connections that were accepted
    /// elsewhere go on.
    pub fn listen(&mut self, mut prepared: Prepared) {
        self.trusted_proxies = Arc::clone(&prepared.trusted_proxies);
        let mut old = std::mem::take(&mut self.doors);
        for (mut door, sockets) in std::mem::take(&mut prepared.doors) {
            match (sockets, old.iter_mut().find(|it| it.address == door.address)) {
                (None, Some(open)) => {
                    open.entrance.store(door.entrance.load_full());
                    door.entrance = Arc::clone(&open.entrance);
                    door.kept = std::mem::take(&mut open.kept);
                }
                (sockets, _) => self.open(&door, sockets.map_or_else(Vec::new, |it| it.all)),
            }
            self.doors.push(door);
        }
        old.retain(|old| self.doors.iter().all(|door| door.address != old.address));
        for mut gone in old {
            // First, so that the workers' are the last ones, and take what waits.
            gone.kept.clear();
            self.tell(|| Command::Close(gone.address.clone()));
            gone.address.remove_file();
        }
    }

    fn open(&self, door: &Door, sockets: Vec<Listening>) {
        for (worker, socket) in self.workers.iter().cycle().zip(sockets) {
            let command = Command::Listen(door.address.clone(), socket, Arc::clone(&door.entrance));
            if worker.commands.send(command).is_err() {
                tracing::error!(address = %door.address, "a worker that has ended cannot listen");
            }
        }
    }

    fn tell(&self, command: impl Fn() -> Command) {
        for worker in &self.workers {
            let _ = worker.commands.send(command());
        }
    }

    /// The addresses that are listened on, with their real ports.
    pub fn addresses(&self) -> Vec<Address> {
        self.doors.iter().map(|door| door.address.clone()).collect()
    }

    /// Adds all sockets to what another process is offered.
    ///
    /// # Errors
    /// No free file descriptor.
    pub fn offer(&self, offer: &mut Offer) -> io::Result<()> {
        self.doors.iter().try_for_each(|door| offer.add(&door.settings.address, &door.kept))
    }

    /// Stops accepting, lets requests finish, and cuts what outlasts `timeouts.drain`. Files of unix
    /// sockets stay if somebody else listens there now.
    pub async fn stop(mut self, handed_over: bool) -> Stopped {
        for door in std::mem::take(&mut self.doors) {
            if !handed_over {
                // First, so that nobody connects to a socket that is not accepted from any more, and
                // nothing of a successor is removed later.
                door.address.remove_file();
            }
        }
        self.stop.send_replace(true);
        let mut cut = 0;
        for worker in self.workers {
            // One that died has said so when it did.
            if let Ok(Ok(end)) = worker.end.await {
                cut += end.cut;
            }
        }
        Stopped { cut }
    }
}

fn spawn(seed: WorkerSeed) -> io::Result<oneshot::Receiver<io::Result<WorkerEnd>>> {
    let (end, ended) = oneshot::channel();
    let index = seed.index;
    thread::Builder::new().name(format!("worker-{index}")).spawn(move || {
        // A panic ends the whole process, which is built so.
        let result = worker::run(seed);
        if let Err(error) = &result {
            // At once, and not only at the stop: connections to it wait for nobody.
            tracing::error!(worker = index, %error, "a worker could not run; restart flurry");
        }
        // Nobody listens any more only when the process is on its way out.
        let _ = end.send(result);
    })?;
    Ok(ended)
}
