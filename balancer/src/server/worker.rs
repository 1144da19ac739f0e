//! A worker: one thread with a runtime of its own, its own listening sockets, its own
//! connections to backends.
//!
//! Why not one runtime over all threads: a request then moves between threads, its
//! wake-ups go through shared queues, and every piece of state needs locks. Here a
//! request is served start to end by the thread that accepted its connection; what
//! threads share are the plan, the backends' counts, the pools' snapshots, and the line
//! of those who wait. The kernel spreads connections over the workers' sockets
//! (SO_REUSEPORT); a unix socket is one that all of them accept from.

use std::cell::{Cell, RefCell};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::{ArcSwap, Cache};
use hyper::server::conn::{http1, http2};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, mpsc, watch};

use super::connection::{self, STOP_GRACE};
use super::entrance::Entrance;
use super::http2::ThisThread;
use super::listen::Listening;
use super::parking::Parking;
use crate::account::Account;
use crate::load::WorkerCounters;
use crate::net::Address;
use crate::net::Raw;
use crate::pool::{Pool, Rng, any_changed};
use crate::proxy::{IdleConnections, RetryBudget};
use crate::route::Plan;

/// How often idle connections to backends are looked over.
const SWEEP: Duration = Duration::from_secs(1);
/// Tasks that are polled before the kernel is asked for events, if there are as many.
const TASKS_PER_LOOK: u32 = 256;
/// The wait after an accept that failed for want of descriptors or memory.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What a worker is told while it runs.
pub(crate) enum Command {
    /// Accept from this socket.
    Listen(Address, Listening, Arc<ArcSwap<Entrance>>),
    /// Accept no more from the socket of this address; its connections go on.
    Close(Address),
}

/// What a worker is started with.
pub(crate) struct WorkerSeed {
    pub(crate) index: usize,
    pub(crate) workers: usize,
    pub(crate) commands: mpsc::UnboundedReceiver<Command>,
    pub(crate) plan: Arc<ArcSwap<Plan>>,
    pub(crate) counters: Arc<WorkerCounters>,
    pub(crate) stop: watch::Receiver<bool>,
}

/// The state of one worker; it never leaves its thread.
pub(crate) struct Worker {
    pub(crate) index: usize,
    plan: RefCell<Cache<Arc<ArcSwap<Plan>>, Arc<Plan>>>,
    pub(crate) idle: RefCell<IdleConnections>,
    pub(crate) rng: RefCell<Rng>,
    pub(crate) budget: RefCell<RetryBudget>,
    pub(crate) counters: Arc<WorkerCounters>,
    pub(crate) http1: http1::Builder,
    pub(crate) http2: http2::Builder<ThisThread>,
    pub(crate) stopping: Cell<bool>,
    pub(crate) stop: Notify,
    /// Connections without a request.
    pub(crate) parking: Parking,
    /// Whether connections gave memory back since the last look.
    pub(crate) memory_freed: Cell<bool>,
    open: Cell<usize>,
    emptied: Notify,
}

impl Worker {
    fn new(seed: &WorkerSeed) -> Self {
        Self {
            index: seed.index,
            plan: RefCell::new(Cache::new(Arc::clone(&seed.plan))),
            idle: RefCell::default(),
            rng: RefCell::new(Rng::new(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed.index as u64 + 1))),
            budget: RefCell::new(RetryBudget::share_of(seed.workers, Instant::now())),
            counters: Arc::clone(&seed.counters),
            http1: connection::builder(),
            http2: super::http2::builder(),
            stopping: Cell::new(false),
            stop: Notify::new(),
            parking: Parking::default(),
            memory_freed: Cell::new(false),
            open: Cell::new(0),
            emptied: Notify::new(),
        }
    }

    /// The plan as it is now.
    #[inline]
    pub(crate) fn plan(&self) -> Arc<Plan> {
        Arc::clone(self.plan.borrow_mut().load())
    }

    /// Who wants an account of each request, if anybody does.
    #[inline]
    pub(crate) fn account(&self) -> Option<Arc<Account>> {
        self.plan.borrow_mut().load().account.clone()
    }

    fn begin_stop(&self) {
        self.stopping.set(true);
        self.stop.notify_waiters();
        self.parking.hurry(Instant::now() + STOP_GRACE);
    }

    async fn all_closed(&self) {
        while self.open.get() > 0 {
            self.emptied.notified().await;
        }
    }
}

/// Counts a connection as open for as long as it lives.
pub(crate) struct Open(Rc<Worker>);

impl Open {
    fn new(worker: &Rc<Worker>) -> Self {
        worker.open.set(worker.open.get() + 1);
        worker.counters.accepted.bump();
        worker.counters.open.bump();
        Self(Rc::clone(worker))
    }

    /// Whose connection it is.
    pub(crate) fn worker(&self) -> &Rc<Worker> {
        &self.0
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.0.open.set(self.0.open.get() - 1);
        self.0.counters.open.drop_one();
        if self.0.open.get() == 0 {
            self.0.emptied.notify_one();
        }
    }
}

/// How a worker ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WorkerEnd {
    /// Connections that were still busy at the deadline, and were cut.
    pub(crate) cut: usize,
}

/// Runs a worker on this thread until it was told to stop and has drained.
pub(crate) fn run(seed: WorkerSeed) -> std::io::Result<WorkerEnd> {
    let runtime = Builder::new_current_thread()
        .enable_all()
        // Looking for events more often costs system calls and finds fewer at a time.
        .event_interval(TASKS_PER_LOOK)
        .build_local(LocalOptions::default())?;
    let end = runtime.block_on(serve(seed));
    // What is still open is cut here, with the runtime.
    drop(runtime);
    Ok(end)
}

async fn serve(mut seed: WorkerSeed) -> WorkerEnd {
    let worker = Rc::new(Worker::new(&seed));
    let mut doors = Doors {
        worker: Rc::clone(&worker),
        stop: seed.stop.clone(),
        open: Vec::new(),
        accepting: Vec::new(),
    };
    let sweeping = tokio::task::spawn_local(sweep(Rc::clone(&worker)));
    let watching = tokio::task::spawn_local(watch_parked(Rc::clone(&worker)));
    loop {
        tokio::select! {
            biased;
            // A sender that is gone means the same as a stop.
            _ = seed.stop.wait_for(|stop| *stop) => break,
            Some(command) = seed.commands.recv() => doors.follow(command),
        }
    }
    for task in doors.accepting {
        // An accept loop ends by itself now; it cannot fail.
        let _ = task.await;
    }
    worker.begin_stop();
    let drained = tokio::time::timeout(worker.plan().timeouts.drain, worker.all_closed()).await;
    sweeping.abort();
    watching.abort();
    WorkerEnd { cut: if drained.is_ok() { 0 } else { worker.open.get() } }
}

/// A listening socket on this worker's runtime.
enum Accepting {
    Tcp(tokio::net::TcpListener),
    Unix(tokio::net::UnixListener),
}

impl Accepting {
    async fn accept(&self) -> std::io::Result<(Raw, Option<SocketAddr>)> {
        match self {
            Self::Tcp(listener) => {
                listener.accept().await.map(|(stream, peer)| (Raw::Tcp(stream), Some(peer)))
            }
            Self::Unix(listener) => listener.accept().await.map(|(stream, _)| (Raw::Unix(stream), None)),
        }
    }

    /// What the kernel has already accepted for us. It is asked itself: the runtime may not have heard
    /// of it yet.
    fn rest(self) -> std::io::Result<Vec<(Raw, Option<SocketAddr>)>> {
        let mut rest = Vec::new();
        match self {
            Self::Tcp(listener) => {
                let listener = listener.into_std()?;
                while let Some((stream, peer)) = accepted(|| listener.accept()) {
                    stream.set_nonblocking(true)?;
                    rest.push((Raw::Tcp(tokio::net::TcpStream::from_std(stream)?), Some(peer)));
                }
            }
            Self::Unix(listener) => {
                let listener = listener.into_std()?;
                while let Some((stream, _)) = accepted(|| listener.accept()) {
                    stream.set_nonblocking(true)?;
                    rest.push((Raw::Unix(tokio::net::UnixStream::from_std(stream)?), None));
                }
            }
        }
        Ok(rest)
    }
}

/// The next connection that the kernel has; one that went away meanwhile is passed over.
fn accepted<T>(mut accept: impl FnMut() -> std::io::Result<T>) -> Option<T> {
    loop {
        match accept() {
            Ok(connection) => return Some(connection),
            Err(error) if matches!(error.kind(), ErrorKind::ConnectionAborted | ErrorKind::Interrupted) => {}
            Err(_) => return None,
        }
    }
}

/// A socket, and what becomes of the connections it accepts.
struct Doorway {
    accepting: Accepting,
    entrance: Arc<ArcSwap<Entrance>>,
    closed: Rc<Notify>,
}

impl Doorway {
    fn new(
        listener: Listening,
        entrance: Arc<ArcSwap<Entrance>>,
        closed: Rc<Notify>,
    ) -> std::io::Result<Self> {
        let accepting = match listener {
            Listening::Tcp(listener) => Accepting::Tcp(tokio::net::TcpListener::from_std(listener)?),
            Listening::Unix(listener) => Accepting::Unix(tokio::net::UnixListener::from_std(listener)?),
        };
        Ok(Self { accepting, entrance, closed })
    }
}

/// The sockets that a worker accepts from.
struct Doors {
    worker: Rc<Worker>,
    stop: watch::Receiver<bool>,
    open: Vec<(Address, Rc<Notify>)>,
    accepting: Vec<tokio::task::JoinHandle<()>>,
}

impl Doors {
    fn follow(&mut self, command: Command) {
        self.accepting.retain(|task| !task.is_finished());
        match command {
            Command::Listen(address, listener, entrance) => {
                let closed = Rc::new(Notify::new());
                match Doorway::new(listener, entrance, Rc::clone(&closed)) {
                    Ok(door) => {
                        let accepting = accept(door, Rc::clone(&self.worker), self.stop.clone());
                        self.accepting.push(tokio::task::spawn_local(accepting));
                        self.open.push((address, closed));
                    }
                    // The other listeners and the connections that there are go on.
                    Err(error) => tracing::error!(%address, %error, "a worker cannot listen"),
                }
            }
            Command::Close(address) => {
                let (gone, open) = std::mem::take(&mut self.open).into_iter().partition(|it| it.0 == address);
                self.open = open;
                let gone: Vec<(Address, Rc<Notify>)> = gone;
                gone.iter().for_each(|(_, closed)| closed.notify_one());
            }
        }
    }
}

/// Accepts until the stop, then takes what the kernel has already accepted for us.
async fn accept(door: Doorway, worker: Rc<Worker>, mut stop: watch::Receiver<bool>) {
    let Doorway { accepting, entrance, closed } = door;
    let start = |(stream, peer)| {
        let open = Open::new(&worker);
        tokio::task::spawn_local(connection::serve(stream, peer, entrance.load_full(), open));
    };
    loop {
        tokio::select! {
            biased;
            _ = stop.wait_for(|stop| *stop) => break,
            () = closed.notified() => break,
            accepted = accepting.accept() => match accepted {
                Ok(accepted) => start(accepted),
                Err(error) => accept_failed(&error).await,
            },
        }
    }
    match accepting.rest() {
        Ok(rest) => rest.into_iter().for_each(start),
        Err(error) => tracing::warn!(%error, "cannot take the last connections of a listener"),
    }
}

async fn accept_failed(error: &std::io::Error) {
    if crate::pool::is_local(error) {
        tracing::warn!(%error, "cannot accept connections for now");
        tokio::time::sleep(ACCEPT_PAUSE).await;
    } else {
        // The client was faster in going than we in coming.
        tracing::debug!(%error, "a connection went away before it was accepted");
    }
}

/// Ends the wait of connections that have been without a request for too long.
async fn watch_parked(worker: Rc<Worker>) {
    loop {
        let tick = match worker.stopping.get() {
            true => STOP_GRACE / 4,
            false => worker.plan().tick,
        };
        tokio::select! {
            () = tokio::time::sleep(tick) => {}
            () = worker.stop.notified() => {}
        }
        worker.parking.look(Instant::now());
    }
}

/// Closes idle connections to backends that are gone, or have been idle too long.
async fn sweep(worker: Rc<Worker>) {
    loop {
        let plan = worker.plan();
        let mut changes: Vec<_> = plan.pools().into_iter().map(Pool::changes).collect();
        let snapshots: Vec<_> = plan.pools().into_iter().map(Pool::snapshot).collect();
        if worker.memory_freed.take() {
            crate::sys::give_back_freed_memory();
        }
        let is_known = |serial| snapshots.iter().any(|snapshot| snapshot.has(serial));
        worker.idle.borrow_mut().sweep(is_known, plan.timeouts.idle, Instant::now());
        tokio::select! {
            () = tokio::time::sleep(SWEEP) => {}
            () = any_changed(&mut changes) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_the_kernel_has_accepted_is_taken_before_the_runtime_hears_of_it() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = Accepting::Tcp(tokio::net::TcpListener::from_std(listener).unwrap());
        let clients = [(); 3].map(|()| std::net::TcpStream::connect(address).unwrap());
        let rest = accepting.rest().unwrap();
        let peers: Vec<_> = rest.iter().filter_map(|(_, peer)| *peer).collect();
        assert_eq!(peers, clients.map(|client| client.local_addr().unwrap()));
    }
}
