//! The host's end of the shim in QEMU: the way to a guest's memory.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::Duration;

use crate::hypervisor::{HypervisorError, MemoryAccess};
use crate::memory::protocol::GuestId;
use crate::memory::remote::GuestMemory;
use crate::memory::{PAGE_BYTES, Region};
use crate::network::identity::CloneId;
use crate::shim_protocol::{Reply, Request};
use crate::sys::fdpass::Channel;
use crate::sys::uffd::explained;

const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// A way to the shim of one QEMU.
#[derive(Debug)]
pub(in crate::hypervisor) struct ShimAccess {
    vm: CloneId,
    pid: u32,
    socket: PathBuf,
    is_clone: bool,
    region: OnceLock<Region>,
}

impl ShimAccess {
    pub(in crate::hypervisor) fn new(vm: CloneId, pid: u32, socket: PathBuf, is_clone: bool) -> Self {
        Self { vm, pid, socket, is_clone, region: OnceLock::new() }
    }

    /// Puts an image in place of the hollow memory of a clone.
    pub(in crate::hypervisor) fn adopt(&self, image: &File) -> Result<(), HypervisorError> {
        self.ask(Request::Adopt, &[image.as_fd()]).map(drop)
    }

    fn ask(&self, request: Request, fds: &[BorrowedFd<'_>]) -> Result<GuestMemory, HypervisorError> {
        self.exchange(request, fds).map_err(|source| HypervisorError::System {
            what: format!("get hold of the memory of {} (userfaultfd)", self.vm),
            source,
        })
    }

    fn exchange(&self, request: Request, fds: &[BorrowedFd<'_>]) -> io::Result<GuestMemory> {
        let channel = Channel::connect(&self.socket)?;
        channel.set_timeout(Some(ANSWER_DEADLINE))?;
        channel.send(&request.encode(), fds)?;
        let message = channel.receive()?;
        let region = match Reply::decode(&message.bytes)? {
            Reply::Region { address, len } => Region { address, len },
            Reply::Failed { errno } => return Err(explained(io::Error::from_raw_os_error(errno))),
        };
        let mut fds = message.fds.into_iter();
        let (Some(uffd), Some(file)) = (fds.next(), fds.next()) else {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the shim sent no descriptors"));
        };
        let _ = self.region.set(region);
        let ram_file = (!self.is_clone).then(|| file.into());
        Ok(GuestMemory { guest: GuestId(self.vm.0), pid: self.pid, region, uffd: uffd.into(), ram_file })
    }
}

impl MemoryAccess for ShimAccess {
    fn hand_over(&self) -> Result<GuestMemory, HypervisorError> {
        self.ask(Request::Describe, &[])
    }

    fn private_pages(&self) -> Option<u64> {
        let region = self.region.get()?;
        self.is_clone.then(|| private_pages(self.pid, *region)).flatten()
    }
}

/// Anonymous pages of the mapping of guest memory, from `/proc/PID/smaps`.
fn private_pages(pid: u32, region: Region) -> Option<u64> {
    let text = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("smaps")).ok()?;
    let head = format!("{:x}-", region.address);
    let mut lines = text.lines().skip_while(|line| !line.starts_with(&head));
    let anonymous = lines.find_map(|line| line.strip_prefix("Anonymous:"))?;
    let kib: u64 = anonymous.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kib * 1024 / PAGE_BYTES as u64)
}
