//! One SFMD, hosts, users and cluster software on one time line, with faults at every point.

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use super::engine::FakeEngine;
use super::laws::Laws;
use super::random::Random;
use crate::hosts::ids::{Name, TicketId, Unique};
use crate::hosts::master::durable::{Change, Durable};
use crate::hosts::master::members::FEW_IDS;
use crate::hosts::master::{ConnectionId, Input, Master, Output, Settings};
use crate::hosts::message::{FromHost, Reply, Request, ToHost};
use crate::hosts::steward::{self, HostState, Order, Outcome, Steward};

pub(super) const LEASE: Duration = Duration::from_secs(4);
const RECONNECT_MS: u64 = 300;

/// What is under way.
enum Event {
    ToMaster(ConnectionId, FromHost),
    ToHost(ConnectionId, ToHost),
    UserToMaster(ConnectionId, usize, Request),
    ToUser(usize, Reply),
    MasterSeesEnd(ConnectionId),
    HostSeesEnd(ConnectionId),
    Connect(usize),
    Obey(usize, Unique, Order),
    Obeyed(usize, Unique, Outcome),
    StartMaster,
    StartHost(usize),
    Cluster(Input),
    Heal(usize),
    GoOn,
}

pub(super) struct Host {
    pub(super) name: Name,
    pub(super) engine: FakeEngine,
    pub(super) steward: Option<Steward>,
    instance: Unique,
    connection: Option<ConnectionId>,
    cut_off: bool,
    /// Since when nothing keeps it from SFMD, but breaks of single connections.
    pub(super) reachable: Duration,
}

pub(super) struct World {
    pub(super) now: Duration,
    pub(super) random: Random,
    pub(super) master: Option<Master>,
    pub(super) hosts: Vec<Host>,
    pub(super) jobs: BTreeMap<TicketId, String>,
    pub(super) replies: VecDeque<(usize, Reply)>,
    pub(super) laws: Laws,
    /// Whether things go wrong.
    pub(super) faults: bool,
    disk: Durable,
    settings: Settings,
    /// Whether single messages are lost, repeated or overtaken, not connections only.
    rough: bool,
    events: BTreeMap<(Duration, u64), Event>,
    count: u64,
    /// When the last message on a connection arrives, in each direction.
    arrivals: BTreeMap<(ConnectionId, bool), Duration>,
    /// What SFMD will find when it goes on, if it stands still.
    unread: Option<VecDeque<Input>>,
}

impl World {
    pub(super) fn new(seed: u64) -> Self {
        let mut random = Random::new(seed);
        let deferred = random.chance(400);
        let settings = Settings { lease: LEASE, answer_limit: Duration::from_secs(1), deferred };
        let hosts = 1 + random.below(4) as usize;
        let rough = random.chance(300);
        let mut world = Self {
            now: Duration::ZERO,
            random,
            master: None,
            hosts: Vec::new(),
            jobs: BTreeMap::new(),
            replies: VecDeque::new(),
            laws: Laws::default(),
            faults: true,
            disk: Durable::new(Unique::of(1)),
            settings,
            rough,
            events: BTreeMap::new(),
            count: 0,
            arrivals: BTreeMap::new(),
            unread: None,
        };
        for index in 0..hosts {
            let limit = 1 + world.random.below(6) as u32;
            // The first one has a parent at least.
            let parent = index == 0 || world.random.chance(500);
            world.hosts.push(Host {
                name: format!("h{index}").parse().unwrap(),
                engine: FakeEngine::new(limit, parent),
                steward: None,
                instance: Unique::of(0),
                connection: None,
                cut_off: false,
                reachable: Duration::ZERO,
            });
            world.start_host(index);
        }
        world.start_master();
        world
    }

    fn at(&mut self, when: Duration, event: Event) {
        self.count += 1;
        self.events.insert((when, self.count), event);
    }

    fn soon(&mut self, ms: u64, event: Event) {
        let when = self.now + self.random.ms(ms);
        self.at(when, event);
    }

    /// Lets time pass up to the next thing that happens, at most until `until`.
    pub(super) fn step(&mut self, until: Duration) {
        let awake = self.master.as_ref().filter(|_| self.unread.is_none());
        let master = awake.and_then(Master::poll_timeout);
        let hosts = self.hosts.iter().filter_map(|host| host.steward.as_ref()?.poll_timeout());
        let event = self.events.keys().next().map(|(when, _)| *when);
        let next = master.into_iter().chain(hosts).chain(event).min().unwrap_or(until);
        self.now = next.clamp(self.now, until);
        if event.is_some_and(|when| when <= self.now) {
            if let Some((_, event)) = self.events.pop_first() {
                self.happen(event);
            }
        } else {
            self.tell_master(Input::Timeout);
            (0..self.hosts.len()).for_each(|host| self.tell_host(host, steward::Input::Timeout));
        }
        if self.faults {
            self.fault();
        }
        self.laws.check(self.master.as_ref(), &self.hosts, &self.disk);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::ToMaster(connection, message) => {
                let host = self.host_of(connection).map(|host| self.hosts[host].name.clone());
                if let Some(name) = host {
                    self.tell_master(Input::Host(connection, name, message));
                }
            }
            Event::ToHost(connection, message) => {
                if let Some(host) = self.host_of(connection) {
                    self.tell_host(host, steward::Input::Said(message));
                }
            }
            Event::UserToMaster(connection, user, request) => {
                let name = format!("user-{user}").parse().unwrap();
                self.tell_master(Input::User(connection, name, request));
            }
            Event::ToUser(user, reply) => self.replies.push_back((user, reply)),
            Event::MasterSeesEnd(connection) => self.tell_master(Input::Closed(connection)),
            Event::HostSeesEnd(connection) => {
                if let Some(host) = self.host_of(connection) {
                    self.hosts[host].connection = None;
                    self.tell_host(host, steward::Input::Disconnected);
                    self.soon(RECONNECT_MS, Event::Connect(host));
                }
            }
            Event::Connect(host) => self.connect(host),
            Event::Obey(host, instance, order) => self.obey(host, instance, &order),
            Event::Obeyed(host, instance, outcome) => {
                if self.hosts[host].instance == instance {
                    let shows = self.hosts[host].engine.shows();
                    self.tell_host(host, steward::Input::Done(outcome, shows));
                }
            }
            Event::StartMaster => self.start_master(),
            Event::StartHost(host) => self.start_host(host),
            Event::Cluster(input) => self.tell_master(input),
            Event::Heal(host) => {
                self.hosts[host].cut_off = false;
                self.hosts[host].reachable = self.now;
            }
            Event::GoOn => {
                for input in self.unread.take().unwrap_or_default() {
                    self.tell_master(input);
                }
            }
        }
    }

    fn host_of(&self, connection: ConnectionId) -> Option<usize> {
        self.hosts.iter().position(|host| host.connection == Some(connection))
    }

    fn connect(&mut self, host: usize) {
        if self.hosts[host].steward.is_none() || self.hosts[host].connection.is_some() {
            return;
        }
        if self.master.is_none() || self.hosts[host].cut_off {
            return self.soon(RECONNECT_MS, Event::Connect(host));
        }
        self.count += 1;
        self.hosts[host].connection = Some(ConnectionId(self.count));
        self.tell_host(host, steward::Input::Connected);
    }

    /// A user's message on a connection of its own.
    pub(super) fn ask(&mut self, user: usize, request: Request) {
        self.count += 1;
        let connection = ConnectionId(self.count << 8 | user as u64);
        if self.faults && self.random.chance(50) {
            return;
        }
        self.soon(20, Event::UserToMaster(connection, user, request));
    }

    fn start_master(&mut self) {
        if self.master.is_none() {
            self.hosts.iter_mut().for_each(|host| host.reachable = self.now);
            self.master = Some(Master::start(self.disk.clone(), self.settings, self.now));
            self.carry_out();
        }
    }

    fn start_host(&mut self, host: usize) {
        if self.hosts[host].steward.is_none() {
            self.count += 1;
            let instance = Unique::of(self.count);
            self.hosts[host].instance = instance;
            self.hosts[host].reachable = self.now;
            self.hosts[host].steward = Some(Steward::new(instance));
            let shows = self.hosts[host].engine.shows();
            self.tell_host(host, steward::Input::Shows(shows));
            self.soon(RECONNECT_MS, Event::Connect(host));
        }
    }

    pub(super) fn tell_master(&mut self, input: Input) {
        if let Some(unread) = &mut self.unread {
            if !matches!(input, Input::Timeout) {
                unread.push_back(input);
            }
            return;
        }
        if let Some(master) = &mut self.master {
            master.handle(self.now, input);
            self.carry_out();
        }
    }

    /// Does what SFMD says, unless it dies in the middle of it.
    fn carry_out(&mut self) {
        while let Some(output) = self.master.as_mut().and_then(Master::poll_output) {
            if self.faults && self.random.chance(2) {
                return self.crash_master();
            }
            match output {
                Output::Record(change) => {
                    self.laws.change(&change, &self.disk);
                    match &change {
                        Change::Lost { host } => self.must_be_out_of_reach(host),
                        Change::Leased { host, .. } => self.must_run_short_of_ids(host),
                        _ => {}
                    }
                    self.disk.apply(change);
                }
                Output::ToHost(connection, message) => {
                    self.send(connection, true, |c| Event::ToHost(c, message.clone()))
                }
                Output::Answer(connection, reply) => {
                    let user = (connection.0 & 0xFF) as usize;
                    self.soon(20, Event::ToUser(user, reply));
                }
                Output::HangUp(connection) => self.soon(20, Event::HostSeesEnd(connection)),
                Output::Allocate(ticket, clones) => self.allocate(ticket, clones),
                Output::Watch(ticket, _) if !self.jobs.contains_key(&ticket) => {
                    self.soon(500, Event::Cluster(Input::JobEnded(ticket)));
                }
                Output::Watch(..) => {}
                Output::Release(ticket) => drop(self.jobs.remove(&ticket)),
                Output::Retain(tickets) => self.jobs.retain(|ticket, _| tickets.contains(ticket)),
            }
        }
    }

    /// On an ordinary network nobody loses a host that could tell of itself for a whole lease.
    fn must_be_out_of_reach(&self, name: &Name) {
        let host = self.hosts.iter().find(|host| host.name == *name).unwrap();
        let was_reachable =
            !self.rough && !host.cut_off && host.steward.is_some() && host.reachable + LEASE < self.now;
        assert!(!was_reachable, "{name} is given up, though nothing kept it from SFMD for a lease");
    }

    /// IDs are no secret and not few, but 2^24 are not many for a cluster that runs for years.
    fn must_run_short_of_ids(&self, name: &Name) {
        let host = self.hosts.iter().find(|host| host.name == *name).unwrap();
        let left = host.engine.shows().room.ids;
        assert!(left < FEW_IDS, "{name} has {left} clone IDs left, and is given more");
    }

    fn allocate(&mut self, ticket: TicketId, clones: u32) {
        if self.random.chance(100) {
            let none = Input::NotAllocated(ticket, "the queue is closed".into());
            return self.soon(2000, Event::Cluster(none));
        }
        let job = self.jobs.entry(ticket).or_insert_with(|| format!("job-{}", ticket.0)).clone();
        let slots = self.hosts.iter().map(|host| (host.name.clone(), 1 + clones / 2)).collect();
        self.soon(2000, Event::Cluster(Input::Allocated(ticket, job, slots)));
    }

    pub(super) fn tell_host(&mut self, index: usize, input: steward::Input) {
        let Some(steward) = &mut self.hosts[index].steward else { return };
        steward.handle(self.now, input);
        while let Some(output) = self.hosts[index].steward.as_mut().and_then(Steward::poll_output) {
            if self.faults && self.random.chance(1) {
                return self.crash_host(index);
            }
            match output {
                steward::Output::Say(message) => {
                    if let Some(connection) = self.hosts[index].connection {
                        self.send(connection, false, |c| Event::ToMaster(c, message.clone()));
                    }
                }
                steward::Output::HangUp(_) => {
                    if let Some(connection) = self.hosts[index].connection.take() {
                        self.soon(50, Event::MasterSeesEnd(connection));
                    }
                    self.soon(RECONNECT_MS, Event::Connect(index));
                }
                steward::Output::Order(order) => {
                    let instance = self.hosts[index].instance;
                    let ms = if matches!(order, Order::UseIds(_)) { 1 } else { 80 };
                    self.soon(ms, Event::Obey(index, instance, order));
                }
            }
        }
    }

    fn obey(&mut self, host: usize, instance: Unique, order: &Order) {
        if self.hosts[host].instance != instance || self.hosts[host].steward.is_none() {
            return;
        }
        if let Some(outcome) = self.hosts[host].engine.obey(&mut self.random, order) {
            self.soon(40, Event::Obeyed(host, instance, outcome));
        }
        let shows = self.hosts[host].engine.shows();
        self.tell_host(host, steward::Input::Shows(shows));
    }

    /// A message on its way: in order and once on an ordinary network.
    fn send(&mut self, connection: ConnectionId, to_host: bool, event: impl Fn(ConnectionId) -> Event) {
        let cut_off = self.host_of(connection).is_none_or(|host| self.hosts[host].cut_off);
        let is_rough = self.faults && self.rough;
        if cut_off || (is_rough && self.random.chance(60)) {
            return;
        }
        let last = self.arrivals.get(&(connection, to_host)).copied().unwrap_or_default();
        let mut when = self.now + self.random.ms(30);
        if !is_rough {
            when = when.max(last);
        }
        self.arrivals.insert((connection, to_host), when);
        self.at(when, event(connection));
        if is_rough && self.random.chance(60) {
            let when = when + self.random.ms(3000);
            self.at(when, event(connection));
        }
    }

    fn fault(&mut self) {
        let host = self.random.below(self.hosts.len() as u64) as usize;
        match self.random.below(4000) {
            0..10 => self.break_connection(host),
            10..14 => {
                self.hosts[host].cut_off = true;
                self.soon(3 * LEASE.as_millis() as u64, Event::Heal(host));
            }
            14..17 => self.crash_host(host),
            17..20 => self.crash_master(),
            65..68 if self.unread.is_none() && self.master.is_some() => {
                self.unread = Some(VecDeque::new());
                self.soon(3 * LEASE.as_millis() as u64, Event::GoOn);
            }
            20..60 => {
                self.hosts[host].engine.accident(&mut self.random);
                let shows = self.hosts[host].engine.shows();
                self.tell_host(host, steward::Input::Shows(shows));
            }
            60..65 => {
                if let Some(ticket) = self.jobs.keys().next().copied() {
                    self.jobs.remove(&ticket);
                    self.soon(500, Event::Cluster(Input::JobEnded(ticket)));
                }
            }
            _ => {}
        }
    }

    fn break_connection(&mut self, host: usize) {
        if let Some(connection) = self.hosts[host].connection {
            self.soon(50, Event::HostSeesEnd(connection));
            self.soon(50, Event::MasterSeesEnd(connection));
        }
    }

    /// SFMD dies: all its connections end, and what was not on disk is forgotten.
    pub(super) fn crash_master(&mut self) {
        self.master = None;
        self.unread = None;
        (0..self.hosts.len()).for_each(|host| self.break_connection(host));
        self.events.retain(|_, event| {
            !matches!(event, Event::ToMaster(..) | Event::UserToMaster(..) | Event::MasterSeesEnd(_))
        });
        self.soon(6000, Event::StartMaster);
    }

    /// SFLD dies and its VMs with it, as the next start sees to at the latest.
    pub(super) fn crash_host(&mut self, host: usize) {
        if let Some(connection) = self.hosts[host].connection.take() {
            self.soon(50, Event::MasterSeesEnd(connection));
        }
        let HostState { room, parent, .. } = self.hosts[host].engine.shows();
        self.hosts[host].steward = None;
        self.hosts[host].engine = FakeEngine::new(room.limit, parent.is_some());
        self.soon(6000, Event::StartHost(host));
    }
}
