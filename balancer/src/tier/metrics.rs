//! The engine's metrics, read from its view and from the newest counters when
//! they are asked for.

use std::sync::Arc;
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{HistogramOpts, HistogramVec, Registry};
use snowflock_engine::control::{LifeState, View};
use tokio::sync::watch;

use super::numbers::{Counted, Numbers};
use crate::admin::families::{counter, gauge};

/// Edges of the histograms of fork phases and pauses, seconds.
const BOUNDS: [f64; 12] = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5];

/// Histograms of fork phases, fed from the views as they come: a view has the last forks only.
pub(super) struct ForkMeter {
    phases: HistogramVec,
    seen: u64,
}

impl ForkMeter {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let help = "Time from sf_create_clones until the clone was seeded, running, joined, and answered.";
        let options = HistogramOpts::new("flurry_engine_fork_duration_seconds", help);
        let phases = HistogramVec::new(options.buckets(BOUNDS.to_vec()), &["phase"])?;
        for phase in ["seeded", "running", "joined", "first_response"] {
            phases.with_label_values(&[phase]);
        }
        registry.register(Box::new(phases.clone()))?;
        Ok(Self { phases, seen: 0 })
    }

    /// Takes in the forks that are new in this view.
    pub(super) fn follow(&mut self, view: &View) {
        let new = usize::try_from(view.forks_total - self.seen).unwrap_or(usize::MAX);
        for fork in view.forks.iter().rev().take(new) {
            self.observe("seeded", fork.seeded);
            self.observe("running", fork.running);
            self.observe("joined", fork.joined);
        }
        self.seen = view.forks_total;
    }

    /// A clone has answered for the first time.
    pub(super) fn answered(&self, after: Duration) {
        self.observe("first_response", after);
    }

    fn observe(&self, phase: &str, after: Duration) {
        self.phases.with_label_values(&[phase]).observe(after.as_secs_f64());
    }
}

/// Reads view and counters.
pub(super) struct EngineMeter {
    view: watch::Receiver<Arc<View>>,
    numbers: Arc<Numbers>,
    desc: Option<Desc>,
}

impl EngineMeter {
    pub(super) fn new(view: watch::Receiver<Arc<View>>, numbers: Arc<Numbers>) -> Self {
        let about = "Hollow shells that wait to become clones.".to_owned();
        let desc = Desc::new("flurry_engine_shells".to_owned(), about, vec![], Default::default()).ok();
        Self { view, numbers, desc }
    }
}

impl Collector for EngineMeter {
    fn desc(&self) -> Vec<&Desc> {
        self.desc.iter().collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let view = Arc::clone(&self.view.borrow());
        let counted = self.numbers.get();
        let mut all = vec![pauses(&view), clones(&view)];
        all.extend(pages(&counted));
        all.push(gauge(
            "flurry_engine_shells",
            "Hollow shells that wait to become clones.",
            vec![(vec![], view.shells.into())],
        ));
        all.push(counter(
            "flurry_engine_clones_starved_total",
            "Clones given up because pages that they waited for stopped to come.",
            vec![(vec![], view.starved_total as f64)],
        ));
        all
    }
}

fn pauses(view: &View) -> MetricFamily {
    let step = |name, of: fn(&snowflock_engine::control::PauseTimes) -> Duration| {
        let spans = view.checkpoints.last().map(|checkpoint| of(&checkpoint.pause).as_secs_f64());
        (vec![("step", name)], spans.unwrap_or(0.0))
    };
    let help = "Pause of the VM at the newest checkpoint, by step.";
    let steps = vec![
        step("stop", |pause| pause.stop),
        step("disk", |pause| pause.disk),
        step("describe", |pause| pause.describe),
        step("freeze", |pause| pause.freeze),
        step("resume", |pause| pause.resume),
    ];
    gauge("flurry_engine_checkpoint_pause_seconds", help, steps)
}

fn clones(view: &View) -> MetricFamily {
    const STATES: [&str; 6] = ["promised", "seeded", "running", "joined", "ready", "retiring"];
    let count = |state: &str| view.clones.iter().filter(|clone| clone.state.to_string() == state).count();
    let mut series: Vec<_> =
        STATES.iter().map(|state| (vec![("state", *state)], count(state) as f64)).collect();
    let failed = view.clones.iter().filter(|clone| matches!(clone.state, LifeState::Failed(_))).count();
    series.push((vec![("state", "failed")], failed as f64));
    gauge("flurry_engine_clones", "Clones by life state; failed ones until they are forgotten.", series)
}

fn pages(counted: &Counted) -> Vec<MetricFamily> {
    let origin = |name, value: u64| (vec![("origin", name)], value as f64);
    vec![
        counter(
            "flurry_engine_pages_total",
            "Guest pages given to clones or put into images, by origin.",
            vec![
                origin("fault", counted.sum(|pager| pager.fetched)),
                origin("prefetch", counted.sum(|pager| pager.prefetched)),
                origin("zero", counted.sum(|pager| pager.zero)),
                origin("sibling", counted.sum(|pager| pager.shared)),
                origin("saved", counted.saved),
            ],
        ),
        counter(
            "flurry_engine_faults_total",
            "Page faults of clones on absent pages.",
            vec![(vec![], counted.sum(|pager| pager.faults) as f64)],
        ),
        counter(
            "flurry_engine_memory_processes_replaced_total",
            "Memory processes replaced after their death.",
            vec![(vec![], counted.replaced as f64)],
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use snowflock_engine::control::ForkTimes;
    use snowflock_engine::network::identity::CloneId;

    #[test]
    fn every_fork_is_counted_once_though_views_keep_only_the_last() {
        let registry = Registry::new();
        let mut meter = ForkMeter::new(&registry).unwrap();
        let ms = Duration::from_millis;
        let fork = |id| ForkTimes {
            id: CloneId(id),
            seeded: ms(10),
            running: ms(11),
            joined: ms(90),
            first_response: None,
        };
        let mut view = View { forks: vec![fork(1), fork(2)], forks_total: 2, ..View::default() };
        meter.follow(&view);
        meter.follow(&view);
        view.forks = vec![fork(2), fork(3)];
        view.forks_total = 3;
        meter.follow(&view);
        meter.answered(ms(150));
        let count = |phase| meter.phases.with_label_values(&[phase]).get_sample_count();
        assert_eq!((count("seeded"), count("joined"), count("first_response")), (3, 3, 1));
    }
}
