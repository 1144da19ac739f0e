//! Who belongs to it: hellos, reports, leases on membership, leases of clone IDs.

use std::collections::BTreeMap;
use std::time::Duration;

use super::durable::Change;
use super::{ConnectionId, Line, Master, Output};
use crate::control::LifeState;
use crate::hosts::ids::{IdRange, Name};
use crate::hosts::message::{Hello, Report, ToHost, Welcome};
use crate::network::identity::CloneId;

/// A host with fewer unused clone IDs than this gets more.
pub(in crate::hosts) const FEW_IDS: u32 = 64;

impl Master {
    pub(super) fn hello(&mut self, now: Duration, connection: ConnectionId, host: &Name, hello: &Hello) {
        if let Some(line) = self.lines.get(host) {
            // One that was overtaken by a later one on another connection.
            if line.instance == hello.instance && line.session >= hello.session {
                return;
            }
            // Its line would have ended with it: they would give each other's clones up in turns.
            if line.instance != hello.instance && line.connection != connection {
                tracing::warn!(
                    %host,
                    "another sfld has the certificate of a host that is connected; it is not admitted before \
                     that one has gone: stop one of them, or make a certificate for it"
                );
                return self.outputs.push_back(Output::HangUp(connection));
            }
            let old = line.connection;
            self.lines.remove(host);
            if old != connection {
                self.outputs.push_back(Output::HangUp(old));
            }
        }
        let session = hello.session;
        if let Some(epoch) = hello.epoch
            && !self.is_member(host, hello)
        {
            let fenced = ToHost::Fenced { session, master: self.durable.master, epoch };
            self.outputs.push_back(Output::ToHost(connection, fenced));
            return;
        }
        self.admit(host, hello);
        let Some(membership) = self.durable.hosts.get(host).filter(|m| !m.lost) else { return };
        let (epoch, master) = (membership.epoch, self.durable.master);
        let lease_ms = u32::try_from(self.settings.lease.as_millis()).unwrap_or(u32::MAX);
        let welcome = ToHost::Welcome(Welcome { session, master, epoch, lease_ms });
        self.outputs.push_back(Output::ToHost(connection, welcome));
        self.heard.insert(host.clone(), now);
        let instance = hello.instance;
        let sent = BTreeMap::new();
        let line = Line { connection, instance, session, report: None, wishes: None, wished: now, sent };
        self.lines.insert(host.clone(), line);
    }

    /// Whether the membership that a host believes to have is one.
    fn is_member(&self, host: &Name, hello: &Hello) -> bool {
        let same = |epoch| self.durable.holds(host, epoch);
        let instance = self.durable.hosts.get(host).map(|m| m.instance);
        hello.epoch.is_some_and(same) && instance == Some(hello.instance)
    }

    /// Gives a host a membership if it has none. The same run of SFLD keeps its clone IDs: those that it
    /// has used, it does not use again.
    fn admit(&mut self, host: &Name, hello: &Hello) {
        let known = self.durable.hosts.get(host).filter(|m| m.instance == hello.instance);
        if known.is_some_and(|m| !m.lost) {
            return;
        }
        let kept = known.map(|m| m.ids.clone()).unwrap_or_default();
        let ids = if kept.is_empty() { self.durable.next_ids().into_iter().collect() } else { kept };
        let (epoch, ..) = self.durable.next();
        self.change(Change::Admitted { host: host.clone(), instance: hello.instance, epoch, ids });
    }

    pub(super) fn report(&mut self, now: Duration, connection: ConnectionId, host: &Name, report: Report) {
        let Some(line) = self.lines.get_mut(host) else { return };
        let is_newest = line.report.as_ref().is_none_or(|last| last.number < report.number);
        if line.connection != connection || line.session != report.session || !is_newest {
            return;
        }
        self.heard.insert(host.clone(), now);
        let seen = ToHost::Seen { session: report.session, report: report.number };
        self.outputs.push_back(Output::ToHost(connection, seen));
        self.move_clones(host, &report);
        if let Some(line) = self.lines.get_mut(host) {
            line.report = Some(report);
        }
    }

    /// Takes over what a report says of the lives of clones.
    fn move_clones(&mut self, host: &Name, report: &Report) {
        let Some(epoch) = self.durable.hosts.get(host).map(|m| m.epoch) else { return };
        let mut moves = Vec::new();
        for (ticket, record) in &self.durable.tickets {
            for (id, clone) in record.living(host, epoch) {
                let reported = report.clones.iter().find(|reported| reported.clone == *id);
                let state = reported.map_or(LifeState::Gone, |reported| reported.state.clone());
                let ipv4 = reported.map(|reported| reported.ipv4);
                if clone.state.may_become(&state) || (clone.ipv4 != ipv4 && ipv4.is_some()) {
                    let state = if clone.state.may_become(&state) { state } else { clone.state.clone() };
                    moves.push(Change::Moved { ticket: *ticket, clone: *id, state, ipv4 });
                }
            }
        }
        moves.into_iter().for_each(|change| self.change(change));
    }

    /// After a time in which SFMD itself did not run (its machine was suspended, or its disk hung) nobody's
    /// silence means anything: what hosts have said meanwhile is still to be read.
    pub(super) fn allow_for_standstill(&mut self, now: Duration) {
        let stood_still = now.saturating_sub(self.handled);
        self.handled = now;
        if stood_still <= self.settings.lease / 2 {
            return;
        }
        tracing::warn!(?stood_still, "sfmd stood still: all hosts have a whole lease again");
        self.heard.values_mut().chain(self.asked.values_mut()).for_each(|at| *at = now);
    }

    /// Gives up hosts that have been silent for too long.
    pub(super) fn end_leases(&mut self, now: Duration) {
        let members = self.durable.hosts.iter().filter(|(_, m)| !m.lost).map(|(host, _)| host);
        let silent = |host: &&Name| self.heard.get(*host).is_none_or(|at| *at + self.settings.lease <= now);
        let lost: Vec<Name> = members.filter(silent).cloned().collect();
        for host in lost {
            tracing::warn!(%host, "no report for a whole lease: it is given up");
            if let Some(line) = self.lines.remove(&host) {
                self.outputs.push_back(Output::HangUp(line.connection));
            }
            self.change(Change::Lost { host });
        }
    }

    /// More clone IDs for hosts that run short of them and know of all that they have.
    pub(super) fn lease_ids(&mut self) {
        let short = |host: &Name| self.informed_report_of(host).is_some_and(|r| r.room.ids < FEW_IDS);
        let hosts: Vec<Name> = self.lines.keys().filter(|host| short(host)).cloned().collect();
        for host in hosts {
            match self.durable.next_ids() {
                Some(ids) => self.change(Change::Leased { host, ids }),
                None => tracing::error!(%host, "clone IDs are used up; a new record is needed"),
            }
        }
    }

    /// Whether a host may promise this clone: its ID is leased to it and was not promised before.
    pub(super) fn may_promise(&self, host: &Name, id: CloneId) -> bool {
        let leased = |ids: &IdRange| ids.holds(id);
        let is_leased = self.durable.hosts.get(host).is_some_and(|m| m.ids.iter().any(leased));
        is_leased && self.durable.clone_with(id).is_none()
    }
}
