//! The owner: one thread, all state, one event at a time.
//!
//!   wait for the next event -> apply it -> start what can be started -> publish the view
//!
//! Whatever takes longer than microseconds (boot, checkpoint, birth, end of a
//! VM, start of a shell) runs on a worker thread that takes the VM along and
//! brings it back in an event.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};
use std::time::{Duration, Instant};

use tokio::sync::{oneshot, watch};

use super::birth::{self, Born, Guest, Litter, Progress};
use super::checkpoint::{Checkpoint, Subject};
use super::host::Host;
use super::ledger::Ledger;
use super::lifecycle::LifeState;
use super::memory_server::MemoryServer;
use super::registry::{Registry, held};
use super::ticket::{Refusal, Room, TicketAnswer, TicketId};
use super::view::{View, VmView};
use super::{Created, EngineError, EngineSpec, report};
use crate::hypervisor::{MemoryAccess, Shell};
use crate::memory::PageIndex;
use crate::memory::protocol::CheckpointId;
use crate::network::identity::{CloneId, mac_address};
use crate::sys::process::{ProcessIdentity, set_niceness, wait_for_end};
use crate::wire::{HookEvent, RequestId};

mod endings;
mod history;
mod shells;
mod workers;

use endings::Left;
use history::History;

/// Niceness of a clone from the start of its birth until it answers.
const NICENESS_UNBORN: i32 = -10;

type Reply<T> = oneshot::Sender<T>;
/// Comes when a VM has left nothing behind.
pub(super) type Ended = oneshot::Receiver<()>;
type Fallible<T> = Result<T, EngineError>;

/// What is asked of the owner.
pub(super) enum Command {
    Boot(Reply<Fallible<()>>),
    RequestTicket(u32, Reply<TicketAnswer>),
    Checkpoint(CloneId, Option<RequestId>, Reply<Fallible<CheckpointId>>),
    CreateClones(TicketId, CheckpointId, Reply<Fallible<Created>>),
    Ready(CloneId, Duration),
    Retire(CloneId),
    UseIds(Vec<Range<u32>>, u32, Reply<()>),
    Export(CheckpointId, Reply<Fallible<Vec<u8>>>),
    Import(Arc<Vec<u8>>, Reply<Fallible<CheckpointId>>),
    Hold(BTreeSet<CheckpointId>),
    Release(CheckpointId),
    Exit(CloneId, Reply<()>),
    Kill(TicketId, Reply<Fallible<Vec<Ended>>>),
    ShutDown(Reply<Fallible<()>>),
}

/// What happens.
pub(super) enum Event {
    Command(Command),
    Booted(Box<Fallible<workers::Parent>>, Reply<Fallible<()>>),
    ShellStarted(CloneId, Fallible<Box<dyn Shell>>),
    Checkpointed(Box<Guest>, Box<Fallible<Checkpoint>>, Reply<Fallible<CheckpointId>>),
    Imported(Box<Fallible<Checkpoint>>, Reply<Fallible<CheckpointId>>),
    Progress(CloneId, Progress),
    Born(CloneId, Box<Fallible<Born>>),
    /// What clones of a checkpoint touched until the first of them was ready.
    Recorded(Vec<PageIndex>),
    VmEnded(CloneId),
    /// Pages that clones of this checkpoint wait for do not come any more, for this reason.
    Starved(CheckpointId, String),
    Departed(CloneId),
}

impl Event {
    /// Whether this is the one event with which a worker ends.
    fn ends_worker(&self) -> bool {
        !matches!(self, Self::Command(_) | Self::Progress(..) | Self::VmEnded(_) | Self::Starved(..))
    }
}

/// A VM, or the place of one.
struct Record {
    view: VmView,
    /// Here, unless a worker has it.
    guest: Option<Guest>,
    /// It is to be ended as soon as a worker brings it back.
    doomed: bool,
    /// A worker ends it, or clears away what is left of it.
    departing: bool,
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
    hook_limit: Duration,
    registry: Registry,
    shells: BTreeMap<CloneId, Box<dyn Shell>>,
    starting: Option<CloneId>,
    retry_at: Option<Instant>,
    vms: BTreeMap<CloneId, Record>,
    memserver: Option<Arc<MemoryServer>>,
    checkpoints: BTreeMap<CheckpointId, Arc<Checkpoint>>,
    last_checkpoint: u32,
    /// Checkpoints that other hosts have clones of.
    held: BTreeSet<CheckpointId>,
    /// Those that are to end with their last clone.
    released: BTreeSet<CheckpointId>,
    wanted: BTreeMap<CloneId, Wanted>,
    creations: Vec<Creation>,
    history: History,
    /// Pages that the first clone touched until it was ready, in order.
    working_set: Option<Arc<[PageIndex]>>,
    /// Checkpoints whose memtaps do not record any more what is touched.
    recorded: BTreeSet<CheckpointId>,
    /// Disk layers of VMs that only checkpoints may still need.
    shed: BTreeSet<PathBuf>,
    starved_total: u64,
    number: u64,
    answers: Vec<Box<dyn FnOnce() + Send>>,
    /// Workers under way; each ends with one event. And those among them that end a VM.
    workers: usize,
    ending: usize,
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
            hook_limit: spec.hook_limit,
            registry: Registry::default(),
            shells: BTreeMap::new(),
            starting: None,
            retry_at: None,
            vms: BTreeMap::new(),
            memserver: None,
            checkpoints: BTreeMap::new(),
            last_checkpoint: 0,
            held: BTreeSet::new(),
            released: BTreeSet::new(),
            wanted: BTreeMap::new(),
            creations: Vec::new(),
            history: History::default(),
            working_set: None,
            recorded: BTreeSet::new(),
            shed: BTreeSet::new(),
            starved_total: 0,
            number: 0,
            answers: Vec::new(),
            workers: 0,
            ending: 0,
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
            self.remove_shed_layers();
            self.publish();
            self.answers.drain(..).for_each(|send| send());
        }
    }

    /// Sends an answer after the view that shows what it says.
    fn answer<T: Send + 'static>(&mut self, reply: Reply<T>, value: T) {
        self.answers.push(Box::new(move || drop(reply.send(value))));
    }

    fn apply(&mut self, event: Event) {
        self.count_out(&event);
        match event {
            Event::Command(command) => self.obey(command),
            Event::Booted(result, reply) => self.booted(*result, reply),
            Event::ShellStarted(id, result) => self.shell_started(id, result),
            Event::Checkpointed(guest, result, reply) => self.checkpointed(*guest, *result, reply),
            Event::Imported(result, reply) => {
                let answer = result.map(|checkpoint| self.add_checkpoint(checkpoint));
                self.answer(reply, answer);
            }
            Event::Progress(id, progress) => self.progressed(id, progress),
            Event::Born(id, result) => self.born(id, *result),
            Event::Recorded(pages) => drop(self.working_set.get_or_insert(pages.into())),
            Event::VmEnded(id) => self.vm_ended(id),
            Event::Starved(checkpoint, why) => self.starved(checkpoint, &why),
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
            Command::Checkpoint(of, asked_by, reply) => self.checkpoint(of, asked_by, reply),
            Command::CreateClones(ticket, checkpoint, reply) => self.create_clones(ticket, checkpoint, reply),
            Command::Ready(id, first_response) => self.ready(id, first_response),
            Command::Retire(id) => self.step(id, LifeState::Retiring),
            Command::UseIds(ids, shells, reply) => {
                self.use_ids(ids, shells);
                self.answer(reply, ());
            }
            Command::Export(id, reply) => {
                let found = self.checkpoints.get(&id).ok_or(EngineError::NoCheckpoint(id));
                let parcel = found.and_then(|c| c.export(self.working_set.as_deref().unwrap_or_default()));
                self.answer(reply, parcel);
            }
            Command::Import(parcel, reply) => self.import(parcel, reply),
            Command::Hold(checkpoints) => self.held = checkpoints,
            Command::Release(id) => drop(self.released.insert(id)),
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
            Ok(workers::Parent { guest, memserver }) => {
                self.memserver = Some(memserver);
                self.settle(guest);
                self.answer(reply, Ok(()));
            }
            Err(error) => {
                self.vms.remove(&CloneId::PARENT);
                self.answer(reply, Err(error));
            }
        }
    }

    fn request_ticket(&mut self, wanted: u32) -> TicketAnswer {
        let may_come = self.host.between.is_some();
        if !may_come && self.checkpoints.is_empty() && !self.vms.values().any(|r| r.view.state.is_alive()) {
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

    fn checkpoint(&mut self, of: CloneId, asked_by: Option<RequestId>, reply: Reply<Fallible<CheckpointId>>) {
        let made_from = self.vms.get(&of).and_then(|r| r.view.checkpoint);
        let made_from = made_from.and_then(|id| self.checkpoints.get(&id)).map(Arc::clone);
        let keeper = match &made_from {
            Some(base) => Some(Arc::clone(&base.memtap)),
            None => self.memserver.clone(),
        };
        let record = self.vms.get_mut(&of).filter(|r| r.view.state.has_identity() && !r.doomed);
        let (Some(mut guest), Some(keeper)) = (record.and_then(|r| r.guest.take()), keeper) else {
            self.answer(reply, Err(EngineError::NotForkable(of)));
            return;
        };
        self.last_checkpoint += 1;
        let id = CheckpointId(self.last_checkpoint);
        let working_set = self.working_set.clone();
        let hook_limit = self.hook_limit;
        self.work("checkpoint", move |host| {
            guest.run_hooks(HookEvent::BeforeFreeze, hook_limit);
            let subject = Subject { vm: guest.vm.as_mut(), keeper, made_from, asked_by };
            let result = Checkpoint::take(host, id, subject, working_set.as_deref().unwrap_or_default());
            Event::Checkpointed(Box::new(guest), Box::new(result), reply)
        });
    }

    fn checkpointed(
        &mut self,
        guest: Guest,
        result: Fallible<Checkpoint>,
        reply: Reply<Fallible<CheckpointId>>,
    ) {
        self.bring_back(guest);
        let answer = result.map(|checkpoint| {
            self.history.paused(checkpoint.pause);
            self.add_checkpoint(checkpoint)
        });
        self.answer(reply, answer);
    }

    fn import(&mut self, parcel: Arc<Vec<u8>>, reply: Reply<Fallible<CheckpointId>>) {
        self.last_checkpoint += 1;
        let id = CheckpointId(self.last_checkpoint);
        self.work("import", move |host| {
            Event::Imported(Box::new(Checkpoint::import(host, id, &parcel)), reply)
        });
    }

    fn add_checkpoint(&mut self, checkpoint: Checkpoint) -> CheckpointId {
        let id = checkpoint.id;
        self.shed.extend(checkpoint.shed.iter().cloned());
        self.checkpoints.insert(id, Arc::new(checkpoint));
        if self.working_set.is_some() {
            self.end_record(id);
        }
        id
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
        let litter = Litter {
            clones: clones_made,
            place: 0,
            began,
            identity_limit: self.identity_limit,
            device_state,
        };
        self.creations.push(Creation { open: clones.clone(), outcome: Created::default(), reply });
        for (id, place) in clones.into_iter().zip(1..) {
            self.registry.take(id);
            match self.vms.get_mut(&id).filter(|record| record.view.state == LifeState::Promised) {
                Some(record) => {
                    record.view.checkpoint = Some(from);
                    record.view.began = began;
                }
                // Its shell did not start or died, or it was ended, while its ticket was unused.
                None => {
                    let why = match self.vms.get(&id).map(|record| &record.view.state) {
                        Some(LifeState::Failed(why)) => why.clone(),
                        _ => "it ended before its ticket was used".into(),
                    };
                    self.tell_creation(id, Err(why));
                    continue;
                }
            }
            let wanted =
                Wanted { checkpoint: Arc::clone(&checkpoint), litter: Litter { place, ..litter.clone() } };
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
            Ok(Born { guest, times }) => {
                self.history.forked(times);
                self.settle(guest);
                self.tell_creation(id, Ok(()));
            }
            Err(error) => {
                let why = report(&error);
                tracing::warn!(vm = %id, %why, "a clone was not born");
                self.tell_creation(id, Err(why.clone()));
                self.step(id, LifeState::Failed(why));
                self.depart(id, Left::Nothing);
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
        if let (true, Some(guest)) = (id != CloneId::PARENT, &record.guest) {
            set_niceness(guest.vm.process(), 0);
        }
        self.history.answered(id, first_response);
        if let Some(checkpoint) = record.view.checkpoint {
            self.end_record(checkpoint);
        }
    }

    /// What is touched after the first of a checkpoint's clones is ready is no working set.
    fn end_record(&mut self, checkpoint: CheckpointId) {
        let Some(memtap) = self.checkpoints.get(&checkpoint).map(|c| Arc::clone(&c.memtap)) else { return };
        if self.recorded.insert(checkpoint) {
            self.work("record", move |_| Event::Recorded(memtap.take_record().unwrap_or_default()));
        }
    }

    /// A VM has its identity: it stays here from now on.
    fn settle(&mut self, guest: Guest) {
        let id = guest.vm.id();
        if id == CloneId::PARENT {
            self.watch(id, guest.vm.process());
            self.set_memory(id, guest.vm.memory());
        }
        self.step(id, LifeState::Joined);
        if let Some(record) = self.vms.get_mut(&id) {
            record.view.pid = Some(guest.vm.process().pid);
        }
        self.bring_back(guest);
    }

    fn bring_back(&mut self, guest: Guest) {
        let id = guest.vm.id();
        let alive = guest.vm.process().is_alive();
        let Some(record) = self.vms.get_mut(&id) else { return };
        if record.doomed {
            return self.depart(id, Left::Guest(Box::new(guest)));
        }
        record.guest = Some(guest);
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
        let record =
            Record { view, guest: None, doomed: false, departing: false, waiting_for_end: Vec::new() };
        self.vms.insert(id, record);
    }

    fn publish(&mut self) {
        self.number += 1;
        let parent = self.vms.get(&CloneId::PARENT).map(|record| record.view.clone());
        let clones = self.vms.iter().filter(|(id, _)| **id != CloneId::PARENT);
        let view = View {
            number: self.number,
            shells: self.shells.len() as u32,
            ids_left: self.registry.ids_left(),
            parent,
            clones: clones.map(|(_, record)| record.view.clone()).collect(),
            checkpoints: self.checkpoints.values().map(|c| c.to_view()).collect(),
            pauses: self.history.pauses(),
            forks: self.history.forks(),
            forks_total: self.history.forks_total(),
            starved_total: self.starved_total,
            memserver: self.memserver.clone(),
            working_set: self.working_set.clone(),
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

    /// A worker has ended, if this is what it ends with.
    fn count_out(&mut self, event: &Event) {
        self.workers -= usize::from(event.ends_worker());
        self.ending -= usize::from(matches!(event, Event::Departed(_)));
    }

    /// Runs something slow on a thread of its own; its event comes back to the inbox.
    fn work(&mut self, name: &str, job: impl FnOnce(&Host) -> Event + Send + 'static) -> bool {
        let (host, tell) = (Arc::clone(&self.host), self.outbox.clone());
        let run = move || drop(tell.send(job(&host)));
        let started = std::thread::Builder::new().name(name.into()).spawn(run);
        self.workers += usize::from(started.is_ok());
        started.inspect_err(|error| tracing::error!(%error, name, "no thread for a worker")).is_ok()
    }
}
