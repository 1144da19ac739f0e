//! What goes wrong is refused in words, and leaves nothing half done.

use std::error::Error;
use std::fs::File;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use snowflock_engine::agent::Agent;
use snowflock_engine::control::{MemoryServer, ServerError};
use snowflock_engine::hypervisor::plain::{Plain, no_image};
use snowflock_engine::hypervisor::{Hypervisor, HypervisorError, Seed};
use snowflock_engine::memory::frozen::{FrozenView, ProcessSource, Source};
use snowflock_engine::memory::image::Image;
use snowflock_engine::memory::protocol::{CheckpointId, GuestId};
use snowflock_engine::memory::remote::{GuestMemory, MemoryError, MemoryProcess};
use snowflock_engine::memory::{PAGE_BYTES, PageIndex, Region};
use snowflock_engine::network::identity::CloneId;
use snowflock_engine::sys::memory::memfd;
use snowflock_engine::sys::process::ProcessIdentity;
use snowflock_engine::wire;

use crate::world::{MEMSERVER, MEMTAP, World, eventually, seed};

/// An error with all its sources.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text = format!("{text}: {source}");
        next = source.source();
    }
    text
}

fn process(program: &str) -> (MemoryProcess, std::process::Child) {
    let log = File::options().write(true).open("/dev/null").unwrap();
    MemoryProcess::start(Path::new(program), Path::new("/nowhere"), log).unwrap()
}

fn view(pages: u32) -> FrozenView {
    let ram = memfd("ram", u64::from(pages) * PAGE_BYTES as u64).unwrap();
    FrozenView { image: Image::new(pages).unwrap(), source: Source::RamFile(ram) }
}

fn refused<T: std::fmt::Debug>(outcome: Result<T, MemoryError>) -> String {
    match outcome {
        Err(MemoryError::Refused { why, .. }) => why,
        other => panic!("not refused: {other:?}"),
    }
}

/// By another process: a file that this one has open for writing, and lends to a child that another
/// test starts just then, could not be run.
fn copy_program(from: &Path, to: &Path) {
    assert!(Command::new("cp").args([from, to]).status().unwrap().success());
}

#[test]
fn an_image_of_the_wrong_size_is_refused_by_the_shell() {
    let world = World::new(64);
    let mut shell = world.driver.shell(world.place()).unwrap();
    for pages in [63, 65] {
        let error = shell.adopt(Image::new(pages).unwrap().file()).err().unwrap();
        assert_eq!(
            chain(&error),
            "cannot get hold of the memory of parent (userfaultfd): Invalid argument (os error 22)"
        );
    }
    assert!(shell.adopt(Image::new(64).unwrap().file()).is_ok(), "it still takes the right one");
}

#[test]
fn without_userfaultfd_the_error_names_the_remedy() {
    let world = World::new(64);
    // A place where other users may run it.
    let program = world.folder.path().join("plain-vm");
    copy_program(&world.driver.program, &program);
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    let driver = Plain { program, user: Some(65_534), ..world.driver.clone() };
    let mut shell = driver.shell(world.place()).unwrap();
    let error = chain(&shell.adopt(Image::new(64).unwrap().file()).err().unwrap());
    assert!(error.contains("may not use userfaultfd: run as root"), "{error}");
    let vm = driver.boot(world.place(), &no_image()).unwrap();
    let keeper = MemoryServer::start(MEMSERVER.into(), world.folder.path().into(), None).unwrap();
    let error = keeper.add_guest(vm.id(), vm.memory()).unwrap_err();
    assert!(matches!(error, ServerError::Access(HypervisorError::System { .. })), "{error}");
    assert!(chain(&error).contains("run as root"), "{}", chain(&error));
}

#[test]
fn a_missing_program_is_named() {
    let world = World::new(64);
    let nowhere = PathBuf::from("/nowhere/flurry-memtap");
    let error = MemoryServer::start(nowhere.clone(), world.folder.path().into(), Some(view(64))).unwrap_err();
    let text = chain(&error);
    assert!(text.contains("cannot start /nowhere/flurry-memtap: No such file"), "{text}");
    let driver = Plain { program: nowhere, ..world.driver.clone() };
    let error = driver.shell(world.place()).err().unwrap();
    let text = chain(&error);
    assert!(text.starts_with("cannot start /nowhere/flurry-memtap for parent: No such file"), "{text}");
}

#[test]
fn a_log_that_cannot_be_written_is_an_error() {
    let error = MemoryServer::start(MEMTAP.into(), "/nowhere".into(), None).unwrap_err();
    assert!(matches!(error, ServerError::System(_)), "{error}");
}

#[test]
fn a_program_that_ends_at_once_is_gone() {
    let (process, mut child) = process("/bin/true");
    child.wait().unwrap();
    let error = process.stats().unwrap_err();
    assert!(matches!(error, MemoryError::Gone { pid, .. } if pid == child.id()), "{error}");
    assert_eq!(error.to_string(), format!("the memory process {} does not answer", child.id()));
}

#[test]
fn a_memory_program_started_by_hand_says_so() {
    for program in [MEMSERVER, MEMTAP] {
        let output = Command::new(program).stdin(Stdio::null()).output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("it is started by the engine, not by hand"), "{said}");
    }
}

#[test]
fn a_memory_process_ends_when_the_engine_does() {
    let (process, mut child) = process(MEMTAP);
    process.open(&view(4), false).unwrap();
    drop(process);
    assert!(child.wait().unwrap().success());
}

#[test]
fn a_guest_that_nobody_knows_is_refused_and_may_be_removed() {
    let (process, _child) = process(MEMSERVER);
    let image = Image::new(4).unwrap();
    let why = refused(process.freeze(GuestId(9), CheckpointId(1), &image));
    assert_eq!(why, "guest 9 is not served here");
    process.remove_guest(GuestId(9)).unwrap();
    process.thaw(GuestId(9), CheckpointId(1)).unwrap();
}

#[test]
fn a_memserver_has_no_pages_to_give() {
    let (process, _child) = process(MEMSERVER);
    for why in [
        refused(process.complete()),
        refused(process.prefetch(&[PageIndex(0)])),
        refused(process.take_record()),
    ] {
        assert_eq!(why, "no checkpoint was opened");
    }
}

#[test]
fn pages_beyond_memory_are_refused_and_do_not_make_the_image_longer() {
    let (process, _child) = process(MEMTAP);
    let view = view(8);
    process.open(&view, false).unwrap();
    let why = refused(process.prefetch(&[PageIndex(1), PageIndex(8)]));
    assert_eq!(why, "page 8 is beyond the 8 pages of this guest");
    assert_eq!(process.prefetch(&[PageIndex(0)]).unwrap(), 1, "it goes on");
    assert_eq!(view.image.file().metadata().unwrap().len(), 8 * PAGE_BYTES as u64);
}

#[test]
fn a_view_whose_ram_file_is_too_short_is_an_error_not_a_wrong_page() {
    let (process, _child) = process(MEMTAP);
    let ram = memfd("ram", 3 * PAGE_BYTES as u64).unwrap();
    let view = FrozenView { image: Image::new(4).unwrap(), source: Source::RamFile(ram) };
    process.open(&view, true).unwrap();
    assert_eq!(refused(process.complete()), "failed to fill whole buffer");
    assert_eq!(view.image.count(), 0);
}

#[test]
fn an_image_that_does_not_fit_the_guest_is_not_used_to_freeze_it() {
    let world = World::new(64);
    let parent = world.boot();
    let small = Image::new(63).unwrap();
    let error = parent.keeper.freeze(parent.id, CheckpointId(1), &small).unwrap_err();
    assert!(chain(&error).ends_with("an image of 63 pages does not fit a guest of 64"), "{}", chain(&error));
    // Nothing is protected: the parent writes without saving anything.
    parent.vcpu().write(0, 64, 0, seed()).unwrap();
    assert_eq!((small.count(), parent.keeper.stats().unwrap().saved), (0, 0));
}

#[test]
fn the_memory_of_a_dead_vm_cannot_be_frozen_or_served() {
    let world = World::new(64);
    let mut parent = world.boot();
    parent.vcpu().write(0, 1, 0, seed()).unwrap();
    let vm = parent.vm.get_mut().unwrap();
    let memory = vm.memory().hand_over().unwrap();
    assert!(vm.process().kill(Duration::from_secs(5)));
    let image = Image::new(64).unwrap();
    let error = chain(&parent.keeper.freeze(parent.id, CheckpointId(1), &image).unwrap_err());
    assert!(error.contains("its memory cannot be write-protected"), "{error}");
    parent.keeper.thaw(parent.id, CheckpointId(1));
    let (tap, _child) = process(MEMTAP);
    let clone = GuestMemory { ram_file: None, ..memory };
    // It is a zombie until its driver looks, so the driver is dropped first.
    drop(parent);
    let why = refused(tap.add_guest(&clone, &[]));
    assert!(why.starts_with(&format!("cannot open /proc/{}/mem", clone.pid)), "{why}");
    let error = ProcessSource::open(clone.pid, clone.region, view(64)).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::NotFound);
}

#[test]
fn a_forked_clone_that_ends_too_early_leaves_an_error_not_a_wrong_page() {
    let (seed, world) = (seed(), World::new(64));
    let mut parent = world.boot();
    parent.vcpu().write(0, 64, 0, seed).unwrap();
    let first = world.checkpoint(&mut parent);
    let mut child = world.clone_of(&first);
    child.vcpu().write(0, 10, 0, seed + 1).unwrap();
    let second = world.checkpoint(&mut child);
    drop(child);
    let error = chain(&second.memtap.complete().unwrap_err());
    assert!(error.contains("failed to fill whole buffer"), "{error}");
    let grandchild = world.clone_of(&second);
    let vcpu = grandchild.vcpu();
    vcpu.set_patience(Duration::from_millis(300)).unwrap();
    assert!(vcpu.check(0, 1, 0, seed + 1).is_err(), "it waits rather than see something else");
    let log = std::fs::read_to_string(world.folder.path().join("memory.log")).unwrap();
    assert!(log.contains("fault not resolved"), "{log}");
}

#[test]
fn freezing_memory_that_is_not_registered_freezes_nothing() {
    let (process, _child) = process(MEMSERVER);
    let uffd = snowflock_engine::sys::uffd::Uffd::open().unwrap();
    let region = Region { address: 0x7000_0000_0000, len: 4 * PAGE_BYTES as u64 };
    let ram = memfd("ram", region.len).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&ram, b"content", 0).unwrap();
    let ram_file = Some(ram);
    let memory = GuestMemory { guest: GuestId(0), pid: std::process::id(), region, uffd, ram_file };
    process.add_guest(&memory, &[]).unwrap();
    let why = refused(process.freeze(GuestId(0), CheckpointId(1), &Image::new(4).unwrap()));
    assert!(why.starts_with("its memory cannot be write-protected"), "{why}");
}

#[test]
fn a_successor_that_cannot_be_started_is_an_error_for_every_caller() {
    let world = World::new(64);
    let program = world.folder.path().join("memtap");
    copy_program(Path::new(MEMTAP), &program);
    let server = MemoryServer::start(program.clone(), world.folder.path().into(), Some(view(64))).unwrap();
    std::fs::remove_file(&program).unwrap();
    assert!(ProcessIdentity::of(server.pid()).unwrap().kill(Duration::from_secs(5)));
    for _ in 0..2 {
        let error = chain(&server.stats().unwrap_err());
        assert!(error.contains("cannot start"), "{error}");
    }
    copy_program(Path::new(MEMTAP), &program);
    assert_eq!(server.complete().unwrap(), 64, "and it heals when it can");
}

#[test]
fn a_page_that_a_memserver_is_asked_for_is_not_invented() {
    // A clone served by a memserver by mistake: it has no source for absent pages.
    let (seed, world) = (seed(), World::new(64));
    let mut parent = world.boot();
    let checkpoint = world.checkpoint(&mut parent);
    let clone = world.clone_of(&checkpoint);
    checkpoint.memtap.remove_guest(clone.id);
    parent.keeper.add_guest(CloneId(77), clone.vm.lock().unwrap().memory()).unwrap();
    let vcpu = clone.vcpu();
    vcpu.set_patience(Duration::from_millis(200)).unwrap();
    assert!(vcpu.check(0, 1, 0, seed).is_err());
    let log = || std::fs::read_to_string(world.folder.path().join("memory.log")).unwrap();
    eventually("a line in the log", || log().contains("an absent page in a guest that has all"));
}

#[test]
fn a_fault_that_could_not_be_resolved_is_tried_again() {
    let (seed, world) = (seed(), World::new(64));
    let mut parent = world.boot();
    parent.vcpu().write(0, 64, 0, seed).unwrap();
    let checkpoint = world.checkpoint(&mut parent);
    let Source::RamFile(ram) = &checkpoint.view.source else { panic!("the parent is a root") };
    // The page cannot be read for a while, as if the host had no memory left.
    ram.set_len(32 * PAGE_BYTES as u64).unwrap();
    let clone = world.clone_of(&checkpoint);
    std::thread::scope(|scope| {
        let reader = scope.spawn(|| clone.assert_holds(40, 1, 0, seed));
        let log = || std::fs::read_to_string(world.folder.path().join("memory.log")).unwrap();
        eventually("a line in the log", || log().contains("fault not resolved"));
        clone.assert_holds(8, 1, 0, seed);
        ram.set_len(64 * PAGE_BYTES as u64).unwrap();
        let page = snowflock_engine::hypervisor::plain::content::page(seed, PageIndex(40));
        std::os::unix::fs::FileExt::write_all_at(ram, &page, PageIndex(40).offset()).unwrap();
        reader.join().unwrap();
    });
}

#[test]
fn a_shell_refuses_a_state_or_a_disk_that_is_none() {
    let world = World::new(64);
    let mut parent = world.boot();
    let checkpoint = world.checkpoint(&mut parent);
    let seeded = |state: &[u8], disk: &Path| {
        let mut shell = world.driver.shell(world.place()).unwrap();
        shell.adopt(checkpoint.image.file()).unwrap();
        let mut frozen = checkpoint.disk.clone();
        frozen.layers[0].path = disk.into();
        shell.seed(&Seed { device_state: state, disk: &frozen }).err().map(|error| error.to_string())
    };
    let (state, disk) = (&checkpoint.state[..], &checkpoint.disk.layers[0].path);
    assert_eq!(seeded(state, disk), None);
    assert!(seeded(&state[1..], disk).unwrap().contains("loading the device state"));
    assert!(seeded(state, Path::new("/nowhere")).unwrap().contains("attaching the disk"));
}

#[test]
fn the_agent_of_a_plain_vm_takes_an_identity_once_its_memory_is_served() {
    let world = World::new(64);
    let mut parent = world.boot();
    let mut line = Agent::new(parent.vm.get_mut().unwrap().take_agent().unwrap(), None).unwrap();
    line.wait_for_hello(Duration::from_secs(5)).unwrap();
    assert!(parent.vm.get_mut().unwrap().take_agent().is_none(), "given out once");
    let checkpoint = world.checkpoint(&mut parent);
    let clone = world.clone_of(&checkpoint);
    checkpoint.memtap.remove_guest(clone.id);
    let mut line = Agent::new(clone.vm.lock().unwrap().take_agent().unwrap(), None).unwrap();
    let identity = identity(clone.id);
    assert!(line.identify(&identity, Duration::from_millis(300)).is_err(), "it waits for a page");
    checkpoint.memtap.add_guest(clone.id, clone.vm.lock().unwrap().memory()).unwrap();
    line.identify(&identity, Duration::from_secs(5)).unwrap();
    assert!(Arc::strong_count(&checkpoint.memtap) >= 2);
}

fn identity(id: CloneId) -> wire::Identity {
    wire::Identity {
        clone_id: id.0,
        clones: 1,
        unix_time_ns: 1,
        mac: [2, 0, 0, 0, 0, 1],
        ipv4: [10, 0, 0, 3].into(),
        prefix_len: 24,
        gateway: [10, 0, 0, 1].into(),
        parent_ipv4: [10, 0, 0, 2].into(),
        entropy: [7; 32],
        hostname: wire::Name::cut("web-1"),
    }
}
