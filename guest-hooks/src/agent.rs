//! The agent's loop: say Hello until the host speaks, then sleep in `read` and answer.
//!
//! ```text
//! greeting --host says anything--> listening --host hangs up--> greeting
//! ```
//!
//! In a forked clone the first thing that happens is that `read` returns with an `Identify`. From
//! there to the answer nothing allocates, no file is looked up and no other thread runs: every page
//! touched is a page that the clone has to fetch.

use std::convert::Infallible;
use std::path::Path;
use std::time::{Duration, Instant};

use snowflock_engine::wire::{Decoder, Failures, GuestMessage, HookEvent, HostMessage, Identity, RequestId};

use crate::api::Api;
use crate::identity::{Identifier, is_birth};
use crate::port::Port;
use crate::{hooks, sys, system, vitals};

/// How often Hello is repeated while nobody answers.
const HELLO_EVERY: Duration = Duration::from_millis(100);
/// What the hooks of a clone's birth may take together. The clone gets no traffic before they are done.
const AFTER_BIRTH_DEADLINE: Duration = Duration::from_secs(10);

/// Runs the agent until its port fails for good. Returns what went wrong.
pub(crate) fn run(port: Option<&Path>) -> String {
    match Agent::start(port).and_then(|mut agent| agent.serve()) {
        Ok(never) => match never {},
        Err(why) => why,
    }
}

struct Agent {
    port: Port,
    decoder: Decoder,
    identifier: Identifier,
    /// The last identity taken and its answer: a repeated request is answered, not obeyed, again.
    last: Option<(RequestId, GuestMessage)>,
    identity: Option<Identity>,
    boot_id: [u8; 16],
    api: Api,
    watch: sys::Watch,
}

impl Agent {
    fn start(port: Option<&Path>) -> Result<Self, String> {
        let agent = Self {
            port: Port::open(port)?,
            decoder: Decoder::new(),
            identifier: Identifier::new()?,
            last: None,
            identity: None,
            boot_id: system::boot_id(),
            api: Api::open(),
            watch: sys::Watch::default(),
        };
        // Both help a birth to be quick and neither is vital.
        if let Err(e) = sys::run_first() {
            eprintln!("flurry: no priority over other processes: {e}");
        }
        hooks::look();
        // Reclaimed pages would have to be read from disk in the middle of a birth.
        if let Err(e) = sys::lock_memory() {
            eprintln!("flurry: memory not locked: {e}");
        }
        Ok(agent)
    }

    fn serve(&mut self) -> Result<Infallible, String> {
        loop {
            self.greet()?;
            self.listen()?;
        }
    }

    /// Says Hello until the host has said anything.
    fn greet(&mut self) -> Result<(), String> {
        let boot_id = self.boot_id;
        loop {
            self.port.send(&GuestMessage::Hello { boot_id })?;
            if self.port.readable_within(HELLO_EVERY)? {
                return Ok(());
            }
        }
    }

    /// Answers the host, and processes of the guest, until the host hangs up.
    fn listen(&mut self) -> Result<(), String> {
        loop {
            self.watch.clear();
            self.port.add_to(&mut self.watch);
            self.api.add_to(&mut self.watch);
            self.watch.wait().map_err(|e| format!("waiting for something to do: {e}"))?;
            for (request, call) in self.api.serve(&self.watch, self.identity.as_ref()) {
                self.port.send(&GuestMessage::Call(request, call))?;
            }
            if !self.watch.has_news(self.port.file()) {
                continue;
            }
            let count = self.port.read(self.decoder.space())?;
            if count == 0 {
                self.decoder = Decoder::new();
                return Ok(());
            }
            self.decoder.filled(count);
            while let Some(message) = self.next_message() {
                self.obey(message)?;
            }
        }
    }

    fn next_message(&mut self) -> Option<HostMessage> {
        loop {
            match HostMessage::parse(&self.decoder.next_frame()?) {
                Ok(message) => return Some(message),
                Err(why) => eprintln!("flurry: a message of the host is ignored: {why}"),
            }
        }
    }

    fn obey(&mut self, message: HostMessage) -> Result<(), String> {
        match message {
            HostMessage::Welcome => Ok(()),
            HostMessage::Identify(request, identity) => self.identify(request, identity),
            HostMessage::Ping(request) => {
                let clone_id = self.identity.as_ref().map_or(0, |i| i.clone_id);
                self.port.send(&GuestMessage::Pong { request, clone_id })
            }
            HostMessage::RunHooks { request, event, deadline_ms } => {
                let deadline = Duration::from_millis(u64::from(deadline_ms));
                let outcome = hooks::run(event, self.identity.as_ref(), deadline);
                self.port.send(&outcome.message(request, event))
            }
            HostMessage::AskReport(request) => self.port.send(&GuestMessage::Report(request, vitals::read())),
            HostMessage::Answer(request, answer) => {
                self.api.answered(request, &answer);
                Ok(())
            }
            HostMessage::ForkedBy { call, place } => {
                self.api.forked_by(call, place);
                Ok(())
            }
            HostMessage::Shutdown(request) => {
                self.port.send(&GuestMessage::ShuttingDown(request))?;
                system::power_off().map_err(|e| format!("powering off: {e}"))
            }
        }
    }

    fn identify(&mut self, request: RequestId, identity: Identity) -> Result<(), String> {
        if let Some((done, answer)) = &self.last
            && *done == request
        {
            return self.port.send(answer);
        }
        let began = Instant::now();
        let mut failed = self.identifier.take(&identity, self.identity.as_ref());
        if is_birth(&identity, self.identity.as_ref()) {
            let outcome = hooks::run(HookEvent::AfterBirth, Some(&identity), AFTER_BIRTH_DEADLINE);
            if outcome.failed > 0 {
                failed.insert(Failures::HOOKS);
                self.port.send(&outcome.message(request, HookEvent::AfterBirth))?;
            }
        }
        let took_us = u32::try_from(began.elapsed().as_micros()).unwrap_or(u32::MAX);
        let answer = GuestMessage::Identified { request, clone_id: identity.clone_id, failed, took_us };
        self.port.send(&answer)?;
        self.last = Some((request, answer));
        if is_birth(&identity, self.identity.as_ref()) {
            self.api.born(&identity);
        }
        self.identity = Some(identity);
        Ok(())
    }
}
