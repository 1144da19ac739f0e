//! A worker's idle connections to backends. The one used last is used next: it is the
//! least likely to have been closed, and the others can grow old and go.

use std::time::{Duration, Instant};

use super::shared::{Shared, SharedConnections};
use super::upstream::{Single, Upstream};

/// Idle connections that one worker keeps to one backend.
const MAX_PER_BACKEND: usize = 512;

/// The idle connections of one worker.
#[derive(Default)]
pub(crate) struct IdleConnections {
    /// By serial of the backend. A scan of a few dozen numbers is faster than a hash.
    by_backend: Vec<(u64, Vec<Single>)>,
    /// Those that carry many requests at once, idle or not.
    shared: Vec<(u64, SharedConnections)>,
}

impl IdleConnections {
    /// Takes a connection to a backend. It may have been closed meanwhile: then the
    /// request comes back unsent.
    #[inline]
    pub(crate) fn take(&mut self, serial: u64) -> Option<Upstream> {
        let (_, connections) = self.by_backend.iter_mut().find(|(of, _)| *of == serial)?;
        connections.pop().map(Upstream::Single)
    }

    /// Takes a handle of a connection that carries many requests at once.
    pub(crate) fn take_shared(&mut self, serial: u64) -> Option<Upstream> {
        let (_, connections) = self.shared.iter_mut().find(|(of, _)| *of == serial)?;
        connections.take().map(Upstream::Shared)
    }

    /// Lets others use a new connection, too.
    pub(crate) fn share(&mut self, serial: u64, upstream: &Shared) {
        match self.shared.iter_mut().find(|(of, _)| *of == serial) {
            Some((_, connections)) => connections.add(upstream),
            None => {
                let mut connections = SharedConnections::default();
                connections.add(upstream);
                self.shared.push((serial, connections));
            }
        }
    }

    /// Keeps a connection for the next request.
    #[inline]
    pub(crate) fn put(&mut self, serial: u64, mut upstream: Single, now: Instant) {
        upstream.rests(now);
        match self.by_backend.iter_mut().find(|(of, _)| *of == serial) {
            Some((_, connections)) if connections.len() < MAX_PER_BACKEND => connections.push(upstream),
            Some(_full) => {}
            None => self.by_backend.push((serial, vec![upstream])),
        }
    }

    /// Closes all connections to a backend that carry nothing: one of them turned out to be dead. Of those
    /// that others use, only the closed ones go.
    pub(crate) fn forget(&mut self, serial: u64) {
        self.by_backend.retain(|(of, _)| *of != serial);
        self.shared.retain_mut(|(of, connections)| *of != serial || connections.forget_closed());
    }

    /// Gives a connection that others use to nobody any more.
    pub(crate) fn discard(&mut self, serial: u64, upstream: &Shared) {
        let of_backend = self.shared.iter_mut().find(|(of, _)| *of == serial);
        of_backend.into_iter().for_each(|(_, connections)| connections.discard(upstream));
    }

    /// Closes what is too old, was closed by the backend, or leads to no backend.
    pub(crate) fn sweep(&mut self, is_known: impl Fn(u64) -> bool, max_idle: Duration, now: Instant) {
        self.by_backend.retain_mut(|(serial, connections)| {
            let fresh = |upstream: &Single| {
                let since = upstream.idle_since().unwrap_or(now);
                now.saturating_duration_since(since) < max_idle
            };
            connections.retain_mut(|upstream| fresh(upstream) && upstream.is_idle());
            is_known(*serial) && !connections.is_empty()
        });
        self.shared.retain_mut(|(serial, connections)| connections.sweep(!is_known(*serial), max_idle, now));
    }
}
