//! The control loop of a tier: one owner of what was ordered and what is leaving.
//!
//!   next event (tick, view of the engine, end of a birth or of a drain)
//!     -> apply it -> decide -> act -> tell the board

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use scaler::{Action, BackendView, DECIDE_EVERY, Phase, PoolView, choose_victims};
use snowflock_engine::control::{LifeState, Ticket, TicketAnswer, View, report};
use snowflock_engine::memory::protocol::CheckpointId;
use snowflock_engine::network::identity::CloneId;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::JoinSet;

use super::metrics::{EngineMeter, ForkMeter};
use super::numbers::Numbers;
use super::queries::{self, Answered};
use super::start::{address, backend_id, insert};
use super::steer::Steer;
use super::warmth::Warmth;
use super::{Tier, TierError};
use crate::front::{Desk, Order};
use crate::pool::{Drained, State};

/// With more clones than this nobody's own memory is looked at: it takes the loop a
/// millisecond each.
const MOST_MEASURED: usize = 64;

/// What tasks of the loop report.
enum Event {
    /// `sf_create_clones` has ended; these did not come.
    Created(Vec<(CloneId, String)>),
    /// The clone answers; from the start of its fork.
    Answers(CloneId, Duration),
    /// The clone did not answer in time, or has left.
    Lost(CloneId, String),
    /// The clone has ended and left nothing behind.
    Departed(CloneId),
    /// A Prometheus was asked for a signal.
    Answered(Answered),
    /// Clones are to be made from this one from now on, if it could be taken.
    Frozen(Option<CheckpointId>),
    /// Someone asked for a size or a mode.
    Ordered(Order),
}

/// What the loop knows of a clone beyond the engine's view.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// Promised or being born.
    Ordered,
    /// In the pool, has not answered yet.
    Probing,
    /// In the pool, has answered.
    Serving {
        since: Duration,
        /// Since when it does not answer any more, if it does not.
        silent: Option<Duration>,
    },
    /// Draining or ending.
    Leaving,
}

/// The loop.
pub(super) struct Control<'a> {
    tier: &'a Tier,
    steer: Steer,
    clones: BTreeMap<CloneId, Stage>,
    checkpoint: CheckpointId,
    /// Clones that were given up for want of pages, and whether another checkpoint is being taken since.
    starved: (u64, bool),
    events: UnboundedReceiver<Event>,
    tell: UnboundedSender<Event>,
    numbers: Arc<Numbers>,
    forks: ForkMeter,
    warmth: Warmth,
    /// Ends with the loop.
    _queries: JoinSet<()>,
}

impl<'a> Control<'a> {
    pub(super) fn new(tier: &'a Tier) -> Result<Self, TierError> {
        let policy = &tier.config.scaling;
        let steer = Steer::new(policy, tier.config.vm.vcpus, &tier.handles)?;
        let (tell, events) = unbounded_channel();
        let queries = {
            let tell = tell.clone();
            queries::start(&policy.signals, move |answered| drop(tell.send(Event::Answered(answered))))
        };
        let orders = tell.clone();
        let mut desk = Desk::new(policy);
        tier.handles.board.set_orders(move |order| {
            let answer = desk.answer(order)?;
            // Without its loop the tier is on its way out.
            orders.send(Event::Ordered(order)).map_err(|_| "this tier is stopping".to_owned())?;
            Ok(answer)
        });
        let numbers = Arc::new(Numbers::default());
        let engine = EngineMeter::new(tier.engine.view(), Arc::clone(&numbers));
        tier.handles.registry.register(Box::new(engine))?;
        let forks = ForkMeter::new(&tier.handles.registry)?;
        super::report::install_numbers(&tier.engine, &tier.handles, Arc::clone(&numbers));
        let (clones, warmth) = (BTreeMap::new(), Warmth::default());
        let (checkpoint, starved) = (tier.checkpoint, (0, false));
        Ok(Self {
            tier,
            steer,
            clones,
            checkpoint,
            starved,
            events,
            tell,
            numbers,
            forks,
            warmth,
            _queries: queries,
        })
    }

    /// Runs for ever; dropping it leaves the VMs to the engine.
    pub(super) async fn run(mut self) {
        let mut view = self.tier.engine.view();
        let mut tick = tokio::time::interval(DECIDE_EVERY);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                _ = tick.tick() => {
                    self.numbers.refresh(&self.tier.engine);
                    let now = Arc::clone(&view.borrow());
                    self.warmth.tell(&now, &self.tier.handles.pool);
                    self.decide().await;
                }
                changed = view.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    let now = Arc::clone(&view.borrow_and_update());
                    self.follow(&now);
                }
                Some(event) = self.events.recv() => self.apply(event),
            }
            self.tell_board();
        }
    }

    /// What the engine's view asks for: clones with an identity enter the pool, dead ones leave it.
    fn follow(&mut self, view: &View) {
        self.steer.follow(view);
        self.forks.follow(view);
        self.renew_checkpoint(view);
        for clone in &view.clones {
            let stage = self.clones.get(&clone.id).copied();
            match (&clone.state, stage) {
                (LifeState::Joined, Some(Stage::Ordered)) => self.admit(clone.id, clone.began),
                (LifeState::Failed(why), Some(Stage::Ordered | Stage::Probing | Stage::Serving { .. })) => {
                    tracing::warn!(clone = %clone.id, why, "a clone has failed");
                    if !matches!(stage, Some(Stage::Serving { .. })) {
                        self.steer.not_born(1);
                    }
                    self.forget(clone.id);
                }
                _ => {}
            }
        }
        if let Some(parent) = &view.parent
            && !parent.state.is_alive()
            && self.tier.handles.pool.remove(&backend_id(parent.id)).is_ok()
        {
            tracing::error!("the parent has ended; clones go on from its checkpoint");
        }
        self.warmth.tell(view, &self.tier.handles.pool);
    }

    /// Clones of the checkpoint have been given up for want of its pages: the next ones are made of another.
    fn renew_checkpoint(&mut self, view: &View) {
        let (seen, taking) = self.starved;
        if view.starved_total > seen && !taking {
            self.starved = (view.starved_total, true);
            let (engine, tell) = (self.tier.engine.clone(), self.tell.clone());
            tokio::spawn(async move {
                let taken = engine.sf_checkpoint_parent().await;
                if let Err(error) = &taken {
                    tracing::error!(error = report(error), "no other checkpoint");
                }
                let _ = tell.send(Event::Frozen(taken.ok()));
            });
        }
    }

    fn admit(&mut self, id: CloneId, began: Instant) {
        let tier = self.tier;
        let Ok(address) = address(&tier.engine, id, tier.config.vm.port) else { return };
        self.clones.insert(id, Stage::Probing);
        insert(&tier.engine, &tier.handles, id, address);
        let (pool, tell, limit) =
            (tier.handles.pool.clone(), self.tell.clone(), tier.config.vm.clone_deadline);
        tokio::spawn(async move {
            let answered = tokio::time::timeout(limit, pool.wait_ready(&backend_id(id))).await;
            let event = match answered {
                Ok(Ok(answer)) => Event::Answers(id, answer.at.saturating_duration_since(began)),
                Ok(Err(unknown)) => Event::Lost(id, unknown.to_string()),
                Err(_) => Event::Lost(id, format!("no answer within vm.clone_deadline ({limit:?})")),
            };
            let _ = tell.send(event);
        });
    }

    fn apply(&mut self, event: Event) {
        match event {
            Event::Created(failed) => {
                let news = failed.iter().filter(|(id, _)| self.clones.contains_key(id)).count() as u32;
                if news > 0 {
                    self.steer.not_born(news);
                }
                for (id, why) in failed {
                    tracing::warn!(clone = %id, why, "a clone was not born");
                    self.forget(id);
                }
            }
            Event::Answers(id, after) => {
                tracing::info!(clone = %id, ?after, "a clone answers");
                self.tier.engine.ready(id, after);
                self.forks.answered(after);
                if let Some(stage) = self.clones.get_mut(&id).filter(|stage| **stage == Stage::Probing) {
                    *stage = Stage::Serving { since: self.tier.handles.board.uptime(), silent: None };
                    self.steer.born(after);
                }
            }
            Event::Lost(id, why) => {
                if self.clones.get(&id) == Some(&Stage::Probing) {
                    tracing::warn!(clone = %id, why, "a clone never answered; it is ended");
                    self.steer.not_born(1);
                    self.leave(id, Duration::ZERO);
                }
            }
            Event::Departed(id) => {
                self.clones.remove(&id);
            }
            Event::Answered(answered) => self.steer.answered(&answered),
            Event::Frozen(taken) => {
                self.checkpoint = taken.unwrap_or(self.checkpoint);
                self.starved.1 = false;
            }
            Event::Ordered(order) => self.steer.obey(order),
        }
    }

    fn forget(&mut self, id: CloneId) {
        self.clones.remove(&id);
        let _ = self.tier.handles.pool.remove(&backend_id(id));
    }

    /// Takes note of clones that have ceased to answer, and ends those that stay silent.
    fn end_silent(&mut self) {
        let (now, limit) = (self.tier.handles.board.uptime(), self.tier.config.vm.clone_deadline);
        let snapshot = self.tier.handles.pool.snapshot();
        let answers = |id: CloneId| {
            snapshot.get(&backend_id(id)).is_some_and(|backend| backend.state() == State::Ready)
        };
        let mut ended = Vec::new();
        for (id, stage) in &mut self.clones {
            let Stage::Serving { silent, .. } = stage else { continue };
            *silent = if answers(*id) { None } else { Some(silent.unwrap_or(now)) };
            if silent.is_some_and(|since| now.saturating_sub(since) >= limit) {
                ended.push(*id);
            }
        }
        for id in ended {
            tracing::warn!(clone = %id, "a clone has not answered for vm.clone_deadline ({limit:?}); it is ended");
            self.leave(id, Duration::ZERO);
        }
    }

    /// The processes of the VMs that are ready.
    fn processes(&self) -> Vec<u32> {
        let (snapshot, view) = (self.tier.handles.pool.snapshot(), self.tier.engine.view());
        let view = view.borrow();
        let ready = |id: CloneId| {
            snapshot.get(&backend_id(id)).is_some_and(|backend| backend.state() == State::Ready)
        };
        view.parent.iter().chain(&view.clones).filter(|vm| ready(vm.id)).filter_map(|vm| vm.pid).collect()
    }

    async fn decide(&mut self) {
        self.end_silent();
        let decision = self.steer.decide(&self.pool_view(), &self.processes());
        match decision.action {
            Action::Grow { by } => self.grow(by).await,
            Action::Shrink { by } => self.shrink(by),
            Action::Hold => {}
        }
    }

    async fn grow(&mut self, by: u32) {
        let answer = self.tier.engine.sf_request_ticket(by).await;
        let ticket = match answer {
            Ok(TicketAnswer::Granted(ticket)) => ticket,
            Ok(TicketAnswer::Refused(refusal)) => {
                tracing::warn!(asked = by, "no clones: {refusal}");
                return self.steer.granted(by, 0);
            }
            Err(error) => {
                tracing::error!(error = report(&error), "no ticket");
                self.steer.granted(by, 0);
                return self.steer.not_born(by);
            }
        };
        self.steer.granted(by, ticket.clones.len() as u32);
        self.clones.extend(ticket.clones.iter().map(|id| (*id, Stage::Ordered)));
        self.fork(ticket);
    }

    fn fork(&self, ticket: Ticket) {
        let (engine, tell) = (self.tier.engine.clone(), self.tell.clone());
        let checkpoint = self.checkpoint;
        tokio::spawn(async move {
            let failed = match engine.sf_create_clones(ticket.id, checkpoint).await {
                Ok(created) => created.failed,
                Err(error) => {
                    let _ = engine.sf_kill(ticket.id).await;
                    ticket.clones.iter().map(|id| (*id, report(&error))).collect()
                }
            };
            let _ = tell.send(Event::Created(failed));
        });
    }

    fn shrink(&mut self, by: u32) {
        let snapshot = self.tier.handles.pool.snapshot();
        let engine = self.tier.engine.view().borrow().clone();
        let pages = |id: CloneId| {
            let few = engine.clones.len() <= MOST_MEASURED;
            let memory = engine.clone_with(id).filter(|_| few).and_then(|vm| vm.memory.as_ref());
            memory.and_then(|memory| memory.private_pages()).unwrap_or(0)
        };
        let view = |id: CloneId, stays: bool, phase: Phase, joined: Duration| {
            let backend = snapshot.get(&backend_id(id))?;
            let ready = backend.state() == State::Ready;
            let phase = if phase == Phase::Ready && !ready { Phase::Unready } else { phase };
            let private_pages = if phase == Phase::Ready { pages(id) } else { 0 };
            let in_flight = backend.in_flight().into();
            Some(BackendView { id, phase, stays, in_flight, private_pages, joined })
        };
        let clones = self.clones.iter().filter_map(|(id, stage)| match stage {
            Stage::Ordered => None,
            Stage::Probing => view(*id, false, Phase::Starting, Duration::ZERO),
            Stage::Serving { since, .. } => view(*id, false, Phase::Ready, *since),
            Stage::Leaving => view(*id, false, Phase::Retiring, Duration::ZERO),
        });
        let parent = view(CloneId::PARENT, true, Phase::Ready, Duration::ZERO);
        let backends: Vec<_> = parent.into_iter().chain(clones).collect();
        for id in choose_victims(&backends, by, self.steer.least()) {
            self.leave(id, self.tier.config.vm.drain_deadline);
        }
    }

    /// No new requests, the last ones end, then `sf_exit`.
    fn leave(&mut self, id: CloneId, deadline: Duration) {
        self.clones.insert(id, Stage::Leaving);
        let (engine, pool, tell) =
            (self.tier.engine.clone(), self.tier.handles.pool.clone(), self.tell.clone());
        engine.retire(id);
        tokio::spawn(async move {
            let backend = backend_id(id);
            if let Ok(Drained::DeadlinePassed { in_flight }) = pool.drain(&backend, deadline).await {
                tracing::warn!(clone = %id, in_flight, "requests are cut at vm.drain_deadline");
            }
            let _ = pool.remove(&backend);
            if let Err(error) = engine.sf_exit(id).await {
                tracing::debug!(clone = %id, error = report(&error), "ended with the engine");
            }
            let _ = tell.send(Event::Departed(id));
        });
    }

    fn count(&self, wanted: impl Fn(&Stage) -> bool) -> u32 {
        self.clones.values().filter(|stage| wanted(stage)).count() as u32
    }

    fn pool_view(&self) -> PoolView {
        let snapshot = self.tier.handles.pool.snapshot();
        PoolView {
            ready: snapshot.ready.len() as u32,
            starting: self.count(|stage| matches!(stage, Stage::Ordered | Stage::Probing)),
            unready: self.count(|stage| matches!(stage, Stage::Serving { silent: Some(_), .. })),
            retiring: self.count(|stage| *stage == Stage::Leaving),
        }
    }

    fn tell_board(&self) {
        let view = self.pool_view();
        let desired = self.steer.desired().unwrap_or(view.capacity());
        self.tier.handles.board.set_scaling(desired, view.starting, view.retiring);
    }
}
