//! The host's end of the shim in QEMU.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::time::Duration;

use super::instance::Instance;
use crate::memory::Region;
use crate::memory::protocol::GuestId;
use crate::memory::remote::GuestMemory;
use crate::shim_protocol::{Reply, Request};
use crate::sys::fdpass::Channel;
use crate::sys::uffd::Uffd;

const ANSWER_DEADLINE: Duration = Duration::from_secs(10);

/// Guest memory as the shim hands it over.
#[derive(Debug)]
pub(super) struct Handed {
    pub(super) region: Region,
    pub(super) uffd: Uffd,
    pub(super) ram_file: File,
}

impl Handed {
    /// As the memory of a clone.
    pub(super) fn of_clone(self, instance: &Instance) -> GuestMemory {
        GuestMemory { ram_file: None, ..self.of_root(instance) }
    }

    /// As the memory of a root parent, which has a RAM file of its own.
    pub(super) fn of_root(self, instance: &Instance) -> GuestMemory {
        GuestMemory {
            guest: GuestId(instance.place.id.0),
            pid: instance.identity.pid,
            region: self.region,
            uffd: self.uffd,
            ram_file: Some(self.ram_file),
        }
    }
}

/// Asks for guest memory as it is.
pub(super) fn describe(socket: &Path) -> io::Result<Handed> {
    exchange(socket, Request::Describe, &[])
}

/// Puts an image in place of the hollow memory of a clone.
pub(super) fn adopt(socket: &Path, image: &File) -> io::Result<Handed> {
    exchange(socket, Request::Adopt, &[image.as_fd()])
}

fn exchange(socket: &Path, request: Request, fds: &[BorrowedFd<'_>]) -> io::Result<Handed> {
    let channel = Channel::connect(socket)?;
    channel.set_timeout(Some(ANSWER_DEADLINE))?;
    channel.send(&request.encode(), fds)?;
    let message = channel.receive()?;
    let (address, len) = match Reply::decode(&message.bytes)? {
        Reply::Region { address, len } => (address, len),
        Reply::Failed { errno } => return Err(io::Error::from_raw_os_error(errno)),
    };
    let mut fds = message.fds.into_iter();
    match (fds.next(), fds.next()) {
        (Some(uffd), Some(file)) => {
            Ok(Handed { region: Region { address, len }, uffd: uffd.into(), ram_file: file.into() })
        }
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "the shim sent no descriptors")),
    }
}
