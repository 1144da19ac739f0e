//! A memserver on one host, and memtaps on two others.

use std::fs::File;
use std::process::Child;
use std::sync::Arc;

use snowflock_engine::hypervisor::plain::content;
use snowflock_engine::mcdist::distributor::DistributorConfig;
use snowflock_engine::mcdist::fetcher::FetcherConfig;
use snowflock_engine::mcdist::seal::{DistributionId, Key};
use snowflock_engine::memory::bench::{Distribution, FrozenParent, Walk, remote_fault_service};
use snowflock_engine::memory::image::Image;
use snowflock_engine::memory::layers::Layers;
use snowflock_engine::memory::protocol::PagerStats;
use snowflock_engine::memory::remote::MemoryProcess;
use snowflock_engine::memory::{PAGE_BYTES, PageIndex};

use crate::network::Network;

const MEMSERVER: &str = env!("CARGO_BIN_EXE_flurry-memserver");
const MEMTAP: &str = env!("CARGO_BIN_EXE_flurry-memtap");

/// What a page holds: some zeros, some the same as others.
pub(crate) fn page(page: PageIndex) -> [u8; PAGE_BYTES] {
    match page.0 % 10 {
        0 => [0; PAGE_BYTES],
        8 => content::page(1, PageIndex(page.0 - 7)),
        _ => content::page(1, page),
    }
}

/// Its first word.
pub(crate) fn expected(index: PageIndex) -> u64 {
    page(index).first_chunk().map_or(0, |bytes| u64::from_ne_bytes(*bytes))
}

/// A memory process on a host. It ends with this.
struct Running {
    process: Option<Arc<MemoryProcess>>,
    child: Child,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.process = None;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A host's memtap.
pub(crate) struct Tap {
    pub(crate) process: Arc<MemoryProcess>,
    pub(crate) image: Image,
    pub(crate) from: FetcherConfig,
    running: Running,
    network: Arc<Network>,
    folder: Arc<tempfile::TempDir>,
    host: u8,
}

impl Tap {
    /// Touches every page.
    pub(crate) fn touch(&self, walk: Walk) -> (Distribution, PagerStats) {
        remote_fault_service(&self.process, &self.image, &self.from, walk, expected).unwrap()
    }

    /// Serves no guest yet.
    pub(crate) fn open(&self) {
        self.process.open_remote(&self.image, None, &self.from, false).unwrap();
    }

    /// Kills the process; another one follows.
    pub(crate) fn replace(&mut self) {
        self.running.child.kill().unwrap();
        self.running = start(&self.network, &self.folder, self.host, MEMTAP);
        self.process = Arc::clone(self.running.process.as_ref().unwrap());
    }
}

/// All of them. Host 0 has the memserver.
pub(crate) struct Cluster {
    pub(crate) server: Arc<MemoryProcess>,
    pub(crate) parent: FrozenParent,
    pub(crate) to: DistributorConfig,
    pub(crate) taps: Vec<Tap>,
    running: Running,
    network: Arc<Network>,
    folder: Arc<tempfile::TempDir>,
}

impl Cluster {
    /// A frozen parent of so many pages, distributed; `arrange` sees the network before it is used.
    pub(crate) fn new(mtu: u32, pages: u32, fills: bool, arrange: impl FnOnce(&Network)) -> Self {
        let folder = Arc::new(tempfile::tempdir().unwrap());
        let network = Arc::new(Network::new(3, mtu));
        arrange(&network);
        let running = start(&network, &folder, 0, MEMSERVER);
        let server = Arc::clone(running.process.as_ref().unwrap());
        let parent = FrozenParent::freeze(&server, pages, page).unwrap();
        let (distribution, key) = (DistributionId(77), Key::random().unwrap());
        let address = std::net::SocketAddrV4::new(Network::address(0), 7077);
        let to = DistributorConfig { distribution, key, address, group: Network::group(), split: None };
        assert_eq!(server.distribute(&parent.view, &Layers::default(), &to).unwrap(), address);
        let tap = |host| {
            let running = start(&network, &folder, host, MEMTAP);
            let from = FetcherConfig {
                distribution,
                key: to.key.clone(),
                sender: address,
                group: to.group,
                interface: Network::address(host),
                fills,
            };
            let process = Arc::clone(running.process.as_ref().unwrap());
            let image = Image::new(pages).unwrap();
            let (network, folder) = (Arc::clone(&network), Arc::clone(&folder));
            Tap { process, image, from, running, network, folder, host }
        };
        let taps = vec![tap(1), tap(2)];
        Self { server, parent, to, taps, running, network, folder }
    }

    /// Kills the memserver; another one takes over at the same address.
    pub(crate) fn replace_server(&mut self) {
        self.running.child.kill().unwrap();
        self.running.child.wait().unwrap();
        self.running = start(&self.network, &self.folder, 0, MEMSERVER);
        self.server = Arc::clone(self.running.process.as_ref().unwrap());
        self.server.distribute(&self.parent.view, &Layers::default(), &self.to).unwrap();
    }
}

fn start(network: &Network, folder: &Arc<tempfile::TempDir>, host: u8, program: &'static str) -> Running {
    let folder = folder.path().to_path_buf();
    let started = network.inside(host).run(move || {
        let log = File::options().create(true).append(true).open(folder.join("memory.log")).unwrap();
        MemoryProcess::start(program.as_ref(), &folder, log)
    });
    let (process, child) = started.unwrap().unwrap();
    Running { process: Some(Arc::new(process)), child }
}
