//! One QEMU process with its sockets: what a VM and a shell have in common.

use std::fs::File;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use super::Qemu;
use super::command_line::{self, AGENT_FD, QMP_FD, RAM_FD, Start, TAP_FD};
use super::qmp::{Qmp, QmpError};
use super::shim::ShimAccess;
use crate::hypervisor::{HypervisorError, Place};
use crate::shim_protocol::{ENV_PRIVATE, ENV_RAM_FD, ENV_SOCKET};
use crate::sys::memory::memfd;
use crate::sys::process::{ENV_OWNER, ProcessIdentity, inherit};

/// QEMU's answer to a command; the slowest, under emulation on a busy host, take tens of milliseconds.
pub(super) const COMMAND_LIMIT: Duration = Duration::from_secs(10);
const KILL_LIMIT: Duration = Duration::from_secs(5);
const LOG_TAIL: usize = 600;

/// A QEMU process. Dropping it kills it and waits for its end.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) place: Place,
    pub(super) qmp: Qmp,
    pub(super) agent: Option<UnixStream>,
    pub(super) identity: ProcessIdentity,
    pub(super) memory: Arc<ShimAccess>,
    child: Child,
}

impl Instance {
    /// Starts QEMU with this disk layer and waits until it takes commands.
    pub(super) fn start(
        qemu: &Qemu,
        place: Place,
        disk: &Path,
        start: &Start<'_>,
    ) -> Result<Self, HypervisorError> {
        let system = |what: String| move |source| HypervisorError::System { what, source };
        let io = |what: &str| system(format!("{what} for {}", place.id));
        let ram = memfd("flurry-ram", qemu.machine.memory_bytes()).map_err(io("create the RAM file"))?;
        let (qmp, qmp_theirs) = UnixStream::pair().map_err(io("create a socket"))?;
        let (agent, agent_theirs) = UnixStream::pair().map_err(io("create a socket"))?;
        let shim_socket = place.folder.join("shim");
        let log = File::create(place.folder.join("log")).map_err(io("create the log"))?;
        let mut command = Command::new(&qemu.programs.qemu);
        command
            .args(command_line::arguments(&qemu.machine, qemu.accelerator, &place, disk, start))
            .env("LD_PRELOAD", &qemu.programs.shim)
            .env(ENV_RAM_FD, RAM_FD.to_string())
            .env(ENV_SOCKET, &shim_socket)
            .env(ENV_OWNER, &qemu.folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .process_group(0);
        if matches!(start, Start::Hollow) {
            command.env(ENV_PRIVATE, "1");
        }
        let pairs = [
            (ram.as_raw_fd(), RAM_FD),
            (qmp_theirs.as_raw_fd(), QMP_FD),
            (agent_theirs.as_raw_fd(), AGENT_FD),
            (place.port.tap.as_raw_fd(), TAP_FD),
        ];
        inherit(&mut command, &pairs);
        let child = command.spawn().map_err(system(format!("start {}", qemu.programs.qemu.display())))?;
        drop((qmp_theirs, agent_theirs));
        let is_clone = matches!(start, Start::Hollow);
        let memory = ShimAccess::new(place.id, child.id(), shim_socket, is_clone);
        Self::meet(place, child, qmp, agent, memory)
    }

    fn meet(
        place: Place,
        mut child: Child,
        qmp: UnixStream,
        agent: UnixStream,
        memory: ShimAccess,
    ) -> Result<Self, HypervisorError> {
        let identity = || ProcessIdentity::of(child.id()).ok_or(std::io::ErrorKind::NotFound);
        let met = Qmp::greet(qmp, COMMAND_LIMIT)
            .and_then(|qmp| Ok((qmp, identity().map_err(std::io::Error::from)?)));
        match met {
            Ok((qmp, identity)) => {
                Ok(Self { place, qmp, agent: Some(agent), identity, memory: Arc::new(memory), child })
            }
            Err(error) => {
                let _ = child.kill();
                let _ = child.wait();
                Err(explain(&place, "starting QEMU", error))
            }
        }
    }

    /// Runs a QMP command.
    pub(super) fn command(&mut self, name: &str, arguments: Value) -> Result<Value, HypervisorError> {
        self.qmp.execute(name, arguments, COMMAND_LIMIT).map_err(|error| explain(&self.place, name, error))
    }

    /// An error of a QMP call that was made directly.
    pub(super) fn explain(&self, what: &str, error: QmpError) -> HypervisorError {
        explain(&self.place, what, error)
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        if !self.identity.kill(KILL_LIMIT) {
            tracing::error!(vm = %self.place.id, pid = self.identity.pid, "QEMU outlives SIGKILL");
            return;
        }
        let _ = self.child.wait();
    }
}

fn explain(place: &Place, what: &str, error: QmpError) -> HypervisorError {
    match error {
        QmpError::Refused(said) => HypervisorError::Refused { vm: place.id, what: what.into(), said },
        QmpError::Silent(_) => HypervisorError::Silent {
            vm: place.id,
            what: what.into(),
            limit: COMMAND_LIMIT,
            log: log_tail(&place.folder.join("log")),
        },
    }
}

fn log_tail(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    let tail = &text[text.len().saturating_sub(LOG_TAIL)..];
    String::from_utf8_lossy(tail).trim().replace('\n', " / ")
}
