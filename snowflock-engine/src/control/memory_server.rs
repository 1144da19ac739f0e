//! A memory process that is replaced when it dies.
//!
//! What its successor must know is kept here: the frozen view it serves, the
//! guests, their live checkpoints, and what it gives to other hosts. Guests only notice a pause.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io;
use std::net::SocketAddrV4;
use std::path::PathBuf;
use std::process::Child;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::hypervisor::{HypervisorError, MemoryAccess};
use crate::mcdist::distributor::DistributorConfig;
use crate::mcdist::fetcher::FetcherConfig;
use crate::mcdist::seal::DistributionId;
use crate::memory::PageIndex;
use crate::memory::frozen::FrozenView;
use crate::memory::image::Image;
use crate::memory::layers::{DiskCopy, Layers};
use crate::memory::protocol::{CheckpointId, GuestId, Stats};
use crate::memory::remote::{MemoryError, MemoryProcess};
use crate::memory::supply::Supply;
use crate::network::identity::CloneId;
use crate::sys::process::{ProcessIdentity, set_niceness};

/// Why guest memory is not served.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// The memory process failed, and its successor too.
    #[error("guest memory is not served")]
    Memory(#[from] MemoryError),
    /// The VM does not give its memory.
    #[error("guest memory cannot be reached")]
    Access(#[from] HypervisorError),
    /// No free file descriptor, or no log.
    #[error("a memory process cannot be prepared")]
    System(#[from] io::Error),
}

/// A guest waits for each fault, which takes microseconds: they go before whatever else the host does.
const NICENESS: i32 = -15;

/// A process that hangs has gone this long after it was killed.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// A checkpoint of another host: where its pages come from, and where they go.
#[derive(Debug)]
pub struct RemoteView {
    /// The image that the clones of this checkpoint map.
    pub image: Image,
    /// The copy of its disk.
    pub disk: DiskCopy,
    /// How they are fetched.
    pub from: FetcherConfig,
}

/// What a process is told before anything else.
enum Serves {
    /// A memserver: the writes of guests, nothing else.
    Writes,
    Frozen(FrozenView),
    Remote(RemoteView),
}

/// A memserver, or a memtap with the view that it serves.
pub struct MemoryServer {
    program: PathBuf,
    /// State folder of the engine.
    folder: PathBuf,
    serves: Serves,
    inner: Mutex<Inner>,
    replaced: AtomicU64,
    /// No successor any more: the engine ends.
    closing: AtomicBool,
}

struct Inner {
    process: Arc<MemoryProcess>,
    /// None if it had ended before it was looked at.
    identity: Option<ProcessIdentity>,
    guests: BTreeMap<CloneId, Guest>,
    distributions: Vec<Distribution>,
}

/// Pages that other hosts get.
struct Distribution {
    view: FrozenView,
    disk: Layers,
    to: DistributorConfig,
}

struct Guest {
    access: Arc<dyn MemoryAccess>,
    checkpoints: Vec<(CheckpointId, Image)>,
}

impl std::fmt::Debug for MemoryServer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("MemoryServer").field("pid", &self.pid()).finish_non_exhaustive()
    }
}

impl MemoryServer {
    /// Starts `program` for the engine with this state folder; with a view it is a memtap.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub fn start(
        program: PathBuf,
        folder: PathBuf,
        view: Option<FrozenView>,
    ) -> Result<Arc<Self>, ServerError> {
        Self::serve(program, folder, view.map_or(Serves::Writes, Serves::Frozen))
    }

    /// Starts a memtap for a checkpoint of another host.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub fn start_remote(
        program: PathBuf,
        folder: PathBuf,
        view: RemoteView,
    ) -> Result<Arc<Self>, ServerError> {
        Self::serve(program, folder, Serves::Remote(view))
    }

    fn serve(program: PathBuf, folder: PathBuf, serves: Serves) -> Result<Arc<Self>, ServerError> {
        let (process, child) = spawn(&program, &folder, &serves, false)?;
        let (process, guests) = (Arc::new(process), BTreeMap::new());
        let identity = ProcessIdentity::of(process.pid());
        let inner = Mutex::new(Inner { process, identity, guests, distributions: Vec::new() });
        let server = Arc::new(Self {
            program,
            folder,
            serves,
            inner,
            replaced: AtomicU64::new(0),
            closing: AtomicBool::new(false),
        });
        server.watch(child);
        Ok(server)
    }

    /// Serves this guest's faults from now on.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub fn add_guest(
        self: &Arc<Self>,
        id: CloneId,
        access: Arc<dyn MemoryAccess>,
    ) -> Result<(), ServerError> {
        let memory = access.hand_over()?;
        self.call(|process| process.add_guest(&memory, &[]))?;
        self.lock().guests.insert(id, Guest { access, checkpoints: Vec::new() });
        Ok(())
    }

    /// The guest is gone, or will be at once.
    pub fn remove_guest(self: &Arc<Self>, id: CloneId) {
        if self.lock().guests.remove(&id).is_some()
            && let Err(error) = self.call(|process| process.remove_guest(GuestId(id.0)))
        {
            tracing::debug!(%error, vm = %id, "a memory process keeps a guest that is gone");
        }
    }

    /// Freezes the memory of a paused guest into `image`; returns the time it took.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub fn freeze(
        self: &Arc<Self>,
        id: CloneId,
        checkpoint: CheckpointId,
        image: &Image,
    ) -> Result<Duration, ServerError> {
        let ours = image.duplicate()?;
        let took = self.call(|process| process.freeze(GuestId(id.0), checkpoint, image))?;
        if let Some(guest) = self.lock().guests.get_mut(&id) {
            guest.checkpoints.push((checkpoint, ours));
        }
        Ok(took)
    }

    /// Ends a checkpoint of a guest.
    pub fn thaw(self: &Arc<Self>, id: CloneId, checkpoint: CheckpointId) {
        if let Some(guest) = self.lock().guests.get_mut(&id) {
            guest.checkpoints.retain(|(other, _)| *other != checkpoint);
        }
        if let Err(error) = self.call(|process| process.thaw(GuestId(id.0), checkpoint)) {
            tracing::warn!(%error, vm = %id, "a checkpoint goes on to cost write faults");
        }
    }

    /// Gives the pages of a frozen view and disk to other hosts, which find them at the address that is
    /// returned, also after this process was replaced.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub fn distribute(
        self: &Arc<Self>,
        view: FrozenView,
        disk: Layers,
        to: DistributorConfig,
    ) -> Result<SocketAddrV4, ServerError> {
        let address = self.call(|process| process.distribute(&view, &disk, &to))?;
        let to = DistributorConfig { address, ..to };
        self.lock().distributions.push(Distribution { view, disk, to });
        Ok(address)
    }

    /// Gives them no longer.
    pub fn end_distribution(self: &Arc<Self>, distribution: DistributionId) {
        self.lock().distributions.retain(|other| other.to.distribution != distribution);
        if let Err(error) = self.call(|process| process.end_distribution(distribution)) {
            tracing::debug!(%error, "a memory process distributes what is not needed any more");
        }
    }

    /// Fetches pages ahead of their faults; returns how many were new.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub fn prefetch(self: &Arc<Self>, pages: &[PageIndex]) -> Result<u32, ServerError> {
        self.call(|process| process.prefetch(pages))
    }

    /// Fetches all absent pages, so that the frozen VM may end.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub fn complete(self: &Arc<Self>) -> Result<u32, ServerError> {
        self.call(MemoryProcess::complete)
    }

    /// Whether missing pages still come.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub fn supply(self: &Arc<Self>) -> Result<Supply, ServerError> {
        self.call(MemoryProcess::supply)
    }

    /// The pages touched so far, in order; ends the record.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub fn take_record(self: &Arc<Self>) -> Result<Vec<PageIndex>, ServerError> {
        self.call(MemoryProcess::take_record)
    }

    /// Counters since the start of the process that serves now.
    ///
    /// # Errors
    /// See [`ServerError`].
    pub fn stats(self: &Arc<Self>) -> Result<Stats, ServerError> {
        self.call(MemoryProcess::stats)
    }

    /// From now on its end is no accident.
    pub(super) fn close(&self) {
        self.closing.store(true, Ordering::Release);
    }

    /// The process that serves now.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.lock().process.pid()
    }

    /// How often it was replaced.
    #[must_use]
    pub fn replaced(&self) -> u64 {
        self.replaced.load(Ordering::Relaxed)
    }

    /// Asks the process; if it is gone, asks its successor once.
    fn call<T>(
        self: &Arc<Self>,
        ask: impl Fn(&MemoryProcess) -> Result<T, MemoryError>,
    ) -> Result<T, ServerError> {
        let process = Arc::clone(&self.lock().process);
        match ask(&process) {
            Err(MemoryError::Gone { pid, .. }) => {
                self.replace(pid)?;
                let successor = Arc::clone(&self.lock().process);
                Ok(ask(&successor)?)
            }
            other => Ok(other?),
        }
    }

    /// Starts a successor of the process `dead`, unless that has happened already.
    fn replace(self: &Arc<Self>, dead: u32) -> Result<(), ServerError> {
        let mut inner = self.lock();
        if inner.process.pid() != dead || self.closing.load(Ordering::Acquire) {
            return Ok(());
        }
        // One that hangs must not come to itself beside its successor.
        if inner.identity.is_some_and(|hangs| !hangs.kill(KILL_LIMIT)) {
            tracing::error!(pid = dead, "a memory process outlives SIGKILL");
        }
        let (process, child) = spawn(&self.program, &self.folder, &self.serves, true)?;
        for (id, guest) in &inner.guests {
            let checkpoints: Vec<_> = guest.checkpoints.iter().map(|(id, image)| (*id, image)).collect();
            let served = guest
                .access
                .hand_over()
                .map_err(ServerError::from)
                .and_then(|memory| Ok(process.add_guest(&memory, &checkpoints)?));
            if let Err(error) = served {
                tracing::warn!(%error, vm = %id, "not served by the new memory process");
            }
        }
        for Distribution { view, disk, to } in &inner.distributions {
            if let Err(error) = process.distribute(view, disk, to) {
                tracing::error!(%error, "other hosts get no pages of a checkpoint any more");
            }
        }
        tracing::warn!(dead, successor = process.pid(), program = %self.program.display(), "replaced a memory process");
        inner.identity = ProcessIdentity::of(process.pid());
        inner.process = Arc::new(process);
        self.replaced.fetch_add(1, Ordering::Relaxed);
        drop(inner);
        self.watch(child);
        Ok(())
    }

    /// Waits for the end of the process; an end that nobody wished is followed by a successor.
    fn watch(self: &Arc<Self>, mut child: Child) {
        let server = Arc::downgrade(self);
        let watch = move || {
            let pid = child.id();
            let _ = child.wait();
            if let Some(server) = server.upgrade()
                && let Err(error) = server.replace(pid)
            {
                tracing::error!(%error, "a memory process cannot be replaced");
            }
        };
        if let Err(error) = std::thread::Builder::new().name("memory-watch".into()).spawn(watch) {
            tracing::error!(%error, "a memory process is not watched");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn spawn(
    program: &std::path::Path,
    folder: &std::path::Path,
    serves: &Serves,
    recount: bool,
) -> Result<(MemoryProcess, Child), ServerError> {
    let log = OpenOptions::new().create(true).append(true).open(folder.join("memory.log"))?;
    let (process, mut child) = MemoryProcess::start(program, folder, log)?;
    if let Some(identity) = ProcessIdentity::of(child.id()) {
        set_niceness(identity, NICENESS);
    }
    let opened = match serves {
        Serves::Writes => Ok(()),
        Serves::Frozen(view) => process.open(view, recount),
        Serves::Remote(RemoteView { image, disk, from }) => {
            process.open_remote(image, Some(disk), from, recount)
        }
    };
    if let Err(error) = opened {
        let _ = child.kill();
        let _ = child.wait();
        return Err(error.into());
    }
    Ok((process, child))
}
