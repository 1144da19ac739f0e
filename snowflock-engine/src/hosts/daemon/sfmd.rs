//! SFMD: its brain, its record, and the connections of hosts and users.
//!
//! ```text
//!   listener -> connection tasks --events--> owner: brain -> record -> connection tasks
//! ```

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use rustls::ServerConfig;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::config::SfmdConfig;
use super::{DaemonError, Signals};
use crate::control::report;
use crate::hosts::certificates::{Credentials, Role};
use crate::hosts::ids::Name;
use crate::hosts::link::{Link, LinkError, accept};
use crate::hosts::master::durable::Change;
use crate::hosts::master::record::RecordFile;
use crate::hosts::master::{ConnectionId, Input, Master, Output, Settings};
use crate::hosts::message::{FromHost, Reply, Request, ToHost};

/// A host must say within this what it promises.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// Connections at once, handshakes included: far more than hosts and users.
const MOST_CONNECTIONS: usize = 1024;
/// Messages that wait for a slow reader; then it is hung up on.
const BACKLOG: usize = 64;
/// Events that wait for the brain; then readers wait.
const EVENTS: usize = 256;

/// What connection tasks tell the owner.
enum Event {
    Opened(ConnectionId, mpsc::Sender<Down>),
    Host(ConnectionId, Name, FromHost),
    User(ConnectionId, Name, Request),
    Closed(ConnectionId),
}

/// What goes down a connection.
enum Down {
    ToHost(ToHost),
    Reply(Reply),
}

/// Runs SFMD until SIGTERM or SIGINT.
///
/// # Errors
/// It cannot start, or its record cannot be written any more.
pub async fn run(config: &SfmdConfig) -> Result<(), DaemonError> {
    let mut signals = Signals::new()?;
    let credentials = Credentials::load(&config.certificates)?;
    match credentials.role()? {
        Role::Master => {}
        found => return Err(DaemonError::Role { found, wanted: "sfmd" }),
    }
    let tls = credentials.server()?;
    let (record, durable) = RecordFile::open(&config.state_dir)?;
    let listening = TcpListener::bind(config.listen).await;
    let listener = listening.map_err(DaemonError::system(format!("listen on {}", config.listen)))?;
    let (events, inbox) = mpsc::channel(EVENTS);
    let began = Instant::now();
    let settings = Settings { lease: config.lease(), answer_limit: ANSWER_LIMIT, deferred: false };
    let master = Master::start(durable, settings, Duration::ZERO);
    tracing::info!(listen = %config.listen, hosts = master.durable().hosts.len(), "sfmd is up");
    let owner = Owner { master, record, began, lines: BTreeMap::new() };
    tokio::select! {
        ended = owner.run(inbox) => ended?,
        () = take_connections(listener, tls, events) => {}
        () = signals.stop_asked_for() => tracing::info!("stopped; hosts and clones go on"),
    }
    Ok(())
}

async fn take_connections(listener: TcpListener, tls: Arc<ServerConfig>, events: mpsc::Sender<Event>) {
    let room = Arc::new(Semaphore::new(MOST_CONNECTIONS));
    let mut tasks = JoinSet::new();
    let mut last = 0;
    loop {
        while tasks.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&room).acquire_owned().await else { return };
        let stream = match listener.accept().await {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "a connection was not taken");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        last += 1;
        let (id, tls, events) = (ConnectionId(last), Arc::clone(&tls), events.clone());
        tasks.spawn(async move {
            serve(id, stream, tls, &events).await;
            drop(place);
        });
    }
}

/// One connection from handshake to end.
async fn serve(id: ConnectionId, stream: TcpStream, tls: Arc<ServerConfig>, events: &mpsc::Sender<Event>) {
    let (link, role) = match accept(stream, tls).await {
        Ok(accepted) => accepted,
        Err(error) => return tracing::warn!("a connection is refused: {}", report(&error)),
    };
    let (down, outbox) = mpsc::channel(BACKLOG);
    if events.send(Event::Opened(id, down)).await.is_err() {
        return;
    }
    let peer = role.to_string();
    let ended = match role {
        Role::Host(name) => carry(link, outbox, events, |said| Event::Host(id, name.clone(), said)).await,
        Role::Operator(name) => carry(link, outbox, events, |said| Event::User(id, name.clone(), said)).await,
        Role::Master => {
            link.sender.refuse("an sfmd has nothing to say to another").await;
            Ok(())
        }
    };
    if let Err(error) = ended {
        tracing::warn!(peer, "{}", report(&error));
    }
    let _ = events.send(Event::Closed(id)).await;
}

/// Carries messages in both directions until one side has enough.
async fn carry<T: DeserializeOwned>(
    link: Link,
    mut outbox: mpsc::Receiver<Down>,
    events: &mpsc::Sender<Event>,
    event: impl Fn(T) -> Event,
) -> Result<(), LinkError> {
    let Link { mut receiver, mut sender } = link;
    let read = async {
        while let Some(message) = receiver.receive().await? {
            if events.send(event(message)).await.is_err() {
                break;
            }
        }
        Ok(())
    };
    let write = async {
        while let Some(down) = outbox.recv().await {
            send(&mut sender, &down).await?;
        }
        Ok(())
    };
    let ended = tokio::select! {
        ended = read => ended,
        ended = write => ended,
    };
    match &ended {
        Err(LinkError::Message { source, .. }) => sender.refuse(&report(source)).await,
        Err(_) => {}
        Ok(()) => sender.close().await,
    }
    ended
}

async fn send(sender: &mut crate::hosts::link::Sender, down: &Down) -> Result<(), LinkError> {
    async fn one<T: Serialize>(
        sender: &mut crate::hosts::link::Sender,
        message: &T,
    ) -> Result<(), LinkError> {
        sender.send(message).await
    }
    match down {
        Down::ToHost(message) => one(sender, message).await,
        Down::Reply(reply) => one(sender, reply).await,
    }
}

/// The one task with the brain.
struct Owner {
    master: Master,
    record: RecordFile,
    began: Instant,
    lines: BTreeMap<ConnectionId, mpsc::Sender<Down>>,
}

impl Owner {
    async fn run(mut self, mut inbox: mpsc::Receiver<Event>) -> Result<(), DaemonError> {
        self.carry_out()?;
        loop {
            let wake = self.master.poll_timeout().map(|at| self.began + at);
            let sleep = async {
                match wake {
                    Some(at) => sleep_until(at).await,
                    None => std::future::pending().await,
                }
            };
            let input = tokio::select! {
                event = inbox.recv() => match event {
                    Some(event) => self.take(event),
                    None => return Ok(()),
                },
                () = sleep => Some(Input::Timeout),
            };
            if let Some(input) = input {
                self.master.handle(self.began.elapsed(), input);
                self.carry_out()?;
            }
        }
    }

    fn take(&mut self, event: Event) -> Option<Input> {
        match event {
            Event::Opened(id, line) => {
                self.lines.insert(id, line);
                None
            }
            Event::Host(id, host, said) => Some(Input::Host(id, host, said)),
            Event::User(id, by, request) => Some(Input::User(id, by, request)),
            Event::Closed(id) => {
                self.lines.remove(&id);
                Some(Input::Closed(id))
            }
        }
    }

    /// Changes go to disk together; nothing that follows from them is said before.
    fn carry_out(&mut self) -> Result<(), DaemonError> {
        let outputs: Vec<Output> = std::iter::from_fn(|| self.master.poll_output()).collect();
        let changes: Vec<&Change> = outputs
            .iter()
            .filter_map(|output| match output {
                Output::Record(change) => Some(change),
                _ => None,
            })
            .collect();
        if !changes.is_empty() {
            self.record.append(&changes, self.master.durable())?;
        }
        for output in outputs {
            match output {
                Output::ToHost(id, message) => self.send(id, Down::ToHost(message)),
                Output::Answer(id, reply) => self.send(id, Down::Reply(reply)),
                Output::HangUp(id) => drop(self.lines.remove(&id)),
                // Without cluster software there are no jobs.
                Output::Record(_)
                | Output::Allocate(..)
                | Output::Retain(_)
                | Output::Watch(..)
                | Output::Release(_) => {}
            }
        }
        Ok(())
    }

    /// Who does not read is hung up on: what it missed it is told when it comes again.
    fn send(&mut self, id: ConnectionId, down: Down) {
        let Some(line) = self.lines.get(&id) else { return };
        if line.try_send(down).is_err() {
            tracing::warn!(connection = id.0, "too slow a reader is hung up on");
            self.lines.remove(&id);
        }
    }
}
