//! The program of both memory processes: a thread that obeys the engine. What
//! the guests ask for is answered by threads of their own (see [`super::serving`]).

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::thread::JoinHandle;

use super::fetching::RemotePages;
use super::freezer::{Freezer, OldContent};
use super::frozen::FrozenView;
use super::image::Image;
use super::layers::{DiskCopy, Layers};
use super::pager::Pager;
use super::protocol::{Answer, CheckpointId, GuestId, PagerStats, Request, Stats};
use super::serving::Guest;
use super::supply::Supply;
use super::{PageIndex, Region};
use crate::mcdist::distributor::{Distributor, DistributorConfig};
use crate::mcdist::geometry::Geometry;
use crate::mcdist::seal::DistributionId;
use crate::mcdist::sender::SenderStats;
use crate::mcdist::source::CheckpointSource;
use crate::sys::fdpass::{Channel, Message};
use crate::sys::memory::memfd;
use crate::sys::uffd::Uffd;

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
    distributions: HashMap<DistributionId, Distributor>,
    saved_by_departed: u64,
    /// Fetches all that is absent, which may take long.
    completion: Option<JoinHandle<io::Result<u32>>>,
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
                let pager = Pager::new(view);
                if recount {
                    // A successor: what clones touched first, it has not seen.
                    pager.take_record();
                }
                self.pager = Some(Arc::new(pager));
            }
            Request::OpenRemote { from, recount } => {
                let image = Image::open(next(&mut fds)?.into(), next(&mut fds)?.into())?;
                if recount {
                    image.recount()?;
                }
                let disk = match fds.next() {
                    Some(present) => Some(DiskCopy::open(present.into(), rest(fds)?)?),
                    None => None,
                };
                self.pager = Some(Arc::new(Pager::remote(RemotePages::start(image, disk, from)?)));
            }
            Request::Distribute { regions, to } => return self.distribute(&regions, to, &mut fds),
            Request::EndDistribution { distribution } => drop(self.distributions.remove(&distribution)),
            Request::AddGuest { guest, pid, region, root, checkpoints } => {
                let uffd = Uffd::from(next(&mut fds)?);
                let old = match root {
                    true => OldContent::RamFile(next(&mut fds)?.into()),
                    false => OldContent::ProcessMemory(memory_of(pid)?),
                };
                let freezer = Freezer::new(region, old);
                for checkpoint in checkpoints {
                    let image = next_image(&mut fds, region)?;
                    image.recount()?;
                    freezer.resume(checkpoint, image);
                }
                let serving = Guest::start(uffd, region, freezer, self.pager.clone())?;
                self.guests.insert(guest, serving);
            }
            Request::RemoveGuest { guest } => {
                if let Some(guest) = self.guests.remove(&guest) {
                    self.saved_by_departed += guest.freezer().pages_saved();
                }
            }
            Request::Freeze { guest, checkpoint } => {
                return self.freeze(guest, checkpoint, &mut fds);
            }
            Request::Thaw { guest, checkpoint } => {
                if let Some(guest) = self.guests.get(&guest) {
                    guest.freezer().thaw(guest.uffd(), checkpoint)?;
                }
            }
            Request::Prefetch => {
                let pages = read_pages(next(&mut fds)?.into())?;
                let pages = self.pager()?.prefetch(pages.into_iter())?;
                return Ok((Answer::Fetched { pages }, None));
            }
            Request::Complete => self.complete()?,
            Request::Completion => return self.completion(),
            Request::Supply => {
                let supply = self.pager.as_ref().map_or_else(Supply::default, |pager| pager.supply());
                return Ok((Answer::Supply(supply), None));
            }
            Request::TakeRecord => {
                let record = write_pages(&self.pager()?.take_record())?;
                return Ok((Answer::Done, Some(record)));
            }
            Request::Stats => return Ok((Answer::Stats(Box::new(self.stats())), None)),
        }
        Ok((Answer::Done, None))
    }

    fn distribute(
        &mut self,
        regions: &[Region],
        to: DistributorConfig,
        fds: &mut impl Iterator<Item = OwnedFd>,
    ) -> Reply {
        let memory = FrozenView::from_parts(fds, regions)?;
        let disk = rest(fds)?;
        let geometry = Geometry::of_checkpoint(memory.image.present().pages(), disk.blocks());
        let geometry = geometry.map_err(io::Error::other)?;
        let distribution = to.distribution;
        // A predecessor of the same name would hold the port.
        self.distributions.remove(&distribution);
        let distributor = Distributor::start(to, geometry, CheckpointSource { memory, disk })
            .map_err(|e| io::Error::new(e.kind(), format!("pages cannot be distributed: {e}")))?;
        let address = distributor.address();
        self.distributions.insert(distribution, distributor);
        Ok((Answer::Distributing { address }, None))
    }

    fn freeze(
        &self,
        guest: GuestId,
        checkpoint: CheckpointId,
        fds: &mut impl Iterator<Item = OwnedFd>,
    ) -> Reply {
        let guest = self.guests.get(&guest).ok_or_else(|| unknown(guest))?;
        let image = next_image(fds, guest.region())?;
        let took = guest
            .freezer()
            .freeze(guest.uffd(), checkpoint, image)
            .map_err(|e| io::Error::new(e.kind(), format!("its memory cannot be write-protected: {e}")))?;
        Ok((Answer::Frozen { micros: took.as_micros() as u64 }, None))
    }

    /// On a thread of its own: others want to be answered meanwhile.
    fn complete(&mut self) -> io::Result<()> {
        let pager = Arc::clone(self.pager()?);
        if self.completion.is_none() {
            let complete = move || pager.complete();
            self.completion = Some(std::thread::Builder::new().name("complete".into()).spawn(complete)?);
        }
        Ok(())
    }

    fn completion(&mut self) -> Reply {
        let done = self.completion.take_if(|completion| completion.is_finished());
        let Some(done) = done else {
            return match self.completion {
                Some(_) => Ok((Answer::Fetching, None)),
                None => Err(io::Error::other("nobody has asked for all pages")),
            };
        };
        let pages = done.join().map_err(|_| io::Error::other("fetching all pages failed"))??;
        Ok((Answer::Fetched { pages }, None))
    }

    fn pager(&self) -> io::Result<&Arc<Pager>> {
        self.pager.as_ref().ok_or_else(|| io::Error::other("no checkpoint was opened"))
    }

    fn stats(&self) -> Stats {
        let living: u64 = self.guests.values().map(|g| g.freezer().pages_saved()).sum();
        let pager = self.pager.as_ref().map_or_else(PagerStats::default, |pager| pager.stats());
        let distributions = self.distributions.values().map(Distributor::stats);
        let distribution = distributions.fold(SenderStats::default(), |sum, one| sum + one);
        Stats { saved: self.saved_by_departed + living, pager, distribution }
    }
}

fn next(fds: &mut impl Iterator<Item = OwnedFd>) -> io::Result<OwnedFd> {
    fds.next().ok_or_else(|| io::Error::new(io::ErrorKind::InvalidInput, "a file descriptor is missing"))
}

/// All further ones are layers of a disk.
fn rest(fds: impl Iterator<Item = OwnedFd>) -> io::Result<Layers> {
    Layers::of(fds.map(File::from).collect())
}

fn next_image(fds: &mut impl Iterator<Item = OwnedFd>, region: Region) -> io::Result<Image> {
    let image = Image::open(next(fds)?.into(), next(fds)?.into())?;
    let (theirs, ours) = (image.present().pages(), region.pages());
    if theirs != ours {
        let why = format!("an image of {theirs} pages does not fit a guest of {ours}");
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    Ok(image)
}

fn memory_of(pid: u32) -> io::Result<File> {
    let path = format!("/proc/{pid}/mem");
    File::open(&path).map_err(|e| io::Error::new(e.kind(), format!("cannot open {path}: {e}")))
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
