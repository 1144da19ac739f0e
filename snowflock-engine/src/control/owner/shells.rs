//! Hollow shells: ordered ahead, started one after the other, used or lost.

use std::time::{Duration, Instant};

use super::super::EngineError;
use super::super::lifecycle::LifeState;
use super::super::report;
use super::endings::Left;
use super::{Event, Owner, workers};
use crate::hypervisor::Shell;
use crate::network::identity::CloneId;

/// After a shell that did not start or that died, the next one is started no sooner.
const RETRY: Duration = Duration::from_secs(2);

impl Owner {
    /// Starts the next shell that is ordered, unless one is starting.
    pub(super) fn start_shells(&mut self) {
        self.registry.keep_waiting(self.shells_wanted);
        if self.starting.is_some() || self.retry_at.is_some() {
            return;
        }
        let Some(id) = self.registry.next_to_start() else { return };
        self.starting = Some(id);
        self.work("shell", move |host| Event::ShellStarted(id, workers::start_shell(host, id)));
    }

    pub(super) fn shell_started(&mut self, id: CloneId, result: Result<Box<dyn Shell>, EngineError>) {
        self.starting = None;
        let is_promised = self.registry.is_promised(id);
        self.registry.started(id, result.is_ok(), is_promised);
        match result {
            Ok(shell) => self.shell_waits(id, shell),
            Err(error) => self.no_shell(id, report(&error)),
        }
    }

    fn shell_waits(&mut self, id: CloneId, shell: Box<dyn Shell>) {
        self.watch(id, shell.process());
        if let Some(wanted) = self.wanted.remove(&id) {
            self.registry.take(id);
            self.give_birth(shell, wanted);
        } else if self.vms.get(&id).is_some_and(|record| record.doomed) {
            self.registry.take(id);
            self.depart(id, Left::Shell(shell));
        } else if !self.vms.contains_key(&id) && !self.registry.is_ours(id) {
            // Its ID was taken away while it started.
            self.depart(id, Left::Shell(shell));
        } else {
            self.shells.insert(id, shell);
        }
    }

    fn no_shell(&mut self, id: CloneId, why: String) {
        tracing::error!(%why, vm = %id, "a shell does not start");
        self.retry_at = Some(Instant::now() + RETRY);
        if self.wanted.remove(&id).is_some() {
            self.tell_creation(id, Err(why.clone()));
        }
        if self.vms.get(&id).is_some_and(|record| record.doomed) {
            return self.departed(id);
        }
        self.step(id, LifeState::Failed(why));
    }

    /// A waiting shell has died: another takes its place, and a clone that it was promised for has failed.
    pub(super) fn shell_ended(&mut self, id: CloneId) {
        let Some(shell) = self.shells.remove(&id) else { return };
        tracing::error!(vm = %id, "a waiting shell has ended by itself");
        self.retry_at = Some(Instant::now() + RETRY);
        self.registry.take(id);
        self.step(id, LifeState::Failed("its shell has ended by itself".into()));
        self.depart(id, Left::Shell(shell));
    }
}
