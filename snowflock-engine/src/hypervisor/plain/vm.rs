//! A plain VM and its shell, seen from the host.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use super::protocol::{AGENT_FD, Answer, CONTROL_FD, Control, RAM_FD, Registers, SHIM_SOCKET, hear, say};
use super::{DISK_FILE, Plain};
use crate::descriptor::DiskLayer;
use crate::hypervisor::qemu::shim::ShimAccess;
use crate::hypervisor::{FrozenDisk, HypervisorError, MemoryAccess, Place, Seed, Shell, Vm};
use crate::network::Port;
use crate::network::identity::CloneId;
use crate::sys::fdpass::Channel;
use crate::sys::memory::memfd;
use crate::sys::process::{ENV_OWNER, ProcessIdentity, inherit};

const ANSWER_LIMIT: Duration = Duration::from_secs(10);
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// How it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    Boot,
    Hollow,
}

/// A plain VM; hollow until it is seeded. Dropping it kills it.
#[derive(Debug)]
pub(super) struct PlainVm {
    place: Place,
    control: Channel,
    agent: Option<UnixStream>,
    identity: ProcessIdentity,
    memory: Arc<ShimAccess>,
    layers: u32,
    child: Child,
}

impl PlainVm {
    pub(super) fn start(driver: &Plain, place: Place, start: Start) -> Result<Self, HypervisorError> {
        let what = format!("start {} for {}", driver.program.display(), place.id);
        Self::spawn(driver, place, start).map_err(|source| HypervisorError::System { what, source })
    }

    fn spawn(driver: &Plain, place: Place, start: Start) -> io::Result<Self> {
        let (control, control_theirs) = Channel::pair()?;
        let (agent, agent_theirs) = UnixStream::pair()?;
        control.set_timeout(Some(ANSWER_LIMIT))?;
        let hollow = start == Start::Hollow;
        let ram = memfd("flurry-plain-ram", if hollow { 0 } else { driver.memory_bytes })?;
        let mut command = Command::new(&driver.program);
        command.arg(if hollow { "hollow" } else { "boot" }).arg(driver.memory_bytes.to_string());
        command.arg(&place.folder).env(ENV_OWNER, &driver.folder).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.stderr(File::create(place.folder.join("log"))?);
        if let Some(user) = driver.user {
            command.uid(user);
        }
        let pairs = [
            (control_theirs.as_fd().as_raw_fd(), CONTROL_FD),
            (agent_theirs.as_raw_fd(), AGENT_FD),
            (ram.as_raw_fd(), RAM_FD),
        ];
        inherit(&mut command, &pairs);
        let mut child = command.spawn()?;
        drop((control_theirs, agent_theirs));
        let log = place.folder.join("log");
        let ready = hear(&control).and_then(|answer: Answer| match answer {
            Answer::Done => ProcessIdentity::of(child.id()).ok_or(io::ErrorKind::NotFound.into()),
            other => Err(io::Error::other(format!("unexpected answer {other:?}"))),
        });
        let identity = ready.map_err(|error| {
            let _ = child.kill();
            let _ = child.wait();
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            io::Error::new(error.kind(), format!("it ended: {}", said.trim()))
        })?;
        let memory = Arc::new(ShimAccess::new(place.id, child.id(), place.folder.join(SHIM_SOCKET), hollow));
        Ok(Self { place, control, agent: Some(agent), identity, memory, layers: 0, child })
    }

    fn ask(&self, request: &Control) -> Result<Answer, HypervisorError> {
        let answer = say(&self.control, request).and_then(|()| hear(&self.control));
        answer.map_err(|_| HypervisorError::Silent {
            vm: self.place.id,
            what: format!("{request:?}"),
            limit: ANSWER_LIMIT,
            log: std::fs::read_to_string(self.place.folder.join("log")).unwrap_or_default(),
        })
    }

    fn refused(&self, what: &str, said: impl ToString) -> HypervisorError {
        HypervisorError::Refused { vm: self.place.id, what: what.into(), said: said.to_string() }
    }
}

impl Drop for PlainVm {
    fn drop(&mut self) {
        if self.identity.kill(KILL_LIMIT) {
            let _ = self.child.wait();
        }
    }
}

impl Shell for PlainVm {
    fn id(&self) -> CloneId {
        self.place.id
    }

    fn process(&self) -> ProcessIdentity {
        self.identity
    }

    fn adopt(&mut self, image: &File) -> Result<Arc<dyn MemoryAccess>, HypervisorError> {
        self.memory.adopt(image)?;
        Ok(self.memory.clone())
    }

    fn seed(self: Box<Self>, seed: &Seed<'_>) -> Result<Box<dyn Vm>, HypervisorError> {
        let registers: Registers = serde_json::from_slice(seed.device_state)
            .map_err(|error| self.refused("loading the device state", error))?;
        for layer in &seed.disk.layers {
            std::fs::metadata(&layer.path).map_err(|error| self.refused("attaching the disk", error))?;
        }
        self.ask(&Control::Seed(registers))?;
        Ok(self)
    }
}

impl Vm for PlainVm {
    fn id(&self) -> CloneId {
        self.place.id
    }

    fn port(&self) -> &Port {
        &self.place.port
    }

    fn process(&self) -> ProcessIdentity {
        self.identity
    }

    fn memory(&self) -> Arc<dyn MemoryAccess> {
        self.memory.clone()
    }

    fn take_agent(&mut self) -> Option<UnixStream> {
        self.agent.take()
    }

    fn prepare_pause(&mut self) -> Result<(), HypervisorError> {
        Ok(())
    }

    fn tidy_disk(&mut self) -> Result<Vec<PathBuf>, HypervisorError> {
        Ok(Vec::new())
    }

    fn pause(&mut self) -> Result<(), HypervisorError> {
        self.ask(&Control::Pause).map(drop)
    }

    fn freeze_disk(&mut self) -> Result<FrozenDisk, HypervisorError> {
        let newest = self.place.folder.join(format!("layer-{}", self.layers));
        let disk = self.place.folder.join(DISK_FILE);
        let made = match disk.exists() {
            true => std::fs::rename(disk, &newest),
            false => File::create(&newest).map(drop),
        };
        made.map_err(|source| HypervisorError::System {
            what: format!("create the disk layer {}", newest.display()),
            source,
        })?;
        self.layers += 1;
        Ok(FrozenDisk { layers: vec![DiskLayer { path: newest, format: "raw".into() }], bytes: 1 << 20 })
    }

    fn describe(&mut self) -> Result<Vec<u8>, HypervisorError> {
        match self.ask(&Control::Describe)? {
            Answer::Registers(registers) => {
                serde_json::to_vec(&registers).map_err(|error| self.refused("describing the VM", error))
            }
            other => Err(self.refused("describing the VM", format!("unexpected answer {other:?}"))),
        }
    }

    fn resume(&mut self) -> Result<(), HypervisorError> {
        self.ask(&Control::Resume).map(drop)
    }
}
