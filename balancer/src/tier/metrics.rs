//! The engine's metrics, read from its view and from the newest counters when
//! they are asked for.

use std::sync::Arc;
use std::time::Duration;

use prometheus::core::{Collector, Desc};
use prometheus::proto::{Bucket, Histogram, Metric, MetricFamily, MetricType};
use snowflock_engine::control::{LifeState, View};
use tokio::sync::watch;

use super::numbers::{Counted, Numbers};
use crate::admin::families::{counter, family, gauge, label};

/// Edges of the histograms of fork phases and pauses, seconds.
const BOUNDS: [f64; 12] = [0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5];

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
        let mut all = vec![forks(&view), pauses(&view), clones(&view)];
        all.extend(pages(&counted));
        all.push(gauge(
            "flurry_engine_shells",
            "Hollow shells that wait to become clones.",
            vec![(vec![], view.shells.into())],
        ));
        all
    }
}

fn forks(view: &View) -> MetricFamily {
    let phase = |name, of: fn(&snowflock_engine::control::ForkTimes) -> Option<Duration>| {
        histogram(vec![label("phase", name)], view.forks.iter().filter_map(of))
    };
    let help = "Time from sf_create_clones until the clone was seeded, running, joined, and answered.";
    let phases = vec![
        phase("seeded", |fork| Some(fork.seeded)),
        phase("running", |fork| Some(fork.running)),
        phase("joined", |fork| Some(fork.joined)),
        phase("first_response", |fork| fork.first_response),
    ];
    family("flurry_engine_fork_duration_seconds", help, MetricType::HISTOGRAM, phases)
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

fn histogram(labels: Vec<prometheus::proto::LabelPair>, spans: impl Iterator<Item = Duration>) -> Metric {
    let seconds: Vec<f64> = spans.map(|span| span.as_secs_f64()).collect();
    let buckets = BOUNDS.iter().map(|bound| {
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(*bound);
        bucket.set_cumulative_count(seconds.iter().filter(|span| *span <= bound).count() as u64);
        bucket
    });
    let mut histogram = Histogram::default();
    histogram.set_bucket(buckets.collect());
    histogram.set_sample_count(seconds.len() as u64);
    histogram.set_sample_sum(seconds.iter().sum());
    let mut metric = Metric::default();
    metric.set_label(labels);
    metric.set_histogram(histogram);
    metric
}
