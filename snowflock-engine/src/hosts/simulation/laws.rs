//! What must hold at every moment, whatever goes wrong.

use std::collections::BTreeMap;

use super::world::Host;
use crate::control::LifeState;
use crate::hosts::ids::{Epoch, Name, TicketId};
use crate::hosts::master::Master;
use crate::hosts::master::durable::{Change, Durable};
use crate::network::identity::CloneId;

/// What was seen so far.
#[derive(Default)]
pub(super) struct Laws {
    /// Who has ever had a clone ID.
    owners: BTreeMap<CloneId, (TicketId, Name, Epoch)>,
    states: BTreeMap<CloneId, LifeState>,
    view: u64,
    epochs: BTreeMap<Name, Epoch>,
    /// Clones that have joined.
    pub(super) joined: u64,
    /// Hosts that were given up.
    pub(super) lost: u64,
}

impl Laws {
    /// A step of what SFMD remembers, before it is made.
    pub(super) fn change(&mut self, change: &Change, before: &Durable) {
        match change {
            Change::Granted { ticket, clones } => {
                let wanted = before.tickets[ticket].wanted as usize;
                assert!((1..=wanted).contains(&clones.len()), "{ticket}: {} of {wanted}", clones.len());
                for (clone, host) in clones {
                    let epoch = before.hosts[host].epoch;
                    let owner = (*ticket, host.clone(), epoch);
                    let former = self.owners.insert(*clone, owner.clone());
                    assert_eq!(former, None, "{clone} has a second owner, {owner:?}");
                }
            }
            Change::Admitted { host, epoch, .. } => {
                let former = self.epochs.insert(host.clone(), *epoch);
                assert!(former < Some(*epoch), "{host}: {epoch} after {former:?}");
            }
            Change::Lost { .. } => self.lost += 1,
            _ => {}
        }
    }

    pub(super) fn check(&mut self, master: Option<&Master>, hosts: &[Host], disk: &Durable) {
        let mut alive: Vec<CloneId> = hosts.iter().flat_map(|host| host.engine.alive()).collect();
        let all = alive.len();
        alive.sort_unstable();
        alive.dedup();
        assert_eq!(alive.len(), all, "two hosts run a clone of one ID");
        let Some(master) = master else { return };
        assert_eq!(master.durable(), disk, "what is remembered is not what is on disk");
        let view = master.view();
        assert!(view.number >= self.view, "views went back from {} to {}", self.view, view.number);
        self.view = view.number;
        for clone in &view.clones {
            let former = self.states.insert(clone.id, clone.state.clone());
            let former = former.unwrap_or(LifeState::Promised);
            let stays = former == clone.state;
            assert!(stays || former.may_become(&clone.state), "{}: {former} -> {}", clone.id, clone.state);
            self.joined += u64::from(!stays && clone.state == LifeState::Joined);
        }
    }
}
