//! What a sender does with datagrams of receivers.

use super::*;

impl Sender {
    /// Takes a datagram in, which is opened in its place.
    ///
    /// # Errors
    /// It is not used; see [`WireError`].
    pub fn handle_datagram(
        &mut self,
        now: Duration,
        from: SocketAddr,
        datagram: &mut [u8],
    ) -> Result<(), WireError> {
        let handled = self.take(now, from, datagram);
        self.stats.refused += u64::from(handled.is_err());
        handled
    }

    fn take(&mut self, now: Duration, from: SocketAddr, datagram: &mut [u8]) -> Result<(), WireError> {
        let header = Header::parse(datagram)?;
        if header.distribution != self.distribution || header.role != Role::Receiver {
            return Err(WireError::Elsewhere);
        }
        let known = self.sessions.get(&header.session).copied();
        if let Some(slot) = known {
            return self.take_from_slot(now, from, &header, slot, datagram);
        }
        let session = Session::new(&self.key, self.distribution, Role::Receiver, header.session);
        let opened = session.open(&header, datagram)?;
        let message = FromReceiver::decode(&self.geometry, opened)?;
        match &message {
            FromReceiver::Request(request) if request.epoch == self.out.session() => {
                let slot = self.admit(now, from, session)?;
                self.slots[slot].window.note(header.counter);
                self.obey(now, from, slot, request);
            }
            // A newcomer, or one who knows an earlier life of ours.
            FromReceiver::Request(_) | FromReceiver::Hello => self.welcome(from, &header),
            FromReceiver::Bye { .. } => {}
        }
        Ok(())
    }

    fn take_from_slot(
        &mut self,
        now: Duration,
        from: SocketAddr,
        header: &Header,
        slot: usize,
        datagram: &mut [u8],
    ) -> Result<(), WireError> {
        if self.slots[slot].is_muted() {
            return Err(WireError::Elsewhere);
        }
        let opened = self.slots[slot].session.open(header, datagram)?;
        if !self.slots[slot].window.note(header.counter) {
            return Err(WireError::Replayed);
        }
        let message = FromReceiver::decode(&self.geometry, opened);
        match message.inspect_err(|_| self.slots[slot].note_nonsense())? {
            FromReceiver::Request(request) if request.epoch == self.out.session() => {
                self.obey(now, from, slot, &request);
            }
            FromReceiver::Request(_) | FromReceiver::Hello => self.welcome(from, header),
            FromReceiver::Bye { epoch } if epoch == self.out.session() => {
                self.slots[slot].retire();
                self.census();
            }
            FromReceiver::Bye { .. } => {}
        }
        Ok(())
    }

    fn welcome(&mut self, to: SocketAddr, header: &Header) {
        self.out.welcome(to, header.session, header.counter, self.report_every);
    }

    fn admit(&mut self, now: Duration, from: SocketAddr, session: Session) -> Result<usize, WireError> {
        if self.slots.len() >= MAX_RECEIVERS {
            return Err(WireError::Full);
        }
        let slot = self.slots.len();
        self.sessions.insert(session.id(), slot);
        self.slots.push(Slot::new(session, from, now, self.rates));
        // So that it learns whether it hears.
        self.beat_at = now;
        Ok(slot)
    }

    fn obey(&mut self, now: Duration, from: SocketAddr, slot: usize, request: &Request) {
        let heard = self.slots[slot].hears;
        let is_new = self.slots[slot].report(now, from, request);
        if is_new && (heard != self.slots[slot].hears || self.slots[slot].missing == 0) {
            self.census();
        }
        for wish in &request.urgent {
            if self.slots[slot].want_urgently(*wish) {
                self.urgent.join(slot);
            }
        }
        let is_latest = request.report == self.slots[slot].report;
        if is_latest && self.slots[slot].is_judged(now) {
            self.want_ahead(slot, request);
            if self.slots[slot].is_settled(now) {
                self.want_groups(now, slot, request, is_new);
            }
        }
    }

    fn want_ahead(&mut self, slot: usize, request: &Request) {
        if !request.ahead.is_empty() {
            self.slots[slot].want_ahead(&request.ahead);
            self.ahead.join(slot);
        }
    }

    /// Missing groups: what never went out goes to all, what was lost is collected. A receiver that is
    /// alone, or does not hear, gets everything for itself.
    fn want_groups(&mut self, now: Duration, slot: usize, request: &Request, is_new: bool) {
        let receiver = &mut self.slots[slot];
        let is_alone = !receiver.hears || receiver.straggles || self.needy <= 1;
        if is_new && (is_alone || receiver.was_alone) {
            receiver.private.clear();
        }
        receiver.was_alone = is_alone;
        let told = request.groups.iter().map(|missing| (missing.group, missing.pages, missing.held));
        let (first, count) = request.untouched;
        let untouched = (first.0..first.0 + u32::from(count)).map(Group);
        let untouched: Vec<_> = untouched.map(|group| (group, self.geometry.mask(group), 0)).collect();
        for (group, pages, held) in told.chain(untouched) {
            if is_alone {
                self.want_alone(now, slot, group, pages, held);
            } else {
                self.want_with_others(now, slot, group, pages, held);
            }
        }
    }

    fn want_alone(&mut self, now: Duration, slot: usize, group: Group, pages: u128, held: u8) {
        let needed = pages.count_ones().saturating_sub(held.into());
        for place in group.places(losses::first_of(pages, needed)) {
            let to_all = self.catalogue.sent(place);
            if !self.slots[slot].may_arrive(place, to_all, now, false) {
                self.slots[slot].want_alone(place);
            }
        }
        if !self.slots[slot].private.is_empty() {
            self.private.join(slot);
        }
    }

    fn want_with_others(&mut self, now: Duration, slot: usize, group: Group, pages: u128, held: u8) {
        let is_current = self.current.is_some_and(|(current, left)| current == group && left != 0);
        let never = self.catalogue.never_sent(group, pages);
        if never != 0 && !is_current {
            self.fresh.insert(group);
        }
        let receiver = &self.slots[slot];
        let is_lost = |place: &Place| !receiver.may_arrive(*place, self.catalogue.sent(*place), now, false);
        let lost = group.places(pages & !never).filter(is_lost).fold(0, |all, place| all | place.bit());
        if lost != 0 {
            self.note_loss(now, slot, (group, true), lost, held);
        }
    }
}
