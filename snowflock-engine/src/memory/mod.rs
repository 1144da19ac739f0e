//! Guest memory outside its VM: which pages are where, and who fetches them.
//!
//!   parent VM --write fault--> memserver --saves old page--> image file <--fills-- memtap <--absent page-- clone
//!
//! - [`bitmap`]: one bit a page, shared between processes
//! - [`image`]: the image file of a checkpoint, which all its clones map
//! - [`frozen`]: reads a page as it was at the checkpoint
//! - [`freezer`]: keeps it so while the VM goes on (the memserver's half)
//! - [`pager`]: gives clones the pages that they miss (memtap's half)
//! - [`fetching`]: pages that another host has; [`layers`]: its frozen disk
//! - [`supply`]: whether missing pages still come
//! - [`protocol`], [`remote`]: how the engine talks to both processes
//! - [`mod@bench`]: what a fault costs a guest

pub mod bench;
pub mod bitmap;
pub mod fetching;
pub mod freezer;
pub mod frozen;
pub mod image;
pub mod layers;
pub mod pager;
pub mod protocol;
pub mod remote;
pub mod server;
mod serving;
pub mod supply;

use serde::{Deserialize, Serialize};

/// Bytes of a page.
pub const PAGE_BYTES: usize = 4096;

/// A page buffer.
pub type Page = [u8; PAGE_BYTES];

/// Index of a page in a guest's RAM file: its byte offset there divided by 4,096.
///
/// It is the guest's frame number as long as RAM lies below the hole for
/// devices at 2 GiB; nothing here depends on that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PageIndex(pub u32);

impl PageIndex {
    /// Byte offset in the RAM file.
    #[must_use]
    pub fn offset(self) -> u64 {
        u64::from(self.0) * PAGE_BYTES as u64
    }

    /// The page that holds this byte of the RAM file.
    #[must_use]
    pub fn containing(offset: u64) -> Self {
        Self((offset / PAGE_BYTES as u64) as u32)
    }
}

/// Where a guest's memory lies in the process that runs it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Region {
    /// Start in that process's address space, bytes.
    pub address: u64,
    /// Length, bytes.
    pub len: u64,
}

impl Region {
    /// Pages of the region.
    #[must_use]
    pub fn pages(self) -> u32 {
        (self.len / PAGE_BYTES as u64) as u32
    }

    /// The page at an address; `None` outside.
    #[must_use]
    pub fn page_at(self, address: u64) -> Option<PageIndex> {
        let offset = address.checked_sub(self.address)?;
        (offset < self.len).then(|| PageIndex::containing(offset))
    }

    /// The address of a page.
    #[must_use]
    pub fn address_of(self, page: PageIndex) -> u64 {
        self.address + page.offset()
    }
}

/// The body of both memory programs.
#[must_use]
pub fn run_process(name: &str) -> std::process::ExitCode {
    // A log on a full disk must not end the thread that wants to say so.
    let log = tracing_subscriber::fmt().log_internal_errors(false);
    log.with_writer(std::io::stderr).with_ansi(false).init();
    let served = crate::sys::process::inherited(remote::CHANNEL_FD)
        .and_then(|channel| server::serve(&crate::sys::fdpass::Channel::from(channel)));
    match served {
        Ok(()) => std::process::ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(%error, "{name} ends; it is started by the engine, not by hand");
            std::process::ExitCode::FAILURE
        }
    }
}
