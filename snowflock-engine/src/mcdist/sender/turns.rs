//! Receivers take turns, so that none waits behind all the wishes of another.

use std::collections::VecDeque;

/// Slots that wish something, in the order of their turns.
#[derive(Debug, Default)]
pub(super) struct Turns {
    order: VecDeque<usize>,
    is_in: Vec<bool>,
}

impl Turns {
    /// Gives a slot a turn, unless it waits for one.
    pub(super) fn join(&mut self, slot: usize) {
        if self.is_in.len() <= slot {
            self.is_in.resize(slot + 1, false);
        }
        if !std::mem::replace(&mut self.is_in[slot], true) {
            self.order.push_back(slot);
        }
    }

    /// Whose turn it is. [`Turns::stay`] must follow.
    pub(super) fn next(&mut self) -> Option<usize> {
        let slot = self.order.pop_front()?;
        self.is_in[slot] = false;
        Some(slot)
    }

    /// Another turn for the slot if it wishes more.
    pub(super) fn stay(&mut self, slot: usize, wishes_more: bool) {
        if wishes_more {
            self.join(slot);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.order.len()
    }
}
