//! The socket through which processes of the guest ask for clones: `/run/flurry/api`, one line a call,
//! one line an answer.
//!
//! ```text
//! process --"clone 3"--> agent --Call--> host
//!                                          fork: the process waits in parent and clones alike
//! process <--"ok 0 4"--- agent <-Answer-- host       in the parent
//! process <--"ok 2 4"--- agent <-Identify- host      in clone 2
//! ```
//!
//! A call that waits while the host forks the guest for reasons of its own fails in that clone: its answer
//! is for the parent.

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use snowflock_engine::wire::api::{Answer, Call};
use snowflock_engine::wire::{Identity, RequestId};

use crate::sys::Watch;

mod line;

use line::Request;

/// Where the socket is.
pub(crate) const SOCKET: &str = "/run/flurry/api";
/// Processes that may be connected at once; others wait.
const MOST_CLIENTS: usize = 16;
/// The longest line of a process, with its end.
const LONGEST: usize = 64;

/// The socket and all that are connected to it.
pub(crate) struct Api {
    listener: Option<UnixListener>,
    clients: Vec<Client>,
    calls: u32,
    /// The call that this clone is said to be the outcome of, and its place among those.
    fork: Option<(RequestId, u32)>,
}

impl Api {
    /// Opens the socket, for root alone. A guest without it has no calls and is fine otherwise.
    pub(crate) fn open() -> Self {
        Self::open_at(Path::new(SOCKET))
    }

    fn open_at(path: &Path) -> Self {
        let _ = fs::remove_file(path);
        let opened = UnixListener::bind(path).and_then(|listener| {
            listener.set_nonblocking(true)?;
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
            Ok(listener)
        });
        let listener = opened.map_err(|e| eprintln!("flurry: no socket for calls: {e}")).ok();
        Self { listener, clients: Vec::with_capacity(MOST_CLIENTS), calls: 0, fork: None }
    }

    /// Lets all be waited for.
    pub(crate) fn add_to(&self, watch: &mut Watch) {
        if let (Some(listener), true) = (&self.listener, self.clients.len() < MOST_CLIENTS) {
            watch.add(listener);
        }
        self.clients.iter().for_each(|client| watch.add(&client.stream));
    }

    /// Reads what has come; returns the calls for the host.
    pub(crate) fn serve(&mut self, watch: &Watch, identity: Option<&Identity>) -> Vec<(RequestId, Call)> {
        let mut calls = Vec::new();
        for client in self.clients.iter_mut().filter(|client| watch.has_news(&client.stream)) {
            match client.read() {
                Some(Ok(Request::Call(call))) => {
                    self.calls = self.calls.wrapping_add(1);
                    client.waits_for = Some((RequestId(self.calls), call));
                    calls.push((RequestId(self.calls), call));
                }
                Some(Ok(Request::Id)) => client.say(&line::id(identity)),
                Some(Err(why)) => client.say(&line::error(why)),
                None => {}
            }
        }
        self.clients.retain(|client| client.connected);
        if let Some(listener) = self.listener.as_ref().filter(|listener| watch.has_news(*listener)) {
            self.clients.extend(listener.accept().ok().and_then(|(stream, _)| Client::new(stream)));
        }
        calls
    }

    /// The host's answer to a call.
    pub(crate) fn answered(&mut self, request: RequestId, answer: &Answer) {
        let waits = |client: &&mut Client| client.waits_for.is_some_and(|(ours, _)| ours == request);
        if let Some(client) = self.clients.iter_mut().find(waits) {
            client.say(&line::answer(answer));
        }
    }

    /// What the host says ahead of a clone's identity.
    pub(crate) fn forked_by(&mut self, call: RequestId, place: u32) {
        self.fork = Some((call, place));
    }

    /// This guest is a clone now: the call that made it returns, and no other ever will.
    pub(crate) fn born(&mut self, identity: &Identity) {
        let fork = self.fork.take();
        for client in &mut self.clients {
            let Some((request, call)) = client.waits_for else { continue };
            match fork {
                Some((made_by, place)) if call.forks() && made_by == request => {
                    client.say(&line::born(place, identity.clones));
                }
                _ => client.say(&line::error("interrupted: this is a clone, made by its host")),
            }
        }
    }
}

/// A process that is connected.
struct Client {
    stream: UnixStream,
    line: Vec<u8>,
    /// Its call that the host has not answered yet.
    waits_for: Option<(RequestId, Call)>,
    connected: bool,
}

impl Client {
    fn new(stream: UnixStream) -> Option<Self> {
        stream.set_nonblocking(true).ok()?;
        Some(Self { stream, line: Vec::with_capacity(LONGEST), waits_for: None, connected: true })
    }

    /// Its next line, if it is there. Who speaks out of turn, or too long, is disconnected.
    fn read(&mut self) -> Option<Result<Request, &'static str>> {
        let mut room = [0; LONGEST];
        match self.stream.read(&mut room) {
            Ok(count) if count > 0 && self.waits_for.is_none() => self.line.extend(&room[..count]),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => return None,
            _ => {
                self.connected = false;
                return None;
            }
        }
        match self.line.iter().position(|byte| *byte == b'\n') {
            Some(end) if end + 1 == self.line.len() && end < LONGEST => {
                let request = line::parse(&String::from_utf8_lossy(&self.line[..end]));
                self.line.clear();
                Some(request)
            }
            None if self.line.len() < LONGEST => None,
            _ => {
                self.connected = false;
                None
            }
        }
    }

    /// Answers it; a process that does not read is disconnected.
    fn say(&mut self, text: &str) {
        self.waits_for = None;
        self.connected &= self.stream.write_all(text.as_bytes()).is_ok();
    }
}

#[cfg(test)]
mod tests;
