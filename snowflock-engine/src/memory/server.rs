//! The program of both memory processes: one thread that obeys the engine, and
//! one thread for each guest that resolves its faults. No async runtime: a
//! fault is a handful of system calls, and a guest waits for it.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::eventfd::EventFd;

use super::freezer::{Freezer, OldContent};
use super::frozen::FrozenView;
use super::image::Image;
use super::pager::Pager;
use super::protocol::{Answer, CheckpointId, GuestId, PagerStats, Request, Stats};
use super::{PageIndex, Region};
use crate::sys::fdpass::{Channel, Message};
use crate::sys::memory::memfd;
use crate::sys::uffd::{Fault, Uffd};

/// Serves until the engine closes the channel.
///
/// # Errors
/// The channel breaks in another way than by being closed.
pub fn serve(channel: &Channel) -> io::Result<()> {
    let mut server = Server::default();
    loop {
        let message = match channel.receive() {
            Ok(message) => message,
            Err(e) if e.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
            Err(e) if e.raw_os_error() == Some(libc::ECONNRESET) => return Ok(()),
            Err(e) => return Err(e),
        };
        let (answer, file) =
            server.obey(message).unwrap_or_else(|error| (Answer::Failed { why: error.to_string() }, None));
        let fds: Vec<_> = file.iter().map(AsFd::as_fd).collect();
        channel.send(&serde_json::to_vec(&answer)?, &fds)?;
    }
}

#[derive(Default)]
struct Server {
    pager: Option<Arc<Pager>>,
    guests: HashMap<GuestId, Guest>,
    saved_by_departed: u64,
}

type Reply = io::Result<(Answer, Option<File>)>;

impl Server {
    fn obey(&mut self, message: Message) -> Reply {
        let request: Request = serde_json::from_slice(&message.bytes)?;
        let mut fds = message.fds.into_iter();
        match request {
            Request::Open { regions, recount } => {
                let view = FrozenView::from_parts(&mut fds, &regions)?;
                if recount {
                    view.image.recount()?;
                }
                self.pager = Some(Arc::new(Pager::new(view)));
            }
            Request::AddGuest { guest, pid, region, root, checkpoints } => {
                let uffd = Uffd::from(next(&mut fds)?);
                let old = match root {
                    true => OldContent::RamFile(next(&mut fds)?.into()),
                    false => OldContent::ProcessMemory(File::open(format!("/proc/{pid}/mem"))?),
                };
                let freezer = Freezer::new(region, old);
                for checkpoint in checkpoints {
                    let image = Image::open(next(&mut fds)?.into(), next(&mut fds)?.into())?;
                    image.recount()?;
                    freezer.resume(checkpoint, image);
                }
                let serving = Guest::start(uffd, region, freezer, self.pager.clone())?;
                self.guests.insert(guest, serving);
            }
            Request::RemoveGuest { guest } => {
                if let Some(guest) = self.guests.remove(&guest) {
                    self.saved_by_departed += guest.shared.freezer.pages_saved();
                }
            }
            Request::Freeze { guest, checkpoint } => {
                let image = Image::open(next(&mut fds)?.into(), next(&mut fds)?.into())?;
                return self.freeze(guest, checkpoint, image);
            }
            Request::Thaw { guest, checkpoint } => {
                if let Some(guest) = self.guests.get(&guest) {
                    guest.shared.freezer.thaw(&guest.shared.uffd, checkpoint)?;
                }
            }
            Request::Prefetch => {
                let pages = read_pages(next(&mut fds)?.into())?;
                let pages = self.pager()?.prefetch(pages.into_iter())?;
                return Ok((Answer::Fetched { pages }, None));
            }
            Request::Complete => {
                let pages = self.pager()?.complete()?;
                return Ok((Answer::Fetched { pages }, None));
            }
            Request::TakeRecord => {
                let record = write_pages(&self.pager()?.take_record())?;
                return Ok((Answer::Done, Some(record)));
            }
            Request::Stats => return Ok((Answer::Stats(self.stats()), None)),
        }
        Ok((Answer::Done, None))
    }

    fn freeze(&self, guest: GuestId, checkpoint: CheckpointId, image: Image) -> Reply {
        let guest = self.guests.get(&guest).ok_or_else(|| unknown(guest))?;
        let took = guest.shared.freezer.freeze(&guest.shared.uffd, checkpoint, image)?;
        Ok((Answer::Frozen { micros: took.as_micros() as u64 }, None))
    }

    fn pager(&self) -> io::Result<&Pager> {
        self.pager.as_deref().ok_or_else(|| io::Error::other("no checkpoint was opened"))
    }

    fn stats(&self) -> Stats {
        let living: u64 = self.guests.values().map(|g| g.shared.freezer.pages_saved()).sum();
        let pager = self.pager.as_ref().map_or_else(PagerStats::default, |pager| pager.stats());
        Stats { saved: self.saved_by_departed + living, pager }
    }
}

/// A guest and the thread that serves it. Dropping it ends the thread.
struct Guest {
    shared: Arc<Serving>,
    thread: Option<JoinHandle<()>>,
}

struct Serving {
    uffd: Uffd,
    region: Region,
    freezer: Freezer,
    pager: Option<Arc<Pager>>,
    stop: EventFd,
}

impl Guest {
    fn start(uffd: Uffd, region: Region, freezer: Freezer, pager: Option<Arc<Pager>>) -> io::Result<Self> {
        let shared = Arc::new(Serving { uffd, region, freezer, pager, stop: EventFd::new()? });
        let for_thread = Arc::clone(&shared);
        let thread = std::thread::Builder::new().name("faults".into()).spawn(move || for_thread.run())?;
        // A predecessor may have read faults that it never resolved: let their sleepers fault again.
        shared.uffd.wake(region.address, region.len)?;
        Ok(Self { shared, thread: Some(thread) })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if self.shared.stop.write(1).is_ok()
            && let Some(thread) = self.thread.take()
        {
            let _ = thread.join();
        }
    }
}

impl Serving {
    fn run(&self) {
        let mut faults = Vec::new();
        loop {
            let mut wait = [
                PollFd::new(self.uffd.as_fd(), PollFlags::POLLIN),
                PollFd::new(self.stop.as_fd(), PollFlags::POLLIN),
            ];
            if let Err(nix::errno::Errno::EINTR) = poll(&mut wait, PollTimeout::NONE) {
                continue;
            }
            if wait[1].any().unwrap_or(true) {
                return;
            }
            if let Err(error) = self.uffd.read(&mut faults) {
                tracing::warn!(%error, "reading faults");
                return;
            }
            for fault in &faults {
                self.resolve(*fault);
            }
        }
    }

    /// A guest whose fault cannot be resolved waits: going on with wrong memory would be worse. The
    /// engine's watchdog finds it.
    fn resolve(&self, fault: Fault) {
        let done = match (&self.pager, self.region.page_at(fault.address)) {
            (_, Some(page)) if fault.protected => self.freezer.on_write(&self.uffd, page),
            (Some(pager), _) => pager.on_absent(&self.uffd, self.region, fault, self.freezer.is_frozen()),
            (None, _) => Err(io::Error::other("an absent page in a guest that has all")),
        };
        match done {
            Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
            Err(error) => tracing::error!(%error, ?fault, "fault not resolved"),
            Ok(()) => {}
        }
    }
}

fn next(fds: &mut impl Iterator<Item = OwnedFd>) -> io::Result<OwnedFd> {
    fds.next().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a file descriptor is missing"))
}

fn unknown(guest: GuestId) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("guest {} is not served here", guest.0))
}

/// A list of pages as a file that can be handed over.
///
/// # Errors
/// No memory or file descriptor left.
pub fn write_pages(pages: &[PageIndex]) -> io::Result<File> {
    let mut file = memfd("flurry-pages", 0)?;
    let bytes: Vec<u8> = pages.iter().flat_map(|page| page.0.to_le_bytes()).collect();
    file.write_all(&bytes)?;
    Ok(file)
}

/// The list in such a file.
///
/// # Errors
/// The file cannot be read.
pub fn read_pages(mut file: File) -> io::Result<Vec<PageIndex>> {
    let mut bytes = Vec::new();
    file.rewind()?;
    file.read_to_end(&mut bytes)?;
    let word = |chunk: &[u8]| chunk.iter().rev().fold(0, |sum, byte| sum << 8 | u32::from(*byte));
    Ok(bytes.chunks_exact(4).map(|chunk| PageIndex(word(chunk))).collect())
}
