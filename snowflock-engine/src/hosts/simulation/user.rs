//! A user that asks at random, repeats what got no answer, and checks that answers do not change.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::random::Random;
use crate::hosts::ids::{CheckpointId, TicketId, Unique};
use crate::hosts::message::{Answer, Ask, CloneGoal, CloneWish, Reply, Request};
use crate::network::identity::CloneId;

const PATIENCE: Duration = Duration::from_secs(3);

#[derive(Default)]
pub(super) struct User {
    index: usize,
    requests: u64,
    open: Option<(Request, Duration)>,
    answers: BTreeMap<Unique, (Ask, Answer)>,
    pub(super) tickets: BTreeSet<TicketId>,
    checkpoints: BTreeSet<CheckpointId>,
    clones: BTreeSet<CloneId>,
}

impl User {
    pub(super) fn new(index: usize) -> Self {
        Self { index, ..Self::default() }
    }

    pub(super) fn waits_for(&self) -> Option<&Request> {
        self.open.as_ref().map(|(request, _)| request)
    }

    /// What to send now, if anything: something new, the same again, or something answered long ago.
    pub(super) fn act(&mut self, now: Duration, random: &mut Random) -> Option<Request> {
        if let Some((request, sent)) = &mut self.open {
            let again = *sent + PATIENCE <= now;
            if again {
                *sent = now;
            }
            return again.then(|| request.clone());
        }
        if random.chance(150)
            && let Some((id, (ask, _))) =
                self.answers.iter().nth(random.below(self.answers.len() as u64) as usize)
        {
            return Some(Request { id: *id, deadline_ms: 500, ask: ask.clone() });
        }
        let ask = self.choose(random)?;
        Some(self.begin(now, ask))
    }

    /// Names a new request.
    pub(super) fn begin(&mut self, now: Duration, ask: Ask) -> Request {
        self.requests += 1;
        let id = Unique::of(self.requests << 8 | self.index as u64);
        let request = Request { id, deadline_ms: 2000, ask };
        self.open = Some((request.clone(), now));
        request
    }

    fn choose(&self, random: &mut Random) -> Option<Ask> {
        fn one<T: Copy + Ord>(of: &BTreeSet<T>, random: &mut Random) -> Option<T> {
            of.iter().nth(random.below(of.len() as u64) as usize).copied()
        }
        let (ticket, checkpoint) = (one(&self.tickets, random), self.checkpoints.last().copied());
        match random.below(10) {
            0..2 => Some(Ask::RequestTicket { clones: random.below(9) as u32 }),
            2 => Some(Ask::Checkpoint),
            3..6 => Some(Ask::CreateClones { ticket: ticket?, checkpoint: checkpoint? }),
            6 => Some(Ask::Kill { ticket: ticket? }),
            7 => Some(Ask::View { after: 0 }),
            _ => {
                let goal = match random.below(3) {
                    0 => CloneGoal::Gone,
                    1 => CloneGoal::Retiring,
                    _ => CloneGoal::Ready { first_response_ms: 200 },
                };
                Some(Ask::Advance(CloneWish { clone: one(&self.clones, random)?, goal }))
            }
        }
    }

    pub(super) fn told(&mut self, reply: Reply) {
        if reply.answer == Answer::Unfinished {
            return;
        }
        let open = self.open.take_if(|(request, _)| request.id == reply.id);
        let Some((request, _)) = open else {
            if let Some((ask, former)) = self.answers.get(&reply.id) {
                assert_eq!(former, &reply.answer, "another answer to the same request: {ask:?}");
            }
            return;
        };
        match &reply.answer {
            Answer::Ticket { ticket, clones } => {
                self.tickets.insert(*ticket);
                self.clones.extend(clones.iter().map(|(id, _)| *id));
            }
            Answer::Checkpoint { checkpoint, .. } => drop(self.checkpoints.insert(*checkpoint)),
            _ => {}
        }
        let lasting =
            matches!(request.ask, Ask::RequestTicket { .. } | Ask::Checkpoint | Ask::CreateClones { .. });
        if lasting {
            self.answers.insert(reply.id, (request.ask, reply.answer));
        }
    }
}
