//! What the owner's worker threads do: the slow steps, without any of its state.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::EngineError;
use super::super::birth::{Guest, agent_of};
use super::super::checkpoint::Checkpoint;
use super::super::host::{Host, console_tail};
use super::super::memory_server::MemoryServer;
use super::endings::Left;
use crate::hypervisor::Shell;
use crate::network::identity::CloneId;
use crate::wire::HookEvent;

/// A parent with its identity, and who keeps its memory.
pub(in crate::control) struct Parent {
    pub(super) guest: Guest,
    pub(super) memserver: Arc<MemoryServer>,
}

/// Boots the parent and gives it its identity.
pub(super) fn boot(host: &Host, limit: Duration) -> Result<Parent, EngineError> {
    start_parent(host, Instant::now() + limit).map_err(|error| {
        let error = match error {
            EngineError::Agent(source) => {
                EngineError::NotUp { console: console_tail(&host.folder, CloneId::PARENT), source }
            }
            other => other,
        };
        host.vacate(CloneId::PARENT);
        error
    })
}

fn start_parent(host: &Host, until: Instant) -> Result<Parent, EngineError> {
    let left = || until.saturating_duration_since(Instant::now());
    let mut vm = host.hypervisor.boot(host.place(CloneId::PARENT)?, &host.image)?;
    let mut agent = agent_of(host, vm.as_mut())?;
    agent.wait_for_hello(left())?;
    agent.identify(&host.identity(CloneId::PARENT, 0)?, left().max(Duration::from_secs(1)))?;
    let program = host.programs.memserver.clone();
    let memserver = MemoryServer::start(program, host.folder.clone(), None)?;
    memserver.add_guest(CloneId::PARENT, vm.memory())?;
    Ok(Parent { guest: Guest { vm, agent }, memserver })
}

/// Starts a hollow shell.
pub(super) fn start_shell(host: &Host, id: CloneId) -> Result<Box<dyn Shell>, EngineError> {
    let shell = host.place(id).and_then(|place| Ok(host.hypervisor.shell(place)?));
    if shell.is_err() {
        host.vacate(id);
    }
    shell
}

/// Ends a VM and removes what it has left. With a limit, its hooks run before. What clones of it still miss
/// is fetched before, unless it has failed, and disk layers stay for as long as a checkpoint needs them.
pub(super) fn end(
    host: &Host,
    id: CloneId,
    left: Left,
    hook_limit: Option<Duration>,
    server: Option<Arc<MemoryServer>>,
    own_checkpoints: &[Arc<Checkpoint>],
) {
    match left {
        Left::Nothing => {}
        Left::Shell(shell) => drop(shell),
        Left::Failed(guest) => drop(guest),
        Left::Guest(mut guest) => {
            if let Some(limit) = hook_limit {
                guest.run_hooks(HookEvent::BeforeExit, limit);
            }
            if id != CloneId::PARENT {
                complete(id, own_checkpoints);
            }
        }
    }
    if let Some(server) = server {
        server.remove_guest(id);
    }
    host.leave_network(id);
    if own_checkpoints.is_empty() {
        host.remove_files(id);
    }
}

/// Fetches what clones of a clone that ends still miss.
fn complete(id: CloneId, own_checkpoints: &[Arc<Checkpoint>]) {
    for checkpoint in own_checkpoints {
        if let Err(error) = checkpoint.memtap.complete() {
            tracing::warn!(%error, vm = %id, "clones of this clone may miss pages");
        }
    }
}
