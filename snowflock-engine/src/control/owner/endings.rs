//! How VMs, checkpoints and the engine itself end.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::super::EngineError;
use super::super::birth::Guest;
use super::super::checkpoint::Checkpoint;
use super::super::ledger::Ledger;
use super::super::lifecycle::LifeState;
use super::super::ticket::TicketId;
use super::{Ended, Event, Fallible, Owner, Record, Reply, workers};
use crate::hypervisor::Shell;
use crate::memory::protocol::CheckpointId;
use crate::network::identity::CloneId;
use crate::wire::HookEvent;

/// Clones that have ended stay in the view, up to so many.
const REMEMBERED: usize = 64;
/// Workers end within this once their VMs are gone.
const SHUT_DOWN_LIMIT: Duration = Duration::from_secs(15);

/// What a worker has to end of a VM, beside its files and its port.
pub(super) enum Left {
    /// Its process is gone.
    Nothing,
    Shell(Box<dyn Shell>),
    Guest(Box<Guest>),
    /// One that has failed: its memory cannot be read, or not to its end.
    Failed(Box<Guest>),
}

impl Owner {
    pub(super) fn exit(&mut self, id: CloneId, reply: Reply<()>) {
        let Some(record) = self.vms.get_mut(&id) else { return self.answer(reply, ()) };
        match (record.view.state.is_alive(), record.departing || record.doomed) {
            // It has failed before, or ended; what is left of it is being cleared away.
            (false, true) => record.waiting_for_end.push(reply),
            (false, false) => self.answer(reply, ()),
            (true, _) => {
                record.waiting_for_end.push(reply);
                self.step(id, LifeState::Retiring);
                self.end(id);
            }
        }
    }

    /// Ends all that there is of a ticket, at once; each of the answers comes with the end of one clone.
    pub(super) fn kill(&mut self, ticket: TicketId) -> Fallible<Vec<Ended>> {
        let unused = self.registry.redeem(ticket);
        for id in unused.iter().flatten() {
            // One that is ended by itself already has its own way out.
            if !self.vms.get(id).is_some_and(|record| record.doomed || record.departing) {
                self.give_back(*id);
            }
        }
        let of_ticket = self.vms.values().filter(|r| r.view.ticket == Some(ticket));
        let clones: Vec<CloneId> = of_ticket.map(|r| r.view.id).collect();
        if unused.is_none() && clones.is_empty() {
            return Err(EngineError::NoTicket(ticket));
        }
        let ends = clones.into_iter().map(|id| {
            let (reply, ended) = oneshot::channel();
            self.exit(id, reply);
            ended
        });
        Ok(ends.collect())
    }

    /// A promised clone is not made: its shell serves another, unless nobody may have its ID any more.
    fn give_back(&mut self, id: CloneId) {
        self.registry.give_back(id);
        self.vms.remove(&id);
        if !self.registry.is_ours(id)
            && let Some(shell) = self.shells.remove(&id)
        {
            self.depart(id, Left::Shell(shell));
        }
    }

    /// Other clone IDs than before, and so many shells.
    pub(super) fn use_ids(&mut self, ids: Vec<Range<u32>>, shells: u32) {
        self.shells_wanted = shells;
        for id in self.registry.use_ids(ids) {
            if let Some(shell) = self.shells.remove(&id) {
                self.depart(id, Left::Shell(shell));
            }
        }
    }

    /// Ends a VM now, or when the worker that has it brings it back.
    fn end(&mut self, id: CloneId) {
        let was_wanted = self.wanted.remove(&id).is_some();
        if was_wanted {
            self.tell_creation(id, Err("ended before it was born".into()));
        }
        if self.registry.forget(id, self.starting) {
            return self.depart(id, Left::Nothing);
        }
        if let Some(shell) = self.shells.remove(&id) {
            return self.depart(id, Left::Shell(shell));
        }
        let Some(record) = self.vms.get_mut(&id) else { return };
        record.doomed = true;
        if let Some(guest) = record.guest.take() {
            self.depart(id, Left::Guest(Box::new(guest)));
        }
    }

    /// Ends a VM on a worker and removes what it has left on this host.
    pub(super) fn depart(&mut self, id: CloneId, left: Left) {
        if let Some(record) = self.vms.get_mut(&id) {
            record.departing = true;
        }
        let from = self.vms.get(&id).and_then(|r| r.view.checkpoint);
        let server = match from.and_then(|from| self.checkpoints.get(&from)) {
            Some(checkpoint) => Some(Arc::clone(&checkpoint.memtap)),
            None => self.memserver.clone(),
        };
        let failed = self.vms.get(&id).is_some_and(|r| matches!(r.view.state, LifeState::Failed(_)));
        let left = match left {
            Left::Guest(guest) if failed => Left::Failed(guest),
            left => left,
        };
        let own: Vec<_> = self.checkpoints.values().filter(|c| c.of == id).map(Arc::clone).collect();
        let asked = self.vms.get(&id).is_some_and(|r| r.view.state == LifeState::Retiring);
        let hook_limit = asked.then_some(self.hook_limit);
        let started = self.work("end", move |host| {
            workers::end(host, id, left, hook_limit, server, &own);
            Event::Departed(id)
        });
        match started {
            true => self.ending += 1,
            false => self.departed(id),
        }
    }

    pub(super) fn departed(&mut self, id: CloneId) {
        self.step(id, LifeState::Gone);
        let Some(record) = self.vms.get_mut(&id) else { return };
        record.view.memory = None;
        (record.departing, record.doomed) = (false, false);
        for reply in std::mem::take(&mut record.waiting_for_end) {
            self.answer(reply, ());
        }
        let dead = self.vms.iter().filter(|(_, r)| !r.view.state.is_alive() && !r.departing);
        let dead = dead.map(|(id, _)| *id);
        let dead: Vec<_> = dead.collect();
        for id in dead.iter().take(dead.len().saturating_sub(REMEMBERED)) {
            self.vms.remove(id);
        }
    }

    pub(super) fn vm_ended(&mut self, id: CloneId) {
        self.shell_ended(id);
        let Some(record) = self.vms.get(&id).filter(|r| !r.doomed && r.view.state.is_alive()) else { return };
        // A worker that has the VM meets the same end, and says more about it.
        if record.guest.is_some() {
            tracing::error!(vm = %id, "its VM has ended by itself");
            self.step(id, LifeState::Failed("its VM has ended by itself".into()));
            self.end(id);
        }
    }

    /// Clones of a checkpoint whose pages stop coming fail, before they hang whoever asks them for anything.
    pub(super) fn starved(&mut self, checkpoint: CheckpointId, why: &str) {
        let lives =
            |r: &&Record| r.view.checkpoint == Some(checkpoint) && r.view.state.is_alive() && !r.departing;
        let victims: Vec<CloneId> = self.vms.values().filter(lives).map(|r| r.view.id).collect();
        for id in victims {
            tracing::error!(vm = %id, checkpoint = checkpoint.0, why, "its pages stop coming");
            self.step(id, LifeState::Failed(format!("its pages stop coming: {why}")));
            self.starved_total += 1;
            self.end(id);
        }
    }

    /// A checkpoint that nobody was made from, and that a newer one has replaced, ends. Those that a guest
    /// asked for replace only each other, so that a guest takes none away from its host.
    pub(super) fn end_old_checkpoints(&mut self) {
        let kin =
            |a: &Checkpoint, b: &Checkpoint| a.of == b.of && a.asked_by.is_some() == b.asked_by.is_some();
        let is_newest =
            |c: &Checkpoint| !self.checkpoints.values().any(|other| kin(c, other) && other.id > c.id);
        let used = |id: CheckpointId| {
            let by_clone =
                self.vms.values().any(|r| r.view.checkpoint == Some(id) && r.view.state.is_alive());
            by_clone || self.wanted.values().any(|wanted| wanted.checkpoint.id == id)
        };
        let owner_lives =
            |of: CloneId| of == CloneId::PARENT || self.vms.get(&of).is_some_and(|r| r.view.state.is_alive());
        let stale = |c: &Checkpoint| {
            let outlived = !is_newest(c) || !owner_lives(c.of) || self.released.contains(&c.id);
            outlived && !used(c.id) && !self.held.contains(&c.id)
        };
        let old: Vec<_> = self.checkpoints.values().filter(|c| stale(c)).map(|c| c.id).collect();
        for id in old {
            let Some(checkpoint) = self.checkpoints.remove(&id) else { continue };
            self.released.remove(&id);
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

    /// Removes disk layers that no VM and no checkpoint looks through any more.
    pub(super) fn remove_shed_layers(&mut self) {
        let checkpoints = &self.checkpoints;
        self.shed.retain(|path| {
            let mut layers = checkpoints.values().flat_map(|it| &it.disk.layers);
            let needed = layers.any(|layer| layer.path == *path);
            if !needed && let Err(error) = std::fs::remove_file(path) {
                tracing::debug!(%error, path = %path.display(), "a disk layer went with its VM");
            }
            needed
        });
    }

    /// Lets the hooks of all clones run, at once.
    fn say_farewell(&mut self) {
        let limit = self.hook_limit;
        let clones = self.vms.iter_mut().filter(|(id, _)| **id != CloneId::PARENT);
        let guests: Vec<_> = clones.filter_map(|(_, record)| record.guest.as_mut()).collect();
        std::thread::scope(|scope| {
            for guest in guests {
                let run = || guest.run_hooks(HookEvent::BeforeExit, limit);
                if let Err(error) =
                    std::thread::Builder::new().name("farewell".into()).spawn_scoped(scope, run)
                {
                    tracing::warn!(%error, "no thread for the hooks of a guest that ends");
                }
            }
        });
    }

    /// Ends that are under way have begun before: their hooks get the time that all get.
    fn await_endings(&mut self, until: Instant) {
        while self.ending > 0 && Instant::now() < until {
            match self.inbox.recv_timeout(until.saturating_duration_since(Instant::now())) {
                Ok(event) => self.count_out(&event),
                Err(_) => return,
            }
        }
    }

    /// Ends everything. Workers under way are awaited, so that none starts a process afterwards; their
    /// VMs are ended first, so that none waits for a guest.
    pub(super) fn shut_down(mut self, ledger: Ledger) -> Fallible<()> {
        self.host.closing.store(true, Ordering::Relaxed);
        let hooks_end = Instant::now() + self.hook_limit;
        self.say_farewell();
        self.await_endings(hooks_end);
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
                self.count_out(&event);
            }
        }
        self.checkpoints.clear();
        self.memserver = None;
        ledger.close(&self.host.name).map_err(EngineError::from)
    }
}
