//! How VMs, checkpoints and the engine itself end.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::super::EngineError;
use super::super::birth::Guest;
use super::super::checkpoint::Checkpoint;
use super::super::ledger::Ledger;
use super::super::lifecycle::LifeState;
use super::super::ticket::TicketId;
use super::{Event, Fallible, Owner, Reply, workers};
use crate::memory::protocol::CheckpointId;
use crate::network::identity::CloneId;
use crate::wire::HookEvent;

/// Clones that have ended stay in the view, up to so many.
const REMEMBERED: usize = 64;
/// Workers end within this once their VMs are gone.
const SHUT_DOWN_LIMIT: Duration = Duration::from_secs(15);

impl Owner {
    pub(super) fn exit(&mut self, id: CloneId, reply: Reply<()>) {
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

    pub(super) fn kill(&mut self, ticket: TicketId) -> Fallible<Vec<CloneId>> {
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
        let was_wanted = self.wanted.remove(&id).is_some();
        if was_wanted {
            self.tell_creation(id, Err("ended before it was born".into()));
        }
        if self.registry.forget(id, self.starting) || self.shells.remove(&id).is_some() {
            return self.depart(id, None);
        }
        let Some(record) = self.vms.get_mut(&id) else { return };
        record.doomed = true;
        if let Some(guest) = record.guest.take() {
            self.depart(id, Some(guest));
        }
    }

    /// Ends a VM on a worker and removes what it has left on this host.
    pub(super) fn depart(&mut self, id: CloneId, guest: Option<Guest>) {
        let from = self.vms.get(&id).and_then(|r| r.view.checkpoint);
        let server = match from.and_then(|from| self.checkpoints.get(&from)) {
            Some(checkpoint) => Some(Arc::clone(&checkpoint.memtap)),
            None => self.memserver.clone(),
        };
        let own: Vec<_> = self.checkpoints.values().filter(|c| c.of == id).map(Arc::clone).collect();
        let asked = self.vms.get(&id).is_some_and(|r| r.view.state == LifeState::Retiring);
        let hook_limit = asked.then_some(self.hook_limit);
        self.work("end", move |host| {
            workers::end(host, id, guest, hook_limit, server, &own);
            Event::Departed(id)
        });
    }

    pub(super) fn departed(&mut self, id: CloneId) {
        self.step(id, LifeState::Gone);
        let Some(record) = self.vms.get_mut(&id) else { return };
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
        let stale = |c: &Checkpoint| !used(c.id) && (!is_newest(c) || !owner_lives(c.of));
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

    /// Lets the hooks of all clones run, at once.
    fn say_farewell(&mut self) {
        let limit = self.hook_limit;
        let clones = self.vms.iter_mut().filter(|(id, _)| **id != CloneId::PARENT);
        let guests: Vec<_> = clones.filter_map(|(_, record)| record.guest.as_mut()).collect();
        std::thread::scope(|scope| {
            for guest in guests {
                scope.spawn(|| guest.run_hooks(HookEvent::BeforeExit, limit));
            }
        });
    }

    /// Ends everything. Workers under way are awaited, so that none starts a process afterwards; their
    /// VMs are ended first, so that none waits for a guest.
    pub(super) fn shut_down(mut self, ledger: Ledger) -> Fallible<()> {
        self.say_farewell();
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
