//! What the engine says to a memory process (memserver or memtap) and hears back.
//!
//! JSON over a SEQPACKET socket that the process inherits as descriptor 3, one
//! answer for each request, descriptors beside the text. Both ends come from one
//! build; a process that dies is replaced, and its successor is told all again.

use std::net::SocketAddrV4;

use serde::{Deserialize, Serialize};

use super::Region;
use super::supply::Supply;
use crate::mcdist::distributor::DistributorConfig;
use crate::mcdist::fetcher::FetcherConfig;
use crate::mcdist::receiver::ReceiverStats;
use crate::mcdist::seal::DistributionId;
use crate::mcdist::sender::SenderStats;

/// Names a checkpoint; unique in the life of an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CheckpointId(pub u32);

/// Names a guest to a memory process: its clone ID, 0 for the parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(transparent)]
pub struct GuestId(pub u32);

/// A request. In brackets: the descriptors that come with it.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request {
    /// Serve the clones of this frozen view [the view's parts].
    Open {
        /// See `FrozenView::parts`.
        regions: Vec<Region>,
        /// A predecessor may have died between writing pages and announcing them.
        recount: bool,
    },
    /// Serve the clones of a checkpoint of another host [image, bitmap; if it has a disk: the bitmap and
    /// the layers of its copy].
    OpenRemote {
        /// How its pages are fetched.
        from: FetcherConfig,
        /// See [`Request::Open`].
        recount: bool,
    },
    /// Distribute the pages of this frozen view to other hosts [the view's parts, layers of the disk].
    Distribute {
        /// See `FrozenView::parts`.
        regions: Vec<Region>,
        /// How.
        to: DistributorConfig,
    },
    /// Distribute this one no longer.
    EndDistribution {
        /// Which one.
        distribution: DistributionId,
    },
    /// Serve this guest's faults [uffd, RAM file if it is a root parent, then image and bitmap for
    /// each checkpoint].
    AddGuest {
        /// Which guest.
        guest: GuestId,
        /// Process that runs it.
        pid: u32,
        /// Where its memory lies there.
        region: Region,
        /// Whether it is a root parent, whose RAM file comes along.
        root: bool,
        /// Checkpoints of it that live.
        checkpoints: Vec<CheckpointId>,
    },
    /// The guest is gone.
    RemoveGuest {
        /// Which guest.
        guest: GuestId,
    },
    /// Freeze the guest's memory [image, bitmap].
    Freeze {
        /// Which guest.
        guest: GuestId,
        /// The new checkpoint.
        checkpoint: CheckpointId,
    },
    /// Stop saving for this checkpoint.
    Thaw {
        /// Which guest.
        guest: GuestId,
        /// The ended checkpoint.
        checkpoint: CheckpointId,
    },
    /// Fetch these pages ahead [file of little-endian 32-bit page indices].
    Prefetch,
    /// Begin to fetch every page that is absent, unless that is under way.
    Complete,
    /// How far that is.
    Completion,
    /// Tell whether missing pages still come.
    Supply,
    /// End the record of first touches and give it [answer: file of page indices].
    TakeRecord,
    /// Give the counters.
    Stats,
}

/// An answer.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Answer {
    /// Done.
    Done,
    /// Memory is frozen.
    Frozen {
        /// Time that the protection took, microseconds.
        micros: u64,
    },
    /// Pages are distributed.
    Distributing {
        /// Where receivers find the sender.
        address: SocketAddrV4,
    },
    /// Pages that were fetched.
    Fetched {
        /// How many.
        pages: u32,
    },
    /// They are still being fetched.
    Fetching,
    /// See [`Supply`].
    Supply(Supply),
    /// The counters.
    Stats(Box<Stats>),
    /// It did not work; the sentence says what was tried.
    Failed {
        /// One sentence.
        why: String,
    },
}

/// Counters of a memory process since its start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stats {
    /// Pages saved before a frozen VM overwrote them.
    pub saved: u64,
    /// The clones' side; all zero in a memserver.
    pub pager: PagerStats,
    /// All distributions that are going on.
    pub distribution: SenderStats,
}

/// Counters of the pages that clones missed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PagerStats {
    /// Faults on absent pages.
    pub faults: u64,
    /// Pages put into the image because of a fault.
    pub fetched: u64,
    /// Pages read although the memserver saved them at the same time: work done twice.
    pub repeated: u64,
    /// Pages put into the image ahead of a fault.
    pub prefetched: u64,
    /// Faults answered with a zero page.
    pub zero: u64,
    /// Faults whose page was in the image when they were looked at.
    pub shared: u64,
    /// Pages in the image.
    pub present: u32,
    /// The order of first touches is being recorded.
    pub recording: bool,
    /// Median service time of a fault in the process, microseconds, rounded up.
    pub service_p50_us: Option<u64>,
    /// The same, 99th percentile.
    pub service_p99_us: Option<u64>,
    /// What comes from another host; none if nothing does.
    pub fetcher: Option<ReceiverStats>,
}
