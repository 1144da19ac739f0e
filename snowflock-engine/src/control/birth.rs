//! The birth of a clone: a shell and a checkpoint become a VM with an identity.
//!
//!   adopt image -> serve memory -> load device state -> resume -> identity taken
//!      any failure: memory is no longer served, the VM is gone

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::checkpoint::Checkpoint;
use super::host::Host;
use super::view::ForkTimes;
use super::{EngineError, report};
use crate::agent::{Agent, AgentError, Caller};
use crate::hypervisor::{MemoryAccess, Seed, Shell, Vm};
use crate::network::identity::CloneId;
use crate::wire::HookEvent;

/// A VM and the line to the agent in it, which stays open for as long as the VM lives.
pub(super) struct Guest {
    pub(super) vm: Box<dyn Vm>,
    pub(super) agent: Agent,
}

impl Guest {
    /// Lets the guest's user act. Whatever comes of it, the engine goes on: a guest must not hold it up.
    pub(super) fn run_hooks(&mut self, event: HookEvent, limit: Duration) {
        let (vm, event_name) = (self.vm.id(), event.name());
        match self.agent.run_hooks(event, limit) {
            Ok(done) if done.failed > 0 => tracing::warn!(
                %vm, event = event_name, ran = done.ran, failed = done.failed, first = ?done.first_failed,
                "hooks failed"
            ),
            Ok(done) => tracing::debug!(%vm, event = event_name, ran = done.ran, "hooks ran"),
            Err(error) => {
                let error = report(&error);
                tracing::warn!(%vm, event = event_name, error, "it is not known whether hooks ran");
            }
        }
    }
}

/// A clone that has its own identity.
pub(super) struct Born {
    pub(super) guest: Guest,
    pub(super) times: ForkTimes,
}

/// What is told on the way.
pub(super) enum Progress {
    /// The way to its memory, which is served from now on.
    Served(Arc<dyn MemoryAccess>),
    Seeded,
    Running,
}

/// How many siblings are born with it, when that began, and how long its identity may take,
/// and the state that all start from.
#[derive(Clone)]
pub(super) struct Litter {
    pub(super) clones: u32,
    /// The place of this one among them, from 1.
    pub(super) place: u32,
    pub(super) began: Instant,
    pub(super) identity_limit: Duration,
    /// Of the checkpoint, read from its descriptor.
    pub(super) device_state: Arc<Vec<u8>>,
}

/// Does all of it; blocks for a tenth of a second or so.
pub(super) fn give_birth(
    host: &Host,
    checkpoint: &Checkpoint,
    shell: Box<dyn Shell>,
    litter: &Litter,
    tell: &dyn Fn(Progress),
) -> Result<Born, EngineError> {
    let id = shell.id();
    let born = deliver(host, checkpoint, shell, litter, tell);
    if born.is_err() {
        checkpoint.memtap.remove_guest(id);
    }
    born
}

fn deliver(
    host: &Host,
    checkpoint: &Checkpoint,
    mut shell: Box<dyn Shell>,
    litter: &Litter,
    tell: &dyn Fn(Progress),
) -> Result<Born, EngineError> {
    let id = shell.id();
    let memory = shell.adopt(checkpoint.image.file())?;
    checkpoint.memtap.add_guest(id, Arc::clone(&memory))?;
    tell(Progress::Served(memory));
    let mut vm = shell.seed(&Seed { device_state: &litter.device_state, disk: &checkpoint.disk })?;
    let seeded = litter.began.elapsed();
    tell(Progress::Seeded);
    let mut agent = agent_of(host, vm.as_mut())?;
    if let Some(call) = checkpoint.asked_by {
        agent.forked_by(call, litter.place);
    }
    vm.resume()?;
    let running = litter.began.elapsed();
    tell(Progress::Running);
    agent.identify(&host.identity(id, litter.clones)?, litter.identity_limit)?;
    let joined = litter.began.elapsed();
    let guest = Guest { vm, agent };
    Ok(Born { guest, times: ForkTimes { id, seeded, running, joined, first_response: None } })
}

/// The line to a VM's agent, which nobody has taken before.
pub(super) fn agent_of(host: &Host, vm: &mut dyn Vm) -> Result<Agent, EngineError> {
    let stream = vm.take_agent().ok_or(EngineError::NotForkable(CloneId(vm.id().0)))?;
    Ok(Agent::new(stream, Some(Caller { from: vm.id(), to: host.calls.clone() }))
        .map_err(AgentError::from)?)
}
