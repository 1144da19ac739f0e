//! A host with plain VMs, their memserver, and a memtap for each checkpoint.

use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use snowflock_engine::control::MemoryServer;
use snowflock_engine::hypervisor::plain::{Plain, Vcpu, no_image};
use snowflock_engine::hypervisor::{FrozenDisk, Hypervisor, Place, Seed, Vm};
use snowflock_engine::memory::PAGE_BYTES;
use snowflock_engine::memory::frozen::{FrozenView, ProcessSource, Source};
use snowflock_engine::memory::image::Image;
use snowflock_engine::memory::protocol::{CheckpointId, PagerStats};
use snowflock_engine::network::Port;
use snowflock_engine::network::identity::{CloneId, mac_address};

pub(crate) const MEMSERVER: &str = env!("CARGO_BIN_EXE_flurry-memserver");
pub(crate) const MEMTAP: &str = env!("CARGO_BIN_EXE_flurry-memtap");
pub(crate) const PLAIN_VM: &str = env!("CARGO_BIN_EXE_flurry-plain-vm");

/// A seed for this run; it is printed, and may be given, as `FLURRY_SEED`.
pub(crate) fn seed() -> u64 {
    let given = std::env::var("FLURRY_SEED").ok().and_then(|text| text.parse().ok());
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros() as u64;
    let seed = given.unwrap_or_else(now).max(1);
    println!("FLURRY_SEED={seed} replays this run");
    seed
}

/// A host. VMs and memory processes end with it.
pub(crate) struct World {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) driver: Plain,
    next_vm: AtomicU32,
    next_checkpoint: AtomicU32,
}

/// A VM with whoever serves its memory.
pub(crate) struct Guest {
    pub(crate) id: CloneId,
    pub(crate) vm: Mutex<Box<dyn Vm>>,
    pub(crate) keeper: Arc<MemoryServer>,
    pub(crate) folder: PathBuf,
    made_from: Option<FrozenView>,
}

/// A checkpoint with its memtap.
pub(crate) struct Checkpoint {
    pub(crate) id: CheckpointId,
    pub(crate) image: Image,
    pub(crate) view: FrozenView,
    pub(crate) memtap: Arc<MemoryServer>,
    pub(crate) state: Vec<u8>,
    pub(crate) disk: FrozenDisk,
}

impl World {
    /// For VMs with so many pages.
    pub(crate) fn new(pages: u32) -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::set_permissions(folder.path(), std::fs::Permissions::from_mode(0o777)).unwrap();
        let driver = Plain {
            program: PLAIN_VM.into(),
            memory_bytes: u64::from(pages) * PAGE_BYTES as u64,
            folder: folder.path().into(),
            user: None,
        };
        Self { folder, driver, next_vm: AtomicU32::new(0), next_checkpoint: AtomicU32::new(1) }
    }

    pub(crate) fn place(&self) -> Place {
        let id = CloneId(self.next_vm.fetch_add(1, Ordering::Relaxed));
        let folder = self.folder.path().join(id.to_string());
        std::fs::create_dir(&folder).unwrap();
        std::fs::set_permissions(&folder, std::fs::Permissions::from_mode(0o777)).unwrap();
        let tap = File::open("/dev/null").unwrap();
        let port = Port { id, tap, mac: mac_address("test", id), ip: [10, 0, 0, 2].into() };
        Place { id, folder, port }
    }

    /// A running root parent with a memserver.
    pub(crate) fn boot(&self) -> Guest {
        let place = self.place();
        let (id, folder) = (place.id, place.folder.clone());
        let vm = self.driver.boot(place, &no_image()).unwrap();
        let keeper = MemoryServer::start(MEMSERVER.into(), self.folder.path().into(), None).unwrap();
        keeper.add_guest(id, vm.memory()).unwrap();
        Guest { id, vm: Mutex::new(vm), keeper, folder, made_from: None }
    }

    /// Freezes a VM as it is now.
    pub(crate) fn checkpoint(&self, guest: &mut Guest) -> Checkpoint {
        let id = CheckpointId(self.next_checkpoint.fetch_add(1, Ordering::Relaxed));
        let memory = guest.vm.get_mut().unwrap().memory().hand_over().unwrap();
        let image = Image::new(memory.region.pages()).unwrap();
        let source = match (memory.ram_file, &guest.made_from) {
            (Some(ram_file), _) => Source::RamFile(ram_file),
            (None, base) => {
                let base = base.as_ref().unwrap().duplicate().unwrap();
                let process = ProcessSource::open(memory.pid, memory.region, base).unwrap();
                Source::Process(Box::new(process))
            }
        };
        let view = FrozenView { image: image.duplicate().unwrap(), source };
        let served = Some(view.duplicate().unwrap());
        let memtap = MemoryServer::start(MEMTAP.into(), self.folder.path().into(), served).unwrap();
        guest.vm.get_mut().unwrap().pause().unwrap();
        let disk = guest.vm.get_mut().unwrap().freeze_disk().unwrap();
        let state = guest.vm.get_mut().unwrap().describe().unwrap();
        guest.keeper.freeze(guest.id, id, &image).unwrap();
        guest.vm.get_mut().unwrap().resume().unwrap();
        Checkpoint { id, image, view, memtap, state, disk }
    }

    /// A running clone.
    pub(crate) fn clone_of(&self, checkpoint: &Checkpoint) -> Guest {
        let place = self.place();
        let (id, folder) = (place.id, place.folder.clone());
        let mut shell = self.driver.shell(place).unwrap();
        let memory = shell.adopt(checkpoint.image.file()).unwrap();
        checkpoint.memtap.add_guest(id, memory).unwrap();
        let seed = Seed { device_state: &checkpoint.state, disk: &checkpoint.disk };
        let mut vm = shell.seed(&seed).unwrap();
        vm.resume().unwrap();
        let made_from = Some(checkpoint.view.duplicate().unwrap());
        Guest { id, vm: Mutex::new(vm), keeper: Arc::clone(&checkpoint.memtap), folder, made_from }
    }
}

impl Guest {
    /// A vCPU of its own.
    pub(crate) fn vcpu(&self) -> Vcpu {
        Vcpu::connect(&self.folder).unwrap()
    }

    /// Asserts that a range holds the content of a seed, looking in this order.
    pub(crate) fn assert_holds(&self, first: u32, count: u32, order: u64, seed: u64) {
        let verdict = self.vcpu().check(first, count, order, seed).unwrap();
        assert_eq!((verdict.checked, verdict.wrong), (count, 0), "{} has {verdict:?}", self.id);
    }
}

impl Checkpoint {
    pub(crate) fn pager(&self) -> PagerStats {
        self.memtap.stats().unwrap().pager
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.keeper.remove_guest(self.id);
    }
}

/// Waits until something is so.
pub(crate) fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    let until = Instant::now() + Duration::from_secs(20);
    while !is_so() {
        assert!(Instant::now() < until, "never: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}
