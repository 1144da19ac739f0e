//! Keeps one router VM serving and a second one ready to take its place.
//!
//! ```text
//!  start -> booting --ready--> spare --chosen--> taking over --applied--> serving
//!              any of them: gone, or silent for too long -> started again
//! ```
//!
//! One thread owns both VMs; what they report and what is asked for comes through one channel.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::links::{Links, SLOTS};
use super::vm::{Report, Vm};
use super::{RouterError, Site, VmKind};
use crate::control::{Measures, Reply, Request};
use crate::plan::Plan;

/// An emulated VM on a busy host boots in a few seconds.
const BOOT_LIMIT: Duration = Duration::from_secs(60);
/// A VM that serves is asked for its counters this often, to see that it lives.
const PULSE: Duration = Duration::from_secs(5);
/// A VM that has not answered for so long is replaced.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);
/// A VM that ended within its first seconds is not started again at once.
const RESTART_PAUSE: Duration = Duration::from_secs(1);
const ASK_LIMIT: Duration = Duration::from_secs(30);

type Answer<T> = Sender<Result<T, RouterError>>;

enum Event {
    /// From the VM of this slot and birth.
    Vm(usize, u64, Report),
    Change(Box<Plan>, Answer<()>),
    Measure(Answer<Measures>),
    Stop,
}

/// What others may see of it.
#[derive(Debug, Default)]
struct Shown {
    pid: AtomicU32,
    replaced: AtomicU64,
}

/// The keeper. Dropping it ends both VMs.
#[derive(Debug)]
pub(super) struct Keeper {
    events: Sender<Event>,
    shown: Arc<Shown>,
    thread: Option<JoinHandle<()>>,
}

impl Keeper {
    /// Starts the VMs and waits until one serves.
    pub(super) fn start(site: &Site, kind: &VmKind, links: Links, plan: Plan) -> Result<Self, RouterError> {
        let (events, inbox) = channel();
        let shown = Arc::new(Shown::default());
        let owner = Owner {
            site: site.clone(),
            kind: kind.clone(),
            links,
            plan,
            events: events.clone(),
            shown: shown.clone(),
            vms: [const { None }; SLOTS],
            births: 0,
            retry_at: [None; SLOTS],
            asked: Vec::new(),
            served: false,
        };
        let thread = std::thread::Builder::new().name("router".into());
        let thread = thread.spawn(move || owner.run(&inbox)).map_err(super::system("start the keeper"))?;
        let keeper = Self { events, shown, thread: Some(thread) };
        let (send, first) = channel();
        keeper.tell(Event::Measure(send))?;
        let said = |error: RouterError| match error {
            RouterError::NotServing(why) => {
                RouterError::NotServing(format!("{why}; what it has said is in {}", site.folder.display()))
            }
            other => other,
        };
        wait(&first, BOOT_LIMIT).map_err(said)?;
        Ok(keeper)
    }

    pub(super) fn change(&self, plan: Plan) -> Result<(), RouterError> {
        let (send, answer) = channel();
        self.tell(Event::Change(Box::new(plan), send))?;
        wait(&answer, ASK_LIMIT)
    }

    pub(super) fn measure(&self) -> Result<Measures, RouterError> {
        let (send, answer) = channel();
        self.tell(Event::Measure(send))?;
        wait(&answer, ASK_LIMIT)
    }

    pub(super) fn serving(&self) -> Option<(u32, u64)> {
        let pid = self.shown.pid.load(Ordering::Acquire);
        (pid != 0).then(|| (pid, self.shown.replaced.load(Ordering::Acquire)))
    }

    fn tell(&self, event: Event) -> Result<(), RouterError> {
        self.events.send(event).map_err(|_| RouterError::NotServing("its keeper has ended".into()))
    }
}

fn wait<T>(answer: &Receiver<Result<T, RouterError>>, limit: Duration) -> Result<T, RouterError> {
    let late = |error: RecvTimeoutError| RouterError::NotServing(format!("{error} after {limit:?}"));
    answer.recv_timeout(limit).map_err(late)?
}

impl Drop for Keeper {
    fn drop(&mut self) {
        let _ = self.events.send(Event::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Booting,
    Spare,
    TakingOver,
    Serving,
}

struct Kept {
    vm: Vm,
    birth: u64,
    phase: Phase,
    born: Instant,
    heard: Instant,
}

/// What the serving VM was asked, in order: it answers in order.
enum Asked {
    Change(Box<Plan>, Option<Answer<()>>),
    Measure(Option<Answer<Measures>>),
}

struct Owner {
    site: Site,
    kind: VmKind,
    links: Links,
    plan: Plan,
    events: Sender<Event>,
    shown: Arc<Shown>,
    vms: [Option<Kept>; SLOTS],
    births: u64,
    retry_at: [Option<Instant>; SLOTS],
    asked: Vec<Asked>,
    served: bool,
}

impl Owner {
    fn run(mut self, inbox: &Receiver<Event>) {
        let mut waiting: Vec<Event> = Vec::new();
        (0..SLOTS).for_each(|slot| self.launch(slot));
        let mut pulse = Instant::now() + PULSE;
        loop {
            match inbox.recv_timeout(Duration::from_millis(200)) {
                Ok(Event::Stop) | Err(RecvTimeoutError::Disconnected) => return,
                Ok(Event::Vm(slot, birth, report)) => self.heard(slot, birth, report),
                Ok(asked) => waiting.push(asked),
                Err(RecvTimeoutError::Timeout) => {}
            }
            let now = Instant::now();
            self.end_silent(now);
            self.restart(now);
            if self.slot_in(Phase::Serving).is_some() {
                waiting.drain(..).for_each(|event| self.ask(event));
                if now >= pulse {
                    self.pass_on(Asked::Measure(None));
                    pulse = now + PULSE;
                }
            }
        }
    }

    fn launch(&mut self, slot: usize) {
        self.births += 1;
        let (events, birth, now) = (self.events.clone(), self.births, Instant::now());
        let report = move |report| drop(events.send(Event::Vm(slot, birth, report)));
        match Vm::start(&self.site, &self.kind, &self.links, slot, report) {
            Ok(vm) => {
                self.vms[slot] = Some(Kept { vm, birth, phase: Phase::Booting, born: now, heard: now });
            }
            Err(error) => {
                eprintln!("flurry: router VM {slot}: {error}");
                self.retry_at[slot] = Some(now + RESTART_PAUSE);
            }
        }
    }

    fn slot_in(&self, phase: Phase) -> Option<usize> {
        self.vms.iter().position(|vm| vm.as_ref().is_some_and(|vm| vm.phase == phase))
    }

    fn heard(&mut self, slot: usize, birth: u64, report: Report) {
        let Some(kept) = self.vms[slot].as_mut().filter(|kept| kept.birth == birth) else { return };
        kept.heard = Instant::now();
        match (report, kept.phase) {
            (Report::Gone, _) => self.gone(slot),
            (Report::Unreadable(why), _) => {
                eprintln!("flurry: router VM {slot}: {why}");
                self.gone(slot);
            }
            (Report::Reply(Reply::Ready), Phase::Booting) => {
                kept.phase = Phase::Spare;
                self.choose();
            }
            (Report::Reply(Reply::Applied), Phase::TakingOver) => {
                kept.phase = Phase::Serving;
                self.shown.pid.store(kept.vm.pid(), Ordering::Release);
                if std::mem::replace(&mut self.served, true) {
                    self.shown.replaced.fetch_add(1, Ordering::AcqRel);
                }
            }
            (Report::Reply(Reply::Refused(why)), Phase::TakingOver) => {
                eprintln!("flurry: router VM {slot} refused its plan: {why}");
                self.gone(slot);
            }
            (Report::Reply(reply), Phase::Serving) => self.answered(reply),
            (Report::Reply(_), _) => {}
        }
    }

    fn answered(&mut self, reply: Reply) {
        if self.asked.is_empty() {
            return;
        }
        match (self.asked.remove(0), reply) {
            (Asked::Change(plan, answer), Reply::Applied) => {
                self.plan = *plan;
                tell(answer, Ok(()));
            }
            (Asked::Measure(answer), Reply::Measured(measures)) => tell(answer, Ok(measures)),
            (Asked::Change(_, answer), Reply::Refused(why)) => tell(answer, Err(RouterError::Refused(why))),
            (Asked::Measure(answer), Reply::Refused(why)) => tell(answer, Err(RouterError::Refused(why))),
            (Asked::Change(_, answer), other) => tell(answer, Err(odd(&other))),
            (Asked::Measure(answer), other) => tell(answer, Err(odd(&other))),
        }
    }

    /// If nobody serves or is about to, a spare takes over.
    fn choose(&mut self) {
        if self.slot_in(Phase::Serving).or(self.slot_in(Phase::TakingOver)).is_some() {
            return;
        }
        let Some(slot) = self.slot_in(Phase::Spare) else { return };
        let request = Request::Apply(Box::new(self.plan.clone()));
        let led = self.links.lead_to(slot);
        if let Err(error) = &led {
            eprintln!("flurry: leading traffic to router VM {slot}: {error}");
        }
        let Some(kept) = self.vms[slot].as_mut() else { return };
        kept.phase = Phase::TakingOver;
        if led.is_err() || kept.vm.ask(&request).is_err() {
            self.gone(slot);
        }
    }

    fn gone(&mut self, slot: usize) {
        let Some(kept) = self.vms[slot].take() else { return };
        if kept.phase == Phase::Serving {
            eprintln!("flurry: router VM {slot} ended; another takes over");
            self.shown.pid.store(0, Ordering::Release);
            for asked in self.asked.drain(..) {
                let lost = || RouterError::NotServing("the VM ended before it answered".into());
                match asked {
                    Asked::Change(_, answer) => tell(answer, Err(lost())),
                    Asked::Measure(answer) => tell(answer, Err(lost())),
                }
            }
        }
        let early = kept.born.elapsed() < RESTART_PAUSE;
        self.retry_at[slot] = Some(Instant::now() + if early { RESTART_PAUSE } else { Duration::ZERO });
        drop(kept);
        self.choose();
    }

    fn end_silent(&mut self, now: Instant) {
        for slot in 0..SLOTS {
            let Some(kept) = &self.vms[slot] else { continue };
            let limit = match kept.phase {
                Phase::Booting => BOOT_LIMIT,
                Phase::Spare => continue,
                Phase::TakingOver | Phase::Serving => SILENCE_LIMIT,
            };
            if now.duration_since(kept.heard) > limit {
                eprintln!("flurry: router VM {slot} said nothing for {limit:?}");
                self.gone(slot);
            }
        }
    }

    fn restart(&mut self, now: Instant) {
        for slot in 0..SLOTS {
            if self.retry_at[slot].is_some_and(|at| at <= now) {
                self.retry_at[slot] = None;
                self.launch(slot);
            }
        }
    }

    fn ask(&mut self, event: Event) {
        match event {
            Event::Change(plan, answer) => self.pass_on(Asked::Change(plan, Some(answer))),
            Event::Measure(answer) => self.pass_on(Asked::Measure(Some(answer))),
            Event::Vm(..) | Event::Stop => {}
        }
    }

    fn pass_on(&mut self, asked: Asked) {
        let request = match &asked {
            Asked::Change(plan, _) => Request::Apply(plan.clone()),
            Asked::Measure(_) => Request::Measure,
        };
        let Some(slot) = self.slot_in(Phase::Serving) else { return };
        self.asked.push(asked);
        let sent = self.vms[slot].as_mut().map(|kept| kept.vm.ask(&request));
        if !matches!(sent, Some(Ok(()))) {
            self.gone(slot);
        }
    }
}

fn odd(reply: &Reply) -> RouterError {
    RouterError::Refused(format!("it answered something else: {reply:?}"))
}

fn tell<T>(answer: Option<Answer<T>>, result: Result<T, RouterError>) {
    if let Some(answer) = answer {
        // Whoever asked may have stopped waiting.
        let _ = answer.send(result);
    }
}
