//! What is wished of each host, worked out from what is remembered.

use std::time::Duration;

use super::durable::Stage;
use super::{Master, Output};
use crate::control::LifeState;
use crate::hosts::ids::Name;
use crate::hosts::message::{CloneGoal, CloneWish, TicketWish, ToHost, Wishes};

/// Whether a clone is as far as wished.
pub(super) fn is_reached(state: &LifeState, goal: CloneGoal) -> bool {
    match goal {
        CloneGoal::Ready { .. } => matches!(state, LifeState::Ready | LifeState::Retiring),
        CloneGoal::Retiring => *state == LifeState::Retiring,
        CloneGoal::Gone => !state.is_alive(),
    }
}

impl Master {
    /// Tells hosts whose wishes have changed, or that should know them by now and do not.
    pub(super) fn send_wishes(&mut self, now: Duration) {
        let patience = self.settings.lease / 4;
        let hosts: Vec<Name> = self.lines.keys().cloned().collect();
        for host in hosts {
            let Some(mut wishes) = self.wishes_for(&host) else { continue };
            let Some(line) = self.lines.get_mut(&host) else { continue };
            let last = line.wishes.as_ref();
            wishes.number = last.map_or(1, |last| last.number);
            let is_same = last == Some(&wishes);
            let knows = line.report.as_ref().is_none_or(|report| report.wishes >= wishes.number);
            if is_same && (knows || line.wished + patience > now) {
                continue;
            }
            wishes.number += u64::from(last.is_some() && !is_same);
            line.wished = now;
            line.wishes = Some(wishes.clone());
            self.outputs.push_back(Output::ToHost(line.connection, ToHost::Wishes(wishes)));
        }
    }

    fn wishes_for(&self, host: &Name) -> Option<Wishes> {
        let session = self.lines.get(host)?.session;
        let membership = self.durable.hosts.get(host).filter(|m| !m.lost)?;
        let epoch = membership.epoch;
        let here = self.durable.checkpoints.iter().filter(|(_, c)| c.hosts.get(host) == Some(&epoch));
        let mut tickets = Vec::new();
        let mut clones = Vec::new();
        for (ticket, record) in &self.durable.tickets {
            let lives = record.living(host, epoch).next().is_some();
            let all = record.clones.values().filter(|c| c.host == *host && c.epoch == epoch).count() as u32;
            let wish = |clones, create_from| TicketWish { ticket: *ticket, clones, create_from };
            tickets.extend(match &record.stage {
                Stage::Allocating | Stage::Ending(_) => None,
                Stage::Placing(shares) => {
                    shares.get(host).filter(|share| share.epoch == epoch).map(|s| wish(s.clones, None))
                }
                Stage::Granted => lives.then(|| wish(all, None)),
                Stage::Creating(from, _) | Stage::Created(from, _) => lives.then(|| wish(all, Some(*from))),
            });
            let wished = record.living(host, epoch).filter_map(|(id, clone)| {
                let goal = clone.goal.filter(|goal| !is_reached(&clone.state, *goal))?;
                Some(CloneWish { clone: *id, goal })
            });
            clones.extend(wished);
        }
        let (ids, checkpoints) = (membership.ids.clone(), here.map(|(id, _)| *id).collect());
        let (parcels, held) = (self.parcels_of(host, epoch), self.held_by(host, epoch));
        let copies = self.copies_for(host);
        Some(Wishes { session, number: 0, ids, checkpoints, copies, parcels, held, tickets, clones })
    }
}
