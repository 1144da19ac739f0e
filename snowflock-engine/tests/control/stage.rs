//! An engine on plain VMs whose shells start only when the test says so.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use snowflock_engine::control::{Engine, EngineSpec, LifeState, Programs, Ticket, TicketAnswer, View};
use snowflock_engine::descriptor::Driver;
use snowflock_engine::hypervisor::plain::{HOOKS_FILE, HOOKS_HELD_FILE, Plain, Vcpu, no_image};
use snowflock_engine::hypervisor::qemu::{Accelerator, Choice, Wish};
use snowflock_engine::hypervisor::{BootImage, Hypervisor, HypervisorError, Machine, Place, Shell, Vm};
use snowflock_engine::network::identity::CloneId;
use snowflock_engine::sys::process::{ProcessIdentity, owned_by};

const MEMTAP: &str = "flurry-memtap";
pub(crate) const LONG: Duration = Duration::from_secs(20);

/// An engine with a running parent.
pub(crate) struct Stage {
    pub(crate) engine: Engine,
    folder: PathBuf,
    libexec: tempfile::TempDir,
    let_start: Sender<bool>,
    /// Last: the others let go of shells that wait for leave.
    _broom: Broom,
}

/// Ends the engine after a failed test, as a good one does by itself.
struct Broom(Engine);

impl Drop for Broom {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let engine = self.0.clone();
            let end = move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build();
                runtime.map(|runtime| drop(runtime.block_on(engine.shut_down())))
            };
            let _ = std::thread::spawn(end).join();
        }
    }
}

/// Plain VMs; a shell waits for leave to start, or is told not to.
struct Gated {
    plain: Plain,
    leave: Mutex<Receiver<bool>>,
}

impl Hypervisor for Gated {
    fn boot(&self, place: Place, image: &BootImage) -> Result<Box<dyn Vm>, HypervisorError> {
        self.plain.boot(place, image)
    }

    fn shell(&self, place: Place) -> Result<Box<dyn Shell>, HypervisorError> {
        match self.leave.lock().unwrap().recv_timeout(LONG) {
            Ok(true) => self.plain.shell(place),
            _ => Err(HypervisorError::Refused {
                vm: place.id,
                what: "starting a shell".into(),
                said: "the test does not want one".into(),
            }),
        }
    }

    fn driver(&self) -> Driver {
        self.plain.driver()
    }
}

impl Stage {
    /// With a parent, and so many shells ordered, none of which has leave to start.
    pub(crate) async fn set(word: &str, shells: u32) -> Self {
        Self::set_with(word, shells, 1).await
    }

    /// The same where a clone is reckoned with so much memory, MiB.
    pub(crate) async fn set_with(word: &str, shells: u32, clone_mib: u64) -> Self {
        static STAGES: AtomicU32 = AtomicU32::new(0);
        let (process, stage) = (std::process::id(), STAGES.fetch_add(1, Ordering::Relaxed));
        let name = format!("c-{word}-{process}-{stage}");
        let folder = std::env::temp_dir().join(format!("flurry-{name}"));
        let block = format!("10.{}.{}.0/24", 32 + (process / 256 + stage * 8) % 32, process % 256);
        let (let_start, leave) = channel();
        let libexec = tempfile::tempdir().unwrap();
        let programs = programs(libexec.path());
        let spec = EngineSpec {
            name,
            machine: Machine { memory_mib: 4, vcpus: 1 },
            image: no_image(),
            block: block.parse().unwrap(),
            accelerator: Wish::Tcg,
            shells,
            max_clones: 8,
            clone_mib,
            state_folder: folder.clone(),
            boot_limit: LONG,
            identity_limit: LONG,
            hook_limit: LONG,
            guest_clones: 0,
            programs,
            between: None,
        };
        let engine = Engine::start_on(spec, |spec, folder| {
            let memory_bytes = spec.machine.memory_bytes();
            let program = env!("CARGO_BIN_EXE_flurry-plain-vm").into();
            let plain = Plain { program, memory_bytes, folder: folder.to_owned(), user: None };
            let choice = Choice { accelerator: Accelerator::Tcg, reason: "plain memory".into() };
            Ok((Box::new(Gated { plain, leave: Mutex::new(leave) }), choice))
        });
        let engine = engine.unwrap();
        let broom = Broom(engine.clone());
        engine.boot().await.unwrap();
        Self { engine, folder, libexec, let_start, _broom: broom }
    }

    /// Lets the next shell start, or makes it fail.
    pub(crate) fn next_shell(&self, starts: bool) {
        self.let_start.send(starts).unwrap();
    }

    pub(crate) async fn ticket(&self, clones: u32) -> Ticket {
        match self.engine.sf_request_ticket(clones).await.unwrap() {
            TicketAnswer::Granted(ticket) if ticket.clones.len() as u32 == clones => ticket,
            other => panic!("asked for {clones}, got {other:?}"),
        }
    }

    /// Waits until the view is as wanted.
    pub(crate) async fn sees(&self, what: &str, wanted: impl FnMut(&Arc<View>) -> bool) {
        let mut view = self.engine.view();
        let seen = tokio::time::timeout(LONG, view.wait_for(wanted)).await;
        assert!(matches!(seen, Ok(Ok(_))), "never: {what}; {:?}", self.engine.view().borrow());
    }

    pub(crate) fn state(&self, id: CloneId) -> LifeState {
        self.engine.view().borrow().clone_with(id).unwrap().state.clone()
    }

    /// Whether a VM has a folder, which stands for all that it has on the host.
    pub(crate) fn has_folder(&self, id: CloneId) -> bool {
        self.folder.join(id.to_string()).exists()
    }

    /// Waits until nothing of a VM is left on the host.
    pub(crate) async fn clears_away(&self, id: CloneId) {
        let cleared = async {
            while self.has_folder(id) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        assert!(tokio::time::timeout(LONG, cleared).await.is_ok(), "the folder of {id} is left");
    }

    /// The process of the VM with this ID.
    pub(crate) fn process_of(&self, id: CloneId) -> Option<ProcessIdentity> {
        let folder = self.folder.join(id.to_string()).display().to_string();
        let runs = |pid: u32| {
            let words = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.split(|byte| *byte == 0).any(|word| word == folder.as_bytes())
        };
        owned_by(&self.folder).into_iter().find(|process| runs(process.pid))
    }

    /// Kills it.
    pub(crate) fn kill(&self, id: CloneId) {
        assert!(self.process_of(id).unwrap().kill(LONG));
    }

    /// A vCPU of a VM.
    pub(crate) fn vcpu(&self, id: CloneId) -> Vcpu {
        Vcpu::connect(&self.folder.join(id.to_string())).unwrap()
    }

    /// Takes the program of memtaps away, or puts it back.
    pub(crate) fn has_memtap(&self, has: bool) {
        let (here, away) = (self.libexec.path().join(MEMTAP), self.libexec.path().join("away"));
        let (from, to) = if has { (away, here) } else { (here, away) };
        std::fs::rename(from, to).unwrap();
    }

    /// The hooks that were run so far.
    pub(crate) fn hooks(&self) -> Vec<String> {
        let text = std::fs::read_to_string(self.folder.join(HOOKS_FILE)).unwrap_or_default();
        text.lines().map(str::to_owned).collect()
    }

    /// Makes all hooks wait, or lets them go on.
    pub(crate) fn hold_hooks(&self, held: bool) {
        let sign = self.folder.join(HOOKS_HELD_FILE);
        if held { std::fs::write(sign, "").unwrap() } else { std::fs::remove_file(sign).unwrap() }
    }

    /// Lets go of the engine without a word; nothing may be left in the end.
    pub(crate) async fn abandon(self) {
        let Self { engine, folder, let_start, _broom, .. } = self;
        drop((engine, let_start, _broom));
        let gone = async {
            while folder.exists() {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        assert!(tokio::time::timeout(LONG, gone).await.is_ok(), "the state folder is left");
        assert!(owned_by(&folder).is_empty(), "processes are left");
    }

    /// Ends the engine; nothing may be left.
    pub(crate) async fn clear(self) {
        // A shell that still waits for leave starts: it ends with the engine.
        drop(self.let_start);
        self.engine.shut_down().await.unwrap();
        assert!(owned_by(&self.folder).is_empty(), "processes are left");
        assert!(!self.folder.exists(), "the state folder is left");
    }
}

/// The program of a memtap can be taken away.
fn programs(libexec: &Path) -> Programs {
    let (nothing, memtap) = (Path::new("/nonexistent"), libexec.join(MEMTAP));
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_flurry-memtap"), &memtap).unwrap();
    Programs {
        qemu: nothing.into(),
        shim: nothing.into(),
        memserver: env!("CARGO_BIN_EXE_flurry-memserver").into(),
        memtap,
    }
}
