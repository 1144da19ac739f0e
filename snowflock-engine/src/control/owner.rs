//! The owner: one thread, all state, one event at a time.
//!
//!   wait for the next event -> apply it -> start what can be started -> publish the view
//!
//! Whatever takes longer than microseconds (boot, checkpoint, birth, end of a
//! VM, start of a shell) runs on a worker thread that takes the VM along and
//! brings it back in an event.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::birth::{self, Born, Litter, Progress};
use super::checkpoint::{Checkpoint, Subject};
use super::host::Host;
use super::ledger::Ledger;
use super::lifecycle::LifeState;
use super::memory_server::MemoryServer;
use super::registry::{Registry, held};
use super::ticket::{Refusal, Room, TicketAnswer, TicketId};
use super::view::{ForkTimes, PauseTimes, View, VmView};
use super::{Created, EngineError, EngineSpec};
use crate::agent::Agent;
use crate::hypervisor::{MemoryAccess, Shell, Vm};
use crate::memory::PageIndex;
use crate::memory::protocol::CheckpointId;
use crate::network::identity::{CloneId, mac_address};
use crate::sys::process::{ProcessIdentity, set_niceness, wait_for_end};

mod workers;

/// Clones that have ended stay in the view, up to so many.
const REMEMBERED: usize = 64;
/// Phases of so many forks are kept.
const FORKS_KEPT: usize = 1024;
/// After a shell that did not start, the next one is tried when something happens, or after this.
const RETRY: Duration = Duration::from_secs(2);

/// Niceness of a clone from the start of its birth until it answers.
const NICENESS_UNBORN: i32 = -10;

/// Workers end within this once their VMs are gone.
const SHUT_DOWN_LIMIT: Duration = Duration::from_secs(15);

type Reply<T> = oneshot::Sender<T>;
type Fallible<T> = Result<T, EngineError>;

/// What is asked of the owner.
pub(super) enum Command {
    Boot(Reply<Fallible<()>>),
    RequestTicket(u32, Reply<TicketAnswer>),
    Checkpoint(CloneId, Reply<Fallible<CheckpointId>>),
    CreateClones(TicketId, CheckpointId, Reply<Fallible<Created>>),
    Ready(CloneId, Duration),
    Retire(CloneId),
    Exit(CloneId, Reply<()>),
    Kill(TicketId, Reply<Fallible<Vec<CloneId>>>),
    ShutDown(Reply<Fallible<()>>),
}

/// What happens.
pub(super) enum Event {
    Command(Command),
    Booted(Box<Fallible<workers::Parent>>, Reply<Fallible<()>>),
    ShellStarted(CloneId, Fallible<Box<dyn Shell>>),
    Checkpointed(Box<dyn Vm>, Box<Fallible<Checkpoint>>, Reply<Fallible<CheckpointId>>),
    Progress(CloneId, Progress),
    Born(CloneId, Box<Fallible<Born>>),
    WorkingSet(Vec<PageIndex>),
    VmEnded(CloneId),
    Departed(CloneId),
}

impl Event {
    /// Whether this is the one event with which a worker ends.
    fn ends_worker(&self) -> bool {
        !matches!(self, Self::Command(_) | Self::Progress(..) | Self::VmEnded(_))
    }
}

/// A VM, or the place of one.
struct Record {
    view: VmView,
    /// Here, unless a worker has it.
    vm: Option<Box<dyn Vm>>,
    _agent: Option<Agent>,
    /// It is to be ended as soon as a worker brings it back.
    doomed: bool,
    waiting_for_end: Vec<Reply<()>>,
}

/// An `sf_create_clones` under way.
struct Creation {
    open: Vec<CloneId>,
    outcome: Created,
    reply: Reply<Fallible<Created>>,
}

/// A birth that waits for its shell.
struct Wanted {
    checkpoint: Arc<Checkpoint>,
    litter: Litter,
}

/// All state of an engine.
pub(super) struct Owner {
    host: Arc<Host>,
    inbox: Receiver<Event>,
    outbox: Sender<Event>,
    publish: watch::Sender<Arc<View>>,
    shells_wanted: u32,
    max_clones: u32,
    clone_mib: u64,
    boot_limit: Duration,
    identity_limit: Duration,
    registry: Registry,
    shells: BTreeMap<CloneId, Box<dyn Shell>>,
    starting: Option<CloneId>,
    retry_at: Option<Instant>,
    vms: BTreeMap<CloneId, Record>,
    memserver: Option<Arc<MemoryServer>>,
    checkpoints: BTreeMap<CheckpointId, Arc<Checkpoint>>,
    last_checkpoint: u32,
    wanted: BTreeMap<CloneId, Wanted>,
    creations: Vec<Creation>,
    pauses: Vec<PauseTimes>,
    forks: Vec<ForkTimes>,
    /// Pages that the first clone touched until it was ready, in order.
    working_set: Option<Vec<PageIndex>>,
    number: u64,
    answers: Vec<Box<dyn FnOnce() + Send>>,
    /// Workers under way; each ends with one event.
    workers: usize,
}

impl Owner {
    pub(super) fn new(
        spec: &EngineSpec,
        host: Host,
        inbox: Receiver<Event>,
        outbox: Sender<Event>,
        publish: watch::Sender<Arc<View>>,
    ) -> Self {
        Self {
            host: Arc::new(host),
            inbox,
            outbox,
            publish,
            shells_wanted: spec.shells,
            max_clones: spec.max_clones,
            clone_mib: spec.clone_mib,
            boot_limit: spec.boot_limit,
            identity_limit: spec.identity_limit,
            registry: Registry::default(),
            shells: BTreeMap::new(),
            starting: None,
            retry_at: None,
            vms: BTreeMap::new(),
            memserver: None,
            checkpoints: BTreeMap::new(),
            last_checkpoint: 0,
            wanted: BTreeMap::new(),
            creations: Vec::new(),
            pauses: Vec::new(),
            forks: Vec::new(),
            working_set: None,
            number: 0,
            answers: Vec::new(),
            workers: 0,
        }
    }

    /// Runs until it is told to shut down, or nobody holds a handle any more.
    pub(super) fn run(mut self, ledger: Ledger) {
        loop {
            let event = match self.retry_at {
                None => self.inbox.recv().ok(),
                Some(at) => match self.inbox.recv_timeout(at.saturating_duration_since(Instant::now())) {
                    Ok(event) => Some(event),
                    Err(std::sync::mpsc::RecvTimeoutError::Timeout) => {
                        self.retry_at = None;
                        self.start_shells();
                        continue;
                    }
                    Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => None,
                },
            };
            match event {
                Some(Event::Command(Command::ShutDown(reply))) => {
                    let _ = reply.send(self.shut_down(ledger));
                    return;
                }
                Some(event) => self.apply(event),
                None => return,
            }
            self.start_shells();
            self.end_old_checkpoints();
            self.publish();
            self.answers.drain(..).for_each(|send| send());
        }
    }

    /// Sends an answer after the view that shows what it says.
    fn answer<T: Send + 'static>(&mut self, reply: Reply<T>, value: T) {
        self.answers.push(Box::new(move || drop(reply.send(value))));
    }

    fn apply(&mut self, event: Event) {
        self.workers -= usize::from(event.ends_worker());
        match event {
            Event::Command(command) => self.obey(command),
            Event::Booted(result, reply) => self.booted(*result, reply),
            Event::ShellStarted(id, result) => self.shell_started(id, result),
            Event::Checkpointed(vm, result, reply) => self.checkpointed(vm, *result, reply),
            Event::Progress(id, progress) => self.progressed(id, progress),
            Event::Born(id, result) => self.born(id, *result),
            Event::WorkingSet(pages) => self.working_set = Some(pages),
            Event::VmEnded(id) => self.vm_ended(id),
            Event::Departed(id) => self.departed(id),
        }
    }

    fn obey(&mut self, command: Command) {
        match command {
            Command::Boot(reply) => self.boot(reply),
            Command::RequestTicket(wanted, reply) => {
                let answer = self.request_ticket(wanted);
                self.answer(reply, answer);
            }
            Command::Checkpoint(of, reply) => self.checkpoint(of, reply),
            Command::CreateClones(ticket, checkpoint, reply) => self.create_clones(ticket, checkpoint, reply),
            Command::Ready(id, first_response) => self.ready(id, first_response),
            Command::Retire(id) => self.step(id, LifeState::Retiring),
            Command::Exit(id, reply) => self.exit(id, reply),
            Command::Kill(ticket, reply) => {
                let clones = self.kill(ticket);
                self.answer(reply, clones);
            }
            Command::ShutDown(_) => {}
        }
    }

    fn boot(&mut self, reply: Reply<Fallible<()>>) {
        if self.vms.contains_key(&CloneId::PARENT) {
            self.answer(reply, Err(EngineError::BootedAlready));
            return;
        }
        self.add_record(CloneId::PARENT, None, None);
        self.step(CloneId::PARENT, LifeState::Running);
        let limit = self.boot_limit;
        self.work("boot", move |host| Event::Booted(Box::new(workers::boot(host, limit)), reply));
    }

    fn booted(&mut self, result: Fallible<workers::Parent>, reply: Reply<Fallible<()>>) {
        match result {
            Ok(workers::Parent { vm, agent, memserver }) => {
                self.memserver = Some(memserver);
                self.settle(vm, agent);
                self.answer(reply, Ok(()));
            }
            Err(error) => {
                self.vms.remove(&CloneId::PARENT);
                self.answer(reply, Err(error));
            }
        }
    }

    fn request_ticket(&mut self, wanted: u32) -> TicketAnswer {
        if self.checkpoints.is_empty() && !self.vms.values().any(|r| r.view.state.is_alive()) {
            return TicketAnswer::Refused(Refusal::NothingToFork);
        }
        let clones = self.vms.iter().filter(|(id, _)| **id != CloneId::PARENT);
        let room = Room {
            limit: self.max_clones,
            held: held(clones.map(|(_, record)| &record.view.state)),
            available_mib: Host::available_mib(),
            needed_mib: self.clone_mib,
        };
        match self.registry.request(wanted, room) {
            Ok(ticket) => {
                for id in &ticket.clones {
                    self.add_record(*id, Some(ticket.id), None);
                }
                TicketAnswer::Granted(ticket)
            }
            Err(refusal) => TicketAnswer::Refused(refusal),
        }
    }

    fn checkpoint(&mut self, of: CloneId, reply: Reply<Fallible<CheckpointId>>) {
        let made_from = self.vms.get(&of).and_then(|r| r.view.checkpoint);
        let made_from = made_from.and_then(|id| self.checkpoints.get(&id)).map(Arc::clone);
        let keeper = match &made_from {
            Some(base) => Some(Arc::clone(&base.memtap)),
            None => self.memserver.clone(),
        };
        let record = self.vms.get_mut(&of).filter(|r| r.view.state.has_identity() && !r.doomed);
        let (Some(mut vm), Some(keeper)) = (record.and_then(|r| r.vm.take()), keeper) else {
            self.answer(reply, Err(EngineError::NotForkable(of)));
            return;
        };
        self.last_checkpoint += 1;
        let id = CheckpointId(self.last_checkpoint);
        let working_set = self.working_set.clone().unwrap_or_default();
        self.work("checkpoint", move |host| {
            let subject = Subject { vm: vm.as_mut(), keeper, made_from };
            let result = Checkpoint::take(host, id, subject, &working_set);
            Event::Checkpointed(vm, Box::new(result), reply)
        });
    }

    fn checkpointed(
        &mut self,
        vm: Box<dyn Vm>,
        result: Fallible<Checkpoint>,
        reply: Reply<Fallible<CheckpointId>>,
    ) {
        self.bring_back(vm);
        let answer = result.map(|checkpoint| {
            let id = checkpoint.id;
            if self.pauses.len() < FORKS_KEPT {
                self.pauses.push(checkpoint.pause);
            }
            self.checkpoints.insert(id, Arc::new(checkpoint));
            id
        });
        self.answer(reply, answer);
    }

    fn create_clones(&mut self, ticket: TicketId, from: CheckpointId, reply: Reply<Fallible<Created>>) {
        let began = Instant::now();
        let Some(checkpoint) = self.checkpoints.get(&from).map(Arc::clone) else {
            self.answer(reply, Err(EngineError::NoCheckpoint(from)));
            return;
        };
        let device_state = match checkpoint.device_state(&self.host) {
            Ok(state) => Arc::new(state),
            Err(error) => return self.answer(reply, Err(error)),
        };
        let Some(clones) = self.registry.redeem(ticket) else {
            self.answer(reply, Err(EngineError::NoTicket(ticket)));
            return;
        };
        let clones_made = clones.len() as u32;
        let litter = Litter { clones: clones_made, began, identity_limit: self.identity_limit, device_state };
        self.creations.push(Creation { open: clones.clone(), outcome: Created::default(), reply });
        for id in clones {
            self.registry.take(id);
            match self.vms.get_mut(&id).filter(|record| record.view.state == LifeState::Promised) {
                Some(record) => {
                    record.view.checkpoint = Some(from);
                    record.view.began = began;
                }
                // Its shell did not start, or it was ended, while its ticket was unused.
                None => {
                    self.tell_creation(id, Err("it ended before its ticket was used".into()));
                    continue;
                }
            }
            let wanted = Wanted { checkpoint: Arc::clone(&checkpoint), litter: litter.clone() };
            match self.shells.remove(&id) {
                Some(shell) => self.give_birth(shell, wanted),
                None => drop(self.wanted.insert(id, wanted)),
            }
        }
    }

    fn give_birth(&mut self, shell: Box<dyn Shell>, wanted: Wanted) {
        let id = shell.id();
        if let Some(record) = self.vms.get_mut(&id) {
            record.view.pid = Some(shell.process().pid);
        }
        self.watch(id, shell.process());
        // The host is busy when clones are wanted; they are the cure, so they go first until they serve.
        set_niceness(shell.process(), NICENESS_UNBORN);
        let tell = self.outbox.clone();
        self.work("birth", move |host| {
            let tell = |progress| drop(tell.send(Event::Progress(id, progress)));
            let born = birth::give_birth(host, &wanted.checkpoint, shell, &wanted.litter, &tell);
            Event::Born(id, Box::new(born))
        });
    }

    fn progressed(&mut self, id: CloneId, progress: Progress) {
        match progress {
            Progress::Served(memory) => self.set_memory(id, memory),
            Progress::Seeded => self.step(id, LifeState::Seeded),
            Progress::Running => self.step(id, LifeState::Running),
        }
    }

    fn born(&mut self, id: CloneId, result: Fallible<Born>) {
        match result {
            Ok(Born { vm, agent, times }) => {
                if self.forks.len() < FORKS_KEPT {
                    self.forks.push(times);
                }
                self.settle(vm, agent);
                self.tell_creation(id, Ok(()));
            }
            Err(error) => {
                let why = report(&error);
                tracing::warn!(vm = %id, %why, "a clone was not born");
                self.tell_creation(id, Err(why.clone()));
                self.step(id, LifeState::Failed(why));
                self.depart(id, None);
            }
        }
    }

    fn tell_creation(&mut self, id: CloneId, outcome: Result<(), String>) {
        let Some(at) = self.creations.iter().position(|c| c.open.contains(&id)) else { return };
        let creation = &mut self.creations[at];
        creation.open.retain(|other| *other != id);
        match outcome {
            Ok(()) => creation.outcome.joined.push(id),
            Err(why) => creation.outcome.failed.push((id, why)),
        }
        if creation.open.is_empty() {
            let Creation { outcome, reply, .. } = self.creations.swap_remove(at);
            self.answer(reply, Ok(outcome));
        }
    }

    fn ready(&mut self, id: CloneId, first_response: Duration) {
        self.step(id, LifeState::Ready);
        let Some(record) = self.vms.get_mut(&id) else { return };
        record.view.first_response.get_or_insert(first_response);
        if let (true, Some(vm)) = (id != CloneId::PARENT, &record.vm) {
            set_niceness(vm.process(), 0);
        }
        if let Some(times) = self.forks.iter_mut().find(|times| times.id == id) {
            times.first_response.get_or_insert(first_response);
        }
        let from = record.view.checkpoint.and_then(|id| self.checkpoints.get(&id));
        if let (None, Some(checkpoint)) = (&self.working_set, from) {
            self.working_set = Some(Vec::new());
            let memtap = Arc::clone(&checkpoint.memtap);
            self.work("record", move |_| Event::WorkingSet(memtap.take_record().unwrap_or_default()));
        }
    }

    fn exit(&mut self, id: CloneId, reply: Reply<()>) {
        match self.vms.get_mut(&id) {
            Some(record) if record.view.state.is_alive() => record.waiting_for_end.push(reply),
            _ => {
                self.answer(reply, ());
                return;
            }
        }
        self.step(id, LifeState::Retiring);
        self.end(id);
    }

    fn kill(&mut self, ticket: TicketId) -> Fallible<Vec<CloneId>> {
        let unused = self.registry.redeem(ticket);
        for id in unused.iter().flatten() {
            self.registry.give_back(*id);
            self.vms.remove(id);
        }
        let clones: Vec<_> = self.vms.values().filter(|r| r.view.ticket == Some(ticket)).collect();
        if unused.is_none() && clones.is_empty() {
            return Err(EngineError::NoTicket(ticket));
        }
        Ok(clones.iter().filter(|r| r.view.state.is_alive()).map(|r| r.view.id).collect())
    }

    /// Ends a VM now, or when the worker that has it brings it back.
    fn end(&mut self, id: CloneId) {
        if self.wanted.remove(&id).is_some() {
            self.tell_creation(id, Err("ended before it was born".into()));
            return self.depart(id, None);
        }
        if let Some(shell) = self.shells.remove(&id) {
            self.registry.take(id);
            drop(shell);
            return self.depart(id, None);
        }
        let Some(record) = self.vms.get_mut(&id) else { return };
        record.doomed = true;
        if let Some(vm) = record.vm.take() {
            self.depart(id, Some(vm));
        }
    }

    /// Ends a VM on a worker and removes what it has left on this host.
    fn depart(&mut self, id: CloneId, vm: Option<Box<dyn Vm>>) {
        let from = self.vms.get(&id).and_then(|r| r.view.checkpoint);
        let server = match from.and_then(|from| self.checkpoints.get(&from)) {
            Some(checkpoint) => Some(Arc::clone(&checkpoint.memtap)),
            None => self.memserver.clone(),
        };
        let own: Vec<_> = self.checkpoints.values().filter(|c| c.of == id).map(Arc::clone).collect();
        self.work("end", move |host| {
            workers::end(host, id, vm, server, &own);
            Event::Departed(id)
        });
    }

    fn departed(&mut self, id: CloneId) {
        self.step(id, LifeState::Gone);
        let Some(record) = self.vms.get_mut(&id) else { return };
        record._agent = None;
        record.view.memory = None;
        for reply in std::mem::take(&mut record.waiting_for_end) {
            self.answer(reply, ());
        }
        let dead = self.vms.iter().filter(|(_, r)| !r.view.state.is_alive()).map(|(id, _)| *id);
        let dead: Vec<_> = dead.collect();
        for id in dead.iter().take(dead.len().saturating_sub(REMEMBERED)) {
            self.vms.remove(id);
        }
    }

    fn vm_ended(&mut self, id: CloneId) {
        let Some(record) = self.vms.get(&id).filter(|r| !r.doomed && r.view.state.is_alive()) else { return };
        // A worker that has the VM meets the same end, and says more about it.
        if record.vm.is_some() {
            tracing::error!(vm = %id, "its VM has ended by itself");
            self.step(id, LifeState::Failed("its VM has ended by itself".into()));
            self.end(id);
        }
    }

    /// A VM has its identity: it stays here from now on.
    fn settle(&mut self, vm: Box<dyn Vm>, agent: Agent) {
        let id = vm.id();
        if id == CloneId::PARENT {
            self.watch(id, vm.process());
            self.set_memory(id, vm.memory());
        }
        self.step(id, LifeState::Joined);
        if let Some(record) = self.vms.get_mut(&id) {
            record.view.pid = Some(vm.process().pid);
            record._agent = Some(agent);
        }
        self.bring_back(vm);
    }

    fn bring_back(&mut self, vm: Box<dyn Vm>) {
        let id = vm.id();
        let alive = vm.process().is_alive();
        let Some(record) = self.vms.get_mut(&id) else { return };
        if record.doomed {
            return self.depart(id, Some(vm));
        }
        record.vm = Some(vm);
        if !alive {
            self.vm_ended(id);
        }
    }

    fn set_memory(&mut self, id: CloneId, memory: Arc<dyn MemoryAccess>) {
        if let Some(record) = self.vms.get_mut(&id) {
            record.view.memory = Some(memory);
        }
    }

    /// Takes a step in a life, if the life cycle has it.
    fn step(&mut self, id: CloneId, next: LifeState) {
        if let Some(record) = self.vms.get_mut(&id)
            && record.view.state.may_become(&next)
        {
            tracing::info!(vm = %id, from = %record.view.state, to = %next, "life cycle");
            record.view.state = next;
        }
    }

    fn add_record(&mut self, id: CloneId, ticket: Option<TicketId>, checkpoint: Option<CheckpointId>) {
        let view = VmView {
            id,
            mac: mac_address(&self.host.name, id),
            ip: self.host.network.block().address(id),
            state: LifeState::Promised,
            ticket,
            checkpoint,
            first_response: None,
            began: Instant::now(),
            pid: None,
            memory: None,
        };
        let record = Record { view, vm: None, _agent: None, doomed: false, waiting_for_end: Vec::new() };
        self.vms.insert(id, record);
    }

    fn start_shells(&mut self) {
        self.registry.keep_waiting(self.shells_wanted);
        if self.starting.is_some() || self.retry_at.is_some() {
            return;
        }
        let Some(id) = self.registry.next_to_start() else { return };
        self.starting = Some(id);
        self.work("shell", move |host| Event::ShellStarted(id, workers::start_shell(host, id)));
    }

    fn shell_started(&mut self, id: CloneId, result: Fallible<Box<dyn Shell>>) {
        self.starting = None;
        let is_promised = self.registry.is_promised(id);
        self.registry.started(id, result.is_ok(), is_promised);
        match (result, self.wanted.remove(&id)) {
            (Ok(shell), Some(wanted)) => {
                self.registry.take(id);
                self.give_birth(shell, wanted);
            }
            (Ok(shell), None) => drop(self.shells.insert(id, shell)),
            (Err(error), wanted) => {
                let why = report(&error);
                tracing::error!(%why, vm = %id, "a shell does not start");
                self.retry_at = Some(Instant::now() + RETRY);
                if wanted.is_some() {
                    self.tell_creation(id, Err(why.clone()));
                }
                self.step(id, LifeState::Failed(why));
            }
        }
    }

    /// A checkpoint that nobody was made from, and that a newer one has replaced, ends.
    fn end_old_checkpoints(&mut self) {
        let newest = |of: CloneId| self.checkpoints.values().filter(|c| c.of == of).map(|c| c.id).max();
        let used = |id: CheckpointId| {
            let by_clone =
                self.vms.values().any(|r| r.view.checkpoint == Some(id) && r.view.state.is_alive());
            by_clone || self.wanted.values().any(|wanted| wanted.checkpoint.id == id)
        };
        let owner_lives =
            |of: CloneId| of == CloneId::PARENT || self.vms.get(&of).is_some_and(|r| r.view.state.is_alive());
        let stale = |c: &Checkpoint| !used(c.id) && (newest(c.of) != Some(c.id) || !owner_lives(c.of));
        let old: Vec<_> = self.checkpoints.values().filter(|c| stale(c)).map(|c| c.id).collect();
        for id in old {
            let Some(checkpoint) = self.checkpoints.remove(&id) else { continue };
            let of = checkpoint.of;
            let needed = self.vms.get(&of).is_some_and(|r| r.view.state.is_alive())
                || self.checkpoints.values().any(|other| other.of == of);
            let host = Arc::clone(&self.host);
            let end = move || {
                checkpoint.end();
                if !needed {
                    host.remove_files(of);
                }
            };
            if let Err(error) = std::thread::Builder::new().name("thaw".into()).spawn(end) {
                tracing::error!(%error, "an old checkpoint goes on to cost write faults");
            }
        }
    }

    fn publish(&mut self) {
        self.number += 1;
        let parent = self.vms.get(&CloneId::PARENT).map(|record| record.view.clone());
        let clones = self.vms.iter().filter(|(id, _)| **id != CloneId::PARENT);
        let view = View {
            number: self.number,
            shells: self.shells.len() as u32,
            parent,
            clones: clones.map(|(_, record)| record.view.clone()).collect(),
            checkpoints: self.checkpoints.values().map(|c| c.to_view()).collect(),
            pauses: self.pauses.clone(),
            forks: self.forks.clone(),
            memserver: self.memserver.clone(),
        };
        self.publish.send_replace(Arc::new(view));
    }

    /// Tells when a process ends.
    fn watch(&self, id: CloneId, process: ProcessIdentity) {
        let tell = self.outbox.clone();
        let watch = move || {
            if wait_for_end(process).is_ok() {
                let _ = tell.send(Event::VmEnded(id));
            }
        };
        if let Err(error) = std::thread::Builder::new().name("vm-watch".into()).spawn(watch) {
            tracing::error!(%error, vm = %id, "its end will not be noticed");
        }
    }

    /// Runs something slow on a thread of its own; its event comes back to the inbox.
    fn work(&mut self, name: &str, job: impl FnOnce(&Host) -> Event + Send + 'static) {
        let (host, tell) = (Arc::clone(&self.host), self.outbox.clone());
        let run = move || drop(tell.send(job(&host)));
        match std::thread::Builder::new().name(name.into()).spawn(run) {
            Ok(_) => self.workers += 1,
            Err(error) => tracing::error!(%error, name, "no thread for a worker"),
        }
    }

    /// Ends everything. Workers under way are awaited, so that none starts a process afterwards; their
    /// VMs are ended first, so that none waits for a guest.
    fn shut_down(mut self, ledger: Ledger) -> Fallible<()> {
        self.checkpoints
            .values()
            .map(|checkpoint| &checkpoint.memtap)
            .chain(&self.memserver)
            .for_each(|s| s.close());
        self.shells.clear();
        self.vms.clear();
        let until = Instant::now() + SHUT_DOWN_LIMIT;
        while self.workers > 0 && Instant::now() < until {
            ledger.end_processes()?;
            if let Ok(event) = self.inbox.recv_timeout(Duration::from_millis(20)) {
                self.workers -= usize::from(event.ends_worker());
            }
        }
        self.checkpoints.clear();
        self.memserver = None;
        ledger.close(&self.host.name).map_err(EngineError::from)
    }
}

/// An error with its causes, on one line.
fn report(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
