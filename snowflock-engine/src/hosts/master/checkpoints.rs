//! Checkpoints: one name for the frozen parents of several hosts.

use std::collections::{BTreeMap, BTreeSet};

use super::Master;
use super::durable::{Change, RequestKey};
use crate::control::LifeState;
use crate::hosts::ids::{CheckpointId, Epoch, Name};
use crate::hosts::message::CheckpointState;

impl Master {
    /// Has the parents of all hosts frozen, for a request that has not done so yet.
    pub(super) fn wish_checkpoint(&mut self, key: &RequestKey) {
        if self.durable.checkpoints.values().any(|checkpoint| checkpoint.key == *key) {
            return;
        }
        let forkable = |host: &&Name| {
            let parent = self.report_of(host).and_then(|report| report.parent.as_ref());
            parent.is_some_and(LifeState::has_identity)
        };
        let hosts: BTreeMap<Name, Epoch> = self
            .lines
            .keys()
            .filter(forkable)
            .filter_map(|host| Some((host.clone(), self.durable.hosts.get(host)?.epoch)))
            .collect();
        if hosts.is_empty() {
            return self.refuse(key.clone(), "no connected host has a parent that runs");
        }
        let (.., checkpoint) = self.durable.next();
        self.change(Change::CheckpointWished { checkpoint, key: key.clone(), hosts });
    }

    /// Notes which hosts have a checkpoint: at first when all have answered, later when one has it no more.
    pub(super) fn settle_checkpoints(&mut self) {
        let ids: Vec<CheckpointId> = self.durable.checkpoints.keys().copied().collect();
        for id in ids {
            let Some(record) = self.durable.checkpoints.get(&id) else { continue };
            let (mut held, mut why) = (BTreeSet::new(), Vec::new());
            let mut waits = false;
            for (host, epoch) in &record.hosts {
                match self.state_on(id, host, *epoch) {
                    Some(Ok(())) => drop(held.insert(host.clone())),
                    Some(Err(reason)) => why.push(format!("{host}: {reason}")),
                    // It had it, and is silent for the moment.
                    None if record.taken => drop(held.insert(host.clone())),
                    None => waits = true,
                }
            }
            if waits || (record.taken && held.len() == record.hosts.len()) {
                continue;
            }
            self.change(Change::CheckpointHeld { checkpoint: id, hosts: held, why: why.join("; ") });
        }
    }

    /// Whether a host has it, or why not; `None` while it has not said.
    fn state_on(&self, id: CheckpointId, host: &Name, epoch: Epoch) -> Option<Result<(), String>> {
        if !self.durable.holds(host, epoch) {
            return Some(Err("it was lost".into()));
        }
        let reported = self.report_of(host)?.checkpoints.iter().find(|c| c.checkpoint == id)?;
        match &reported.state {
            CheckpointState::Wanted | CheckpointState::Taking => None,
            CheckpointState::Taken => Some(Ok(())),
            CheckpointState::Failed(why) => Some(Err(why.clone())),
        }
    }
}
