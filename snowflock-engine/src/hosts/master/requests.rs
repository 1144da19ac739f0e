//! What users ask, and who still waits for an answer.

use std::time::Duration;

use super::durable::{Change, RequestKey, Stage};
use super::{ConnectionId, Master, Output};
use crate::hosts::ids::{Name, TicketId};
use crate::hosts::message::{Answer, Ask, CloneGoal, CloneWish, LONGEST_DEADLINE_MS, Reply, Request};

/// Requests of one connection that have no answer yet; further ones are not begun.
pub(super) const MOST_WAITING: usize = 64;

/// A request that has no answer yet.
#[derive(Debug)]
pub(super) struct Waiter {
    pub(super) connection: ConnectionId,
    pub(super) deadline: Duration,
    key: RequestKey,
    ask: Ask,
}

impl Master {
    /// Begins what is asked, unless the same request was made before, and waits for what comes of it.
    pub(super) fn request(&mut self, now: Duration, connection: ConnectionId, by: Name, request: Request) {
        let Request { id, deadline_ms, ask } = request;
        let key = RequestKey { by, id };
        let waits = |waiter: &&Waiter| waiter.connection == connection && waiter.key != key;
        if self.waiters.iter().filter(waits).count() >= MOST_WAITING {
            let why =
                format!("{MOST_WAITING} requests wait for their answers here; ask again after one came");
            let reply = Reply { id, answer: Answer::Refused { why } };
            return self.outputs.push_back(Output::Answer(connection, reply));
        }
        if self.durable.answer_to(&key).is_none() {
            self.begin(now, &key, &ask);
        }
        let deadline = now + Duration::from_millis(deadline_ms.min(LONGEST_DEADLINE_MS).into());
        self.waiters.retain(|waiter| waiter.connection != connection || waiter.key != key);
        self.waiters.push(Waiter { connection, deadline, key, ask });
    }

    fn begin(&mut self, now: Duration, key: &RequestKey, ask: &Ask) {
        match ask {
            Ask::RequestTicket { clones } => self.open_ticket(now, key, *clones),
            Ask::Checkpoint => self.wish_checkpoint(key),
            Ask::CreateClones { ticket, checkpoint } => self.create_clones(key, *ticket, *checkpoint),
            Ask::Kill { ticket } => self.kill(*ticket, "the ticket was killed"),
            Ask::Advance(wish) => self.advance(wish),
            Ask::Join { .. } | Ask::View { .. } => {}
        }
    }

    fn advance(&mut self, wish: &CloneWish) {
        let Some((ticket, clone)) = self.durable.clone_with(wish.clone) else { return };
        if clone.state.is_alive() && clone.goal < Some(wish.goal) {
            self.change(Change::Wished { ticket, clone: wish.clone, goal: wish.goal });
        }
    }

    /// Begins what could not be begun when it was asked.
    pub(super) fn begin_delayed(&mut self) {
        let open = |ticket: &TicketId| {
            self.durable.tickets.get(ticket).is_some_and(|record| matches!(record.stage, Stage::Granted))
        };
        let delayed = self.waiters.iter().filter_map(|waiter| match waiter.ask {
            Ask::CreateClones { ticket, checkpoint } if open(&ticket) => {
                Some((waiter.key.clone(), ticket, checkpoint))
            }
            _ => None,
        });
        let delayed: Vec<_> = delayed.filter(|(key, ..)| self.durable.answer_to(key).is_none()).collect();
        for (key, ticket, checkpoint) in delayed {
            self.create_clones(&key, ticket, checkpoint);
        }
    }

    /// Answers all for whom there is an answer now, or whose time is over.
    pub(super) fn answer_waiters(&mut self, now: Duration) {
        for waiter in std::mem::take(&mut self.waiters) {
            let late = (waiter.deadline <= now).then_some(Answer::Unfinished);
            match self.answer_for(&waiter).or(late) {
                Some(answer) => {
                    let reply = Reply { id: waiter.key.id, answer };
                    self.outputs.push_back(Output::Answer(waiter.connection, reply));
                }
                None => self.waiters.push(waiter),
            }
        }
    }

    fn answer_for(&self, waiter: &Waiter) -> Option<Answer> {
        if let Some(answer) = self.durable.answer_to(&waiter.key) {
            return Some(answer.clone());
        }
        match &waiter.ask {
            // These are answered by what is remembered.
            Ask::RequestTicket { .. } | Ask::Checkpoint | Ask::CreateClones { .. } => None,
            Ask::Join { ticket } => self.joined(*ticket),
            Ask::Kill { ticket } => self.ended(*ticket),
            Ask::Advance(wish) => self.advanced(wish),
            Ask::View { after } => (self.view.number > *after).then(|| Answer::View(self.view.clone())),
        }
    }

    /// Whether all clones of a ticket have ended; one whose clones are still to be made has not.
    fn joined(&self, ticket: TicketId) -> Option<Answer> {
        let Some(record) = self.durable.tickets.get(&ticket) else { return self.ended(ticket) };
        let made = matches!(record.stage, Stage::Created(..));
        (made && !record.clones.values().any(|clone| clone.state.is_alive())).then_some(Answer::Done)
    }

    fn ended(&self, ticket: TicketId) -> Option<Answer> {
        let (_, next, _) = self.durable.next();
        match self.durable.tickets.contains_key(&ticket) {
            true => None,
            false if ticket < next && ticket.0 > 0 => Some(Answer::Done),
            false => Some(Answer::Refused { why: format!("{ticket} has never existed") }),
        }
    }

    fn advanced(&self, wish: &CloneWish) -> Option<Answer> {
        let Some((_, clone)) = self.durable.clone_with(wish.clone) else {
            let why = format!("no ticket has a {} that lives", wish.clone);
            return Some(match wish.goal {
                CloneGoal::Gone => Answer::Done,
                CloneGoal::Ready { .. } | CloneGoal::Retiring => Answer::Refused { why },
            });
        };
        if super::wishes::is_reached(&clone.state, wish.goal) {
            return Some(Answer::Done);
        }
        let why = format!("{} has ended: {}", wish.clone, clone.state);
        (!clone.state.is_alive()).then_some(Answer::Refused { why })
    }
}
