//! A worker's idle connections to backends. The one used last is used next: it is the
//! least likely to have been closed, and the others can grow old and go.

use std::time::{Duration, Instant};

use super::upstream::Upstream;
use crate::pool::Snapshot;

/// Idle connections that one worker keeps to one backend.
const MAX_PER_BACKEND: usize = 512;

/// The idle connections of one worker.
pub(crate) struct IdleConnections {
    max_idle: Duration,
    /// By serial of the backend. A scan of a few dozen numbers is faster than a hash.
    by_backend: Vec<(u64, Vec<Upstream>)>,
}

impl IdleConnections {
    pub(crate) fn new(max_idle: Duration) -> Self {
        Self { max_idle, by_backend: Vec::new() }
    }

    /// Takes a connection to a backend. It may have been closed meanwhile: then the
    /// request comes back unsent.
    #[inline]
    pub(crate) fn take(&mut self, serial: u64) -> Option<Upstream> {
        let (_, connections) = self.by_backend.iter_mut().find(|(of, _)| *of == serial)?;
        connections.pop()
    }

    /// Keeps a connection for the next request.
    #[inline]
    pub(crate) fn put(&mut self, serial: u64, mut upstream: Upstream, now: Instant) {
        upstream.rests(now);
        match self.by_backend.iter_mut().find(|(of, _)| *of == serial) {
            Some((_, connections)) if connections.len() < MAX_PER_BACKEND => connections.push(upstream),
            Some(_full) => {}
            None => self.by_backend.push((serial, vec![upstream])),
        }
    }

    /// Closes all connections to a backend: one of them turned out to be dead.
    pub(crate) fn forget(&mut self, serial: u64) {
        self.by_backend.retain(|(of, _)| *of != serial);
    }

    /// Closes what is too old, was closed by the backend, or leads to no backend.
    pub(crate) fn sweep(&mut self, snapshot: &Snapshot, now: Instant) {
        self.by_backend.retain_mut(|(serial, connections)| {
            let fresh = |upstream: &Upstream| {
                let since = upstream.idle_since().unwrap_or(now);
                now.saturating_duration_since(since) < self.max_idle
            };
            connections.retain_mut(|upstream| fresh(upstream) && upstream.is_idle());
            snapshot.has(*serial) && !connections.is_empty()
        });
    }
}
