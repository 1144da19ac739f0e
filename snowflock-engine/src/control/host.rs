//! What every worker of the engine needs of this host: hypervisor, network,
//! programs, folders.

use std::io::{self, Read, Seek};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use std::time::{SystemTime, UNIX_EPOCH};

use tokio::sync::mpsc::Sender;

use super::{BetweenHosts, EngineError};
use crate::agent::Called;
use crate::descriptor::{Architecture, HostCapabilities, MachineShape};
use crate::hypervisor::{BootImage, Hypervisor, Machine, Place};
use crate::memory::PAGE_BYTES;
use crate::network::Network;
use crate::network::identity::CloneId;
use crate::wire;

/// Programs that the engine starts.
#[derive(Debug, Clone)]
pub struct Programs {
    /// QEMU.
    pub qemu: PathBuf,
    /// The library that is loaded into it.
    pub shim: PathBuf,
    /// Keeps frozen memory of a parent.
    pub memserver: PathBuf,
    /// Gives clones their pages.
    pub memtap: PathBuf,
}

/// Environment variable: the folder that holds the engine's own programs.
pub const ENV_PROGRAMS: &str = "FLURRY_LIBEXEC";

impl Programs {
    /// Finds the engine's programs in the folder named by the environment, beside the running
    /// program, or in `/usr/lib/flurry`; QEMU by the search path.
    ///
    /// # Errors
    /// One of them is missing; the error names it and where it was looked for.
    pub fn find() -> Result<Self, EngineError> {
        let (qemu, shim) = (in_search_path("qemu-system-x86_64")?, own("libsnowflock_shim.so")?);
        Ok(Self { qemu, shim, ..Self::find_without_qemu()? })
    }

    /// The same for a driver that needs neither QEMU nor its shim.
    ///
    /// # Errors
    /// As for [`Programs::find`].
    pub fn find_without_qemu() -> Result<Self, EngineError> {
        let (memserver, memtap) = (own("flurry-memserver")?, own("flurry-memtap")?);
        Ok(Self { qemu: PathBuf::new(), shim: PathBuf::new(), memserver, memtap })
    }
}

/// One of the engine's own programs.
fn own(name: &str) -> Result<PathBuf, EngineError> {
    let beside = std::env::current_exe().ok().and_then(|exe| Some(exe.parent()?.to_path_buf()));
    let above = beside.as_ref().and_then(|folder| Some(folder.parent()?.to_path_buf()));
    let named = std::env::var_os(ENV_PROGRAMS).map(PathBuf::from);
    let folders: Vec<PathBuf> =
        [named, beside, above, Some("/usr/lib/flurry".into())].into_iter().flatten().collect();
    let found = folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| EngineError::NoProgram { name: name.into(), folders })
}

fn in_search_path(name: &str) -> Result<PathBuf, EngineError> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders: Vec<PathBuf> = std::env::split_paths(&path).collect();
    let found = folders.iter().map(|folder| folder.join(name)).find(|path| path.is_file());
    found.ok_or_else(|| EngineError::NoProgram { name: name.into(), folders })
}

/// The only one that guests have so far.
const ARCHITECTURE: Architecture = Architecture::X86_64;

/// The last lines that a VM of the engine with this state folder has printed on its console, or the first
/// ones of its kernel's panic; as one line without control characters, since a guest may print anything.
#[must_use]
pub fn console_tail(state_folder: &Path, id: CloneId) -> String {
    const LINES: usize = 5;
    let text = end_of_file(&state_folder.join(id.to_string()).join("console")).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let printable = |line: &str| line.chars().filter(|c| !c.is_control()).collect::<String>();
    let lines: Vec<String> = text.lines().map(printable).filter(|line| !line.trim().is_empty()).collect();
    let panic = lines.iter().position(|line| line.contains("Kernel panic"));
    let from = panic.unwrap_or(lines.len().saturating_sub(LINES));
    let tail = &lines[from..lines.len().min(from + LINES)];
    if tail.is_empty() { "(nothing was printed)".into() } else { tail.join(" / ") }
}

/// So much of a console is looked at, bytes: a guest may print without end.
const CONSOLE_END: u64 = 64 << 10;

fn end_of_file(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = std::fs::File::open(path)?;
    let start = file.metadata()?.len().saturating_sub(CONSOLE_END);
    file.seek(io::SeekFrom::Start(start))?;
    let mut bytes = Vec::new();
    file.take(CONSOLE_END).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// This host.
pub(super) struct Host {
    pub(super) name: String,
    pub(super) hypervisor: Box<dyn Hypervisor>,
    pub(super) network: Network,
    pub(super) programs: Programs,
    pub(super) folder: PathBuf,
    pub(super) image: BootImage,
    pub(super) machine: Machine,
    /// What it shares with other hosts.
    pub(super) between: Option<BetweenHosts>,
    /// SHA-256 of the disk image that VMs boot from, if it is shared with other hosts.
    pub(super) base: Option<String>,
    /// The engine ends: nobody is to wait for other hosts any more.
    pub(super) closing: AtomicBool,
    /// Where the calls of guests go.
    pub(super) calls: Sender<Called>,
}

impl Host {
    /// Makes folder and network port of a VM.
    pub(super) fn place(&self, id: CloneId) -> Result<Place, EngineError> {
        let folder = self.vm_folder(id);
        std::fs::create_dir_all(&folder)
            .map_err(|source| EngineError::System { what: format!("create {}", folder.display()), source })?;
        Ok(Place { id, folder, port: self.network.add_port(id)? })
    }

    /// Removes what [`Host::place`] made. The VM must be gone, and no checkpoint of it may live.
    pub(super) fn vacate(&self, id: CloneId) {
        self.leave_network(id);
        self.remove_files(id);
    }

    /// Removes its network port.
    pub(super) fn leave_network(&self, id: CloneId) {
        if let Err(error) = self.network.remove_port(id) {
            tracing::warn!(%error, vm = %id, "its port is left");
        }
    }

    /// Removes its files; disk layers are among them.
    pub(super) fn remove_files(&self, id: CloneId) {
        let _ = std::fs::remove_dir_all(self.vm_folder(id));
    }

    fn vm_folder(&self, id: CloneId) -> PathBuf {
        self.folder.join(id.to_string())
    }

    /// The identity that this ID stands for, with the time and fresh entropy.
    pub(super) fn identity(&self, id: CloneId, clones: u32) -> io::Result<wire::Identity> {
        let block = self.network.block();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Ok(wire::Identity {
            clone_id: id.0,
            clones,
            unix_time_ns: now.as_nanos() as u64,
            mac: crate::network::identity::mac_address(&self.name, id).0,
            ipv4: block.address(id),
            prefix_len: block.prefix_len(),
            gateway: block.gateway(),
            parent_ipv4: block.address(CloneId::PARENT),
            entropy: Self::random_bytes()?,
            hostname: wire::Name::cut(&format!("{}-{id}", self.name)),
        })
    }

    /// Fresh randomness of the host's kernel.
    pub(super) fn random_bytes() -> io::Result<[u8; 32]> {
        let mut bytes = [0; 32];
        std::fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    /// The shape of this host's VMs.
    pub(super) fn machine_shape(&self) -> MachineShape {
        self.shape(self.machine.memory_bytes())
    }

    /// The same with memory as a VM really has it.
    pub(super) fn shape(&self, memory_bytes: u64) -> MachineShape {
        MachineShape {
            architecture: ARCHITECTURE,
            vcpus: self.machine.vcpus.into(),
            page_bytes: PAGE_BYTES as u32,
            memory_bytes,
        }
    }

    /// What this host can make clones of.
    pub(super) fn capabilities(&self) -> HostCapabilities {
        let driver = self.hypervisor.driver();
        HostCapabilities {
            architecture: ARCHITECTURE,
            driver: driver.name,
            driver_version: driver.version,
            accelerator: driver.accelerator,
            page_size: PAGE_BYTES as u32,
        }
    }

    /// Memory that the host could give to further guests, MiB.
    pub(super) fn available_mib() -> u64 {
        let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let line = text.lines().find_map(|line| line.strip_prefix("MemAvailable:"));
        line.and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) / 1024
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tail_of(printed: &str) -> String {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("parent")).unwrap();
        std::fs::write(folder.path().join("parent/console"), printed).unwrap();
        console_tail(folder.path(), CloneId::PARENT)
    }

    #[test]
    fn a_console_is_told_by_its_last_lines_without_control_characters() {
        assert_eq!(tail_of(" \r\n"), "(nothing was printed)");
        assert_eq!(tail_of("1\n2\r\n\n3\n\x1b[1m4\n5\n6\n"), "2 / 3 / [1m4 / 5 / 6");
        let nowhere = console_tail(Path::new("/nonexistent"), CloneId::PARENT);
        assert_eq!(nowhere, "(nothing was printed)");
    }

    #[test]
    fn of_a_long_console_only_the_end_is_read() {
        let printed = "Kernel panic long ago\n".repeat(100_000) + "now\n";
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("console");
        std::fs::write(&path, &printed).unwrap();
        let end = end_of_file(&path).unwrap();
        assert_eq!((end.len() as u64, end.ends_with(b"ago\nnow\n")), (CONSOLE_END, true));
    }

    #[test]
    fn a_kernels_panic_is_told_before_its_traces() {
        let printed = "early\nKernel panic - not syncing\n1\n2\n3\n4\n5\n";
        assert_eq!(tail_of(printed), "Kernel panic - not syncing / 1 / 2 / 3 / 4");
    }
}
