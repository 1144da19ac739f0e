//! The data plane's outside: sockets, threads, connections of clients, and their end.
//!
//!   accept -> entrance (PROXY header, TLS) -> guard (framing) -> hyper -> proxy::Door -> backend
//!
//! Not here: what happens to a request (see [`crate::proxy`]).

mod connection;
mod entrance;
pub mod framing;
mod guard;
mod http2;
mod listen;
mod proxied;
mod session;
mod tunnel;
mod worker;

use std::io;
use std::sync::Arc;
use std::thread;

use tokio::sync::{oneshot, watch};

pub(crate) use http2::ThisThread;
pub use listen::{BindError, ListenerSettings, Listening, bind_alone, bind_shared};
pub use proxied::ProxyProtocol;
pub use session::Timeouts;
pub(crate) use session::{Client, Expired, Session};
pub(crate) use tunnel::Tunnel;
pub use worker::DataPlaneSettings;
pub(crate) use worker::Worker;
use worker::{WorkerEnd, WorkerSeed};

use entrance::Entrance;

use crate::load::Load;
use crate::net::Address;
use crate::pool::Pool;
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
    addresses: Vec<Address>,
    stop: watch::Sender<bool>,
    ends: Vec<oneshot::Receiver<io::Result<WorkerEnd>>>,
}

/// How the data plane ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stopped {
    /// Connections that were busy beyond the drain deadline, and were cut.
    pub cut: usize,
}

impl DataPlane {
    /// Listens on all addresses and starts one worker per set of counters in `load`.
    /// Requests are accepted from here on; without a ready backend they wait in the queue.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running then.
    pub fn start(
        listen: &[ListenerSettings],
        pool: &Pool,
        load: &Load,
        settings: &DataPlaneSettings,
    ) -> Result<Self, StartError> {
        let workers = load.workers();
        let mut sockets: Vec<Vec<_>> = (0..workers).map(|_| Vec::new()).collect();
        let mut addresses = Vec::new();
        for (index, listener) in listen.iter().enumerate() {
            let key = format!("listen[{index}]");
            let entrance = Entrance::new(listener, Arc::clone(&settings.trusted_proxies))
                .map_err(|source| StartError::Tls { key: key.clone(), source })?;
            let shared = bind_shared(&key, &listener.address, workers)?;
            addresses.extend(shared.first().map(|socket| socket.address(&listener.address)));
            let with_entrance = shared.into_iter().map(|socket| (socket, entrance.clone()));
            sockets.iter_mut().zip(with_entrance).for_each(|(of_worker, it)| of_worker.push(it));
        }
        let mut plane = Self { addresses, stop: watch::Sender::new(false), ends: Vec::new() };
        for (index, listeners) in sockets.into_iter().enumerate() {
            let (pool, counters) = (pool.clone(), load.worker(index));
            let (settings, stop) = (settings.clone(), plane.stop.subscribe());
            let seed = WorkerSeed { index, workers, listeners, pool, counters, settings, stop };
            plane.ends.push(spawn(seed).map_err(StartError::Thread)?);
        }
        Ok(plane)
    }

    /// The addresses that are listened on, with their real ports.
    pub fn addresses(&self) -> &[Address] {
        &self.addresses
    }

    /// Stops accepting, lets requests finish, and cuts what outlasts `timeouts.drain`.
    pub async fn stop(self) -> Stopped {
        self.stop.send_replace(true);
        let mut cut = 0;
        for end in self.ends {
            match end.await {
                Ok(Ok(end)) => cut += end.cut,
                Ok(Err(error)) => tracing::error!(%error, "a worker could not run"),
                Err(_panicked) => tracing::error!("a worker ended unexpectedly"),
            }
        }
        for address in &self.addresses {
            if let Address::Unix(path) = address {
                // A file that is gone already is what was wanted.
                let _ = std::fs::remove_file(path);
            }
        }
        Stopped { cut }
    }
}

fn spawn(seed: WorkerSeed) -> io::Result<oneshot::Receiver<io::Result<WorkerEnd>>> {
    let (end, ended) = oneshot::channel();
    thread::Builder::new().name(format!("worker-{}", seed.index)).spawn(move || {
        // Nobody listens any more only when the process is on its way out.
        let _ = end.send(worker::run(seed));
    })?;
    Ok(ended)
}
