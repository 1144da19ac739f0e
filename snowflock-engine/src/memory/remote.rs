//! The engine's hold on a memory process: starts it, asks it, notices its end.

use std::fs::File;
use std::io;
use std::net::SocketAddrV4;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use super::frozen::FrozenView;
use super::image::Image;
use super::layers::{DiskCopy, Layers};
use super::protocol::{Answer, CheckpointId, GuestId, Request, Stats};
use super::server::{read_pages, write_pages};
use super::supply::Supply;
use super::{PageIndex, Region};
use crate::mcdist::distributor::DistributorConfig;
use crate::mcdist::fetcher::FetcherConfig;
use crate::mcdist::seal::DistributionId;
use crate::sys::fdpass::{Channel, Message};
use crate::sys::process::{ENV_OWNER, inherit};
use crate::sys::uffd::Uffd;

/// The descriptor at which a memory process finds its channel.
pub const CHANNEL_FD: i32 = 3;
/// An answer takes microseconds, but a host may be busy. Who needs longer hangs, and is replaced.
const ANSWER_DEADLINE: Duration = Duration::from_secs(20);
/// How often to ask whether an image is complete: at first, and ever less often.
const COMPLETE_SOON: Duration = Duration::from_millis(1);
const COMPLETE_LATER: Duration = Duration::from_millis(50);

/// Why a memory process did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// The program could not be started.
    #[error("cannot start {program}")]
    Start {
        /// Its path.
        program: PathBuf,
        /// The system's reason.
        source: io::Error,
    },
    /// The process died or hangs.
    #[error("the memory process {pid} does not answer")]
    Gone {
        /// Its process number.
        pid: u32,
        /// The system's reason.
        source: io::Error,
    },
    /// It said no.
    #[error("memory process {pid}: {why}")]
    Refused {
        /// Its process number.
        pid: u32,
        /// Its words.
        why: String,
    },
}

/// What a memory process must know of a guest to serve its faults.
#[derive(Debug)]
pub struct GuestMemory {
    /// Which guest.
    pub guest: GuestId,
    /// Process that runs it.
    pub pid: u32,
    /// Where its memory lies there.
    pub region: Region,
    /// Its userfaultfd.
    pub uffd: Uffd,
    /// The RAM file of a root parent.
    pub ram_file: Option<File>,
}

/// A running memserver or memtap. Dropping it closes its channel, at which it ends.
#[derive(Debug)]
pub struct MemoryProcess {
    channel: Mutex<Channel>,
    pid: u32,
}

impl MemoryProcess {
    /// Starts `program` for the engine with this state folder; the child is returned beside, for whoever waits for its end.
    ///
    /// # Errors
    /// The program is missing or cannot be started.
    pub fn start(program: &Path, owner: &Path, log: File) -> Result<(Self, Child), MemoryError> {
        let start = |source| MemoryError::Start { program: program.into(), source };
        let (ours, theirs) = Channel::pair().map_err(start)?;
        ours.set_timeout(Some(ANSWER_DEADLINE)).map_err(start)?;
        let mut command = Command::new(program);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).process_group(0);
        command.env(ENV_OWNER, owner);
        inherit(&mut command, &[(theirs.as_fd().as_raw_fd(), CHANNEL_FD)]);
        let child = command.spawn().map_err(start)?;
        Ok((Self { channel: Mutex::new(ours), pid: child.id() }, child))
    }

    /// Its process number.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Tells a memtap which checkpoint it serves.
    ///
    /// # Errors
    /// See [`MemoryError`], as for all calls below.
    pub fn open(&self, view: &FrozenView, recount: bool) -> Result<(), MemoryError> {
        let (fds, regions) = view.parts();
        self.ask(&Request::Open { regions, recount }, &fds).map(drop)
    }

    /// Tells a memtap which checkpoint of another host it serves, into this image; and, if it has a disk,
    /// into which copy of that, which is fetched at once.
    ///
    /// # Errors
    /// As above.
    pub fn open_remote(
        &self,
        image: &Image,
        disk: Option<&DiskCopy>,
        from: &FetcherConfig,
        recount: bool,
    ) -> Result<(), MemoryError> {
        let mut fds = vec![image.file().as_fd(), image.present().file().as_fd()];
        fds.extend(disk.iter().flat_map(|disk| disk.fds()));
        self.ask(&Request::OpenRemote { from: from.clone(), recount }, &fds).map(drop)
    }

    /// Makes a memserver distribute a frozen view and disk to other hosts; returns where they find it.
    ///
    /// # Errors
    /// As above.
    pub fn distribute(
        &self,
        view: &FrozenView,
        disk: &Layers,
        to: &DistributorConfig,
    ) -> Result<SocketAddrV4, MemoryError> {
        let (mut fds, regions) = view.parts();
        fds.extend(disk.fds());
        match self.ask(&Request::Distribute { regions, to: to.clone() }, &fds)?.0 {
            Answer::Distributing { address } => Ok(address),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Ends a distribution.
    ///
    /// # Errors
    /// As above.
    pub fn end_distribution(&self, distribution: DistributionId) -> Result<(), MemoryError> {
        self.ask(&Request::EndDistribution { distribution }, &[]).map(drop)
    }

    /// Makes it serve a guest, with the checkpoints of that guest that live.
    ///
    /// # Errors
    /// As above.
    pub fn add_guest(
        &self,
        memory: &GuestMemory,
        checkpoints: &[(CheckpointId, &Image)],
    ) -> Result<(), MemoryError> {
        let mut fds = vec![memory.uffd.as_fd()];
        fds.extend(memory.ram_file.iter().map(AsFd::as_fd));
        for (_, image) in checkpoints {
            fds.extend([image.file().as_fd(), image.present().file().as_fd()]);
        }
        let request = Request::AddGuest {
            guest: memory.guest,
            pid: memory.pid,
            region: memory.region,
            root: memory.ram_file.is_some(),
            checkpoints: checkpoints.iter().map(|(id, _)| *id).collect(),
        };
        self.ask(&request, &fds).map(drop)
    }

    /// Ends the service of a guest.
    ///
    /// # Errors
    /// As above.
    pub fn remove_guest(&self, guest: GuestId) -> Result<(), MemoryError> {
        self.ask(&Request::RemoveGuest { guest }, &[]).map(drop)
    }

    /// Freezes a paused guest's memory; returns the time that it took.
    ///
    /// # Errors
    /// As above.
    pub fn freeze(
        &self,
        guest: GuestId,
        checkpoint: CheckpointId,
        image: &Image,
    ) -> Result<Duration, MemoryError> {
        let fds = [image.file().as_fd(), image.present().file().as_fd()];
        match self.ask(&Request::Freeze { guest, checkpoint }, &fds)?.0 {
            Answer::Frozen { micros } => Ok(Duration::from_micros(micros)),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Ends a checkpoint of a guest.
    ///
    /// # Errors
    /// As above.
    pub fn thaw(&self, guest: GuestId, checkpoint: CheckpointId) -> Result<(), MemoryError> {
        self.ask(&Request::Thaw { guest, checkpoint }, &[]).map(drop)
    }

    /// Fetches pages ahead of their faults; returns how many were new.
    ///
    /// # Errors
    /// As above.
    pub fn prefetch(&self, pages: &[PageIndex]) -> Result<u32, MemoryError> {
        let list = write_pages(pages).map_err(|source| self.gone(source))?;
        match self.ask(&Request::Prefetch, &[list.as_fd()])?.0 {
            Answer::Fetched { pages } => Ok(pages),
            other => Err(self.unexpected(&other)),
        }
    }

    /// Fetches all absent pages; returns how many there were. Others may ask meanwhile.
    ///
    /// # Errors
    /// As above.
    pub fn complete(&self) -> Result<u32, MemoryError> {
        self.ask(&Request::Complete, &[])?;
        let mut wait = COMPLETE_SOON;
        loop {
            match self.ask(&Request::Completion, &[])?.0 {
                Answer::Fetching => std::thread::sleep(wait),
                Answer::Fetched { pages } => return Ok(pages),
                other => return Err(self.unexpected(&other)),
            }
            wait = (wait * 2).min(COMPLETE_LATER);
        }
    }

    /// Whether missing pages still come.
    ///
    /// # Errors
    /// As above.
    pub fn supply(&self) -> Result<Supply, MemoryError> {
        match self.ask(&Request::Supply, &[])?.0 {
            Answer::Supply(supply) => Ok(supply),
            other => Err(self.unexpected(&other)),
        }
    }

    /// The order of first touches since the start.
    ///
    /// # Errors
    /// As above.
    pub fn take_record(&self) -> Result<Vec<PageIndex>, MemoryError> {
        let (_, message) = self.ask(&Request::TakeRecord, &[])?;
        let file = message.fds.into_iter().next().ok_or(io::ErrorKind::InvalidData);
        file.map_err(io::Error::from).and_then(|fd| read_pages(fd.into())).map_err(|source| self.gone(source))
    }

    /// The counters.
    ///
    /// # Errors
    /// As above.
    pub fn stats(&self) -> Result<Stats, MemoryError> {
        match self.ask(&Request::Stats, &[])?.0 {
            Answer::Stats(stats) => Ok(*stats),
            other => Err(self.unexpected(&other)),
        }
    }

    fn ask(&self, request: &Request, fds: &[BorrowedFd<'_>]) -> Result<(Answer, Message), MemoryError> {
        let exchange = || {
            let channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
            channel.send(&serde_json::to_vec(request)?, fds)?;
            let message = channel.receive()?;
            Ok((serde_json::from_slice(&message.bytes)?, message))
        };
        match exchange().map_err(|source| self.gone(source))? {
            (Answer::Failed { why }, _) => Err(MemoryError::Refused { pid: self.pid, why }),
            answer => Ok(answer),
        }
    }

    fn gone(&self, source: io::Error) -> MemoryError {
        MemoryError::Gone { pid: self.pid, source }
    }

    fn unexpected(&self, answer: &Answer) -> MemoryError {
        MemoryError::Refused { pid: self.pid, why: format!("unexpected answer {answer:?}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A process that answers every request with these bytes, or hangs up.
    fn that_says(bytes: &'static [u8]) -> MemoryProcess {
        let (ours, theirs) = Channel::pair().unwrap();
        std::thread::spawn(move || {
            while theirs.receive().is_ok() && !bytes.is_empty() && theirs.send(bytes, &[]).is_ok() {}
        });
        MemoryProcess { channel: Mutex::new(ours), pid: 77 }
    }

    #[test]
    fn an_answer_to_another_question_is_refused() {
        let process = that_says(br#""done""#);
        for error in [
            process.stats().map(drop).unwrap_err(),
            process.complete().map(drop).unwrap_err(),
            process.supply().map(drop).unwrap_err(),
            process.prefetch(&[]).map(drop).unwrap_err(),
            process.freeze(GuestId(0), CheckpointId(0), &Image::new(1).unwrap()).map(drop).unwrap_err(),
        ] {
            assert_eq!(error.to_string(), "memory process 77: unexpected answer Done");
        }
        let no_file = process.take_record().unwrap_err();
        assert!(matches!(no_file, MemoryError::Gone { pid: 77, .. }), "{no_file}");
    }

    #[test]
    fn a_refusal_keeps_its_words() {
        let error = that_says(br#"{"failed":{"why":"no such page"}}"#).complete().unwrap_err();
        assert_eq!(error.to_string(), "memory process 77: no such page");
    }

    #[test]
    fn one_that_hangs_up_or_talks_nonsense_is_gone() {
        for bytes in [&b""[..], b"hello"] {
            assert!(matches!(that_says(bytes).stats(), Err(MemoryError::Gone { pid: 77, .. })));
        }
    }
}
