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
pub use listen::{BindError, ListenerSettings, Listening, bind_alone, bind_shared};
pub use proxied::ProxyProtocol;
pub use session::Timeouts;
pub(crate) use session::{Client, Expired, Session};
pub(crate) use tunnel::Tunnel;
pub(crate) use worker::Worker;
use worker::{Command, WorkerEnd, WorkerSeed};

use entrance::Entrance;

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
}

/// What is about to be listened on: sockets are bound, nothing is accepted yet.
pub struct Prepared {
    /// In the order of the settings.
    doors: Vec<(Door, Option<Vec<Listening>>)>,
    trusted_proxies: Arc<[IpNet]>,
}

impl Drop for Prepared {
    /// What is not listened on after all leaves no file.
    fn drop(&mut self) {
        self.doors.iter().filter(|(_, sockets)| sockets.is_some()).for_each(|(door, _)| door.remove_file());
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

    /// Binds what is not listened on yet, and checks certificates. Changes nothing.
    ///
    /// # Errors
    /// [`StartError`] with the key of the configuration.
    pub fn prepare(
        &self,
        listen: &[ListenerSettings],
        trusted_proxies: &[IpNet],
    ) -> Result<Prepared, StartError> {
        let trusted_proxies: Arc<[IpNet]> = trusted_proxies.into();
        let mut prepared = Prepared { doors: Vec::new(), trusted_proxies };
        for (index, settings) in listen.iter().enumerate() {
            let key = format!("listen[{index}]");
            let door = self.prepare_one(&key, settings, &prepared.trusted_proxies)?;
            prepared.doors.push(door);
        }
        Ok(prepared)
    }

    fn prepare_one(
        &self,
        key: &str,
        settings: &ListenerSettings,
        trusted_proxies: &Arc<[IpNet]>,
    ) -> Result<(Door, Option<Vec<Listening>>), StartError> {
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
        let (address, sockets) = match open {
            Some(door) => (door.address.clone(), None),
            None => {
                let sockets = bind_shared(key, &settings.address, self.workers.len())?;
                let address = sockets.first().map(|socket| socket.address(&settings.address));
                (address.unwrap_or_else(|| settings.address.clone()), Some(sockets))
            }
        };
        Ok((Door { settings: settings.clone(), address, entrance }, sockets))
    }

    /// Listens on what was prepared and on nothing else. Connections that were accepted
    /// elsewhere go on.
    pub fn listen(&mut self, mut prepared: Prepared) {
        self.trusted_proxies = Arc::clone(&prepared.trusted_proxies);
        let old = std::mem::take(&mut self.doors);
        for (mut door, sockets) in std::mem::take(&mut prepared.doors) {
            match (sockets, old.iter().find(|it| it.address == door.address)) {
                (None, Some(open)) => {
                    open.entrance.store(door.entrance.load_full());
                    door.entrance = Arc::clone(&open.entrance);
                }
                (sockets, _) => self.open(&door, sockets.unwrap_or_default()),
            }
            self.doors.push(door);
        }
        for gone in old.iter().filter(|old| self.doors.iter().all(|door| door.address != old.address)) {
            self.tell(|| Command::Close(gone.address.clone()));
            gone.remove_file();
        }
    }

    fn open(&self, door: &Door, sockets: Vec<Listening>) {
        for (worker, socket) in self.workers.iter().zip(sockets) {
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

    /// Stops accepting, lets requests finish, and cuts what outlasts `timeouts.drain`.
    pub async fn stop(self) -> Stopped {
        // First, so that nobody connects to a socket that is not accepted from any more, and nothing
        // of a successor is removed later.
        self.doors.iter().for_each(Door::remove_file);
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

impl Door {
    /// The file of a unix socket goes with it.
    fn remove_file(&self) {
        if let Address::Unix(path) = &self.address {
            // A file that is gone already is what was wanted.
            let _ = std::fs::remove_file(path);
        }
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
