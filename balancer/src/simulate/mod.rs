//! `flurry simulate`: a policy over a recorded load, beside the autoscalers that users know.
//!
//!   flurry.yaml, trace.csv -> prepare -> simulate (crate `scaler`) -> Outcome -> table, JSON, picture
//!
//! The decisions are those of `flurry up`: the very same code, on a model of a tier
//! instead of VMs. Nothing is started, and no image is needed.

mod bench;
mod picture;
mod table;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use scaler::simulate::{
    Capacity, Rival, SimParams, SimReport, Trace, simulate, simulate_rival, simulate_rival_at,
};
use scaler::yaml::{Complaint, Complaints};
use scaler::{DECIDE_EVERY, Origin, Policy, Signal};
use serde::{Serialize, Serializer};

use crate::config::{Config, ConfigError};
pub(crate) use bench::UTILISATION;

use crate::tier::bench::Measurement;

pub use picture::draw;
pub use table::table;

/// The largest trace that is read, bytes: a week of seconds fits twice.
pub const MAX_TRACE_BYTES: u64 = 16 * 1024 * 1024;
/// Moments that a picture is made of.
const MOMENTS: u32 = 1440;
/// Where 95 % of requests should be answered if nothing is said, in times of service.
const OBJECTIVE: u32 = 5;

/// Whom to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Contender {
    /// Kubernetes' Horizontal Pod Autoscaler on CPU.
    Hpa,
    /// Knative's autoscaler.
    Kpa,
    /// As many backends all the time as the policy had at most.
    Static,
}

/// What the user asked for.
#[derive(Debug, Clone)]
pub struct Options {
    /// The configuration with the policy.
    pub config: PathBuf,
    /// The trace.
    pub load: PathBuf,
    /// Whom to compare with.
    pub compare: Vec<Contender>,
    /// From asking for a clone to its first answer.
    pub clone_time: Duration,
    /// What each further clone of one order adds to that.
    pub clone_time_each: Duration,
    /// The same for those compared with.
    pub cold_start: Duration,
    /// Requests that one backend serves at once; `None` for the policy's target.
    pub capacity: Option<u32>,
    /// Mean time of one request.
    pub service_time: Duration,
    /// Latency that 95 % should stay under; `None` for five times the service time.
    pub objective: Option<Duration>,
    /// Requests per second in the busiest interval; `None` for the trace as it is.
    pub peak: Option<f64>,
    /// Time since 1970 at the trace's time zero; `None` leaves schedules and forecasts out.
    pub starts: Option<Duration>,
}

/// Why nothing was simulated.
#[derive(Debug, thiserror::Error)]
pub enum SimulateError {
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The configuration has no policy.
    #[error("{}: vm: is missing, and without VMs nothing is scaled (give a section `vm`)", .0.display())]
    NoPolicy(PathBuf),
    /// The trace cannot be read.
    #[error("{}: cannot be read: {why} (give the path of a CSV file)", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// The trace is wrong; every line that is.
    #[error("{}", lines(path, complaints))]
    Trace {
        /// The file.
        path: PathBuf,
        /// All that is wrong with it.
        complaints: Complaints,
    },
    /// Options that cannot be, or do not fit the trace.
    #[error("{}", options(.0))]
    Options(Complaints),
}

fn lines(path: &Path, complaints: &Complaints) -> String {
    let line = |complaint: &Complaint| format!("{}: {complaint}", path.display());
    complaints.as_slice().iter().map(line).collect::<Vec<_>>().join("\n")
}

/// The simulator's parameters have the names of our options.
fn options(complaints: &Complaints) -> String {
    const OPTIONS: [(&str, &str); 4] = [
        ("capacity.slots", "--capacity"),
        ("capacity.service_time", "--service-time"),
        ("objective", "--objective"),
        ("peak", "--peak"),
    ];
    let line = |complaint: &Complaint| {
        let option = OPTIONS.iter().find(|(key, _)| *key == complaint.key);
        let key = option.map_or(complaint.key.as_str(), |(_, option)| *option);
        format!("{key}: {} ({})", complaint.problem, complaint.remedy)
    };
    complaints.as_slice().iter().map(line).collect::<Vec<_>>().join("\n")
}

/// What came of it.
#[derive(Debug, Clone, Serialize)]
pub struct Outcome {
    /// The trace's file name.
    pub trace: String,
    /// What was taken for granted.
    pub assumed: Assumed,
    /// What of the policy has no part, for nothing simulates it.
    pub left_out: Vec<String>,
    /// The policy's report first, then those compared with, at their defaults.
    pub reports: Vec<SimReport>,
    /// Those compared with once more, with the target at which they come nearest to the
    /// policy's clone-hours.
    pub at_the_same_hours: Vec<SimReport>,
    /// Time that simulating the policy took.
    #[serde(rename = "took_seconds", serialize_with = "seconds")]
    pub took: Duration,
}

/// What was taken for granted.
#[derive(Debug, Clone, Serialize)]
pub struct Assumed {
    /// From asking for a clone to its first answer.
    #[serde(rename = "clone_time_seconds", serialize_with = "seconds")]
    pub clone_time: Duration,
    /// What each further clone of one order adds to that.
    #[serde(rename = "clone_time_each_seconds", serialize_with = "seconds")]
    pub clone_time_each: Duration,
    /// The same for those compared with.
    #[serde(rename = "cold_start_seconds", serialize_with = "seconds")]
    pub cold_start: Duration,
    /// Requests that one backend serves at once.
    pub capacity: u32,
    /// Mean time of one request.
    #[serde(rename = "service_time_seconds", serialize_with = "seconds")]
    pub service_time: Duration,
    /// Latency that 95 % should stay under.
    #[serde(rename = "objective_seconds", serialize_with = "seconds")]
    pub objective: Duration,
}

fn seconds<S: Serializer>(time: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(time.as_secs_f64())
}

/// The figures of `flurry bench scaler` over a recorded day.
///
/// # Errors
/// The trace cannot be read or simulated.
pub fn bench_of(day: &Path, utilisation: f64) -> Result<Vec<Measurement>, SimulateError> {
    bench::bench(&read_trace(day)?, utilisation).map_err(SimulateError::Options)
}

/// Simulates as asked.
///
/// # Errors
/// See [`SimulateError`]; all complaints about a file or about the options at once.
pub fn run(options: &Options) -> Result<Outcome, SimulateError> {
    let config = Config::load_elsewhere(&options.config)?;
    let vm = config.vm.ok_or_else(|| SimulateError::NoPolicy(options.config.clone()))?;
    let trace = fitted(read_trace(&options.load)?, options.peak)?;
    let (policy, left_out) = simulated(vm.scaling, options.starts.is_some());
    let params = params(options, &policy, &trace);
    let wrong = SimulateError::Options;
    let began = Instant::now();
    let ours = simulate(&policy, &trace, &params).map_err(wrong)?;
    let took = began.elapsed();
    let mut outcome = Outcome {
        trace: options.load.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned()),
        assumed: Assumed {
            clone_time: params.clone_time,
            clone_time_each: params.clone_time_each,
            cold_start: params.cold_start,
            capacity: params.capacity.slots,
            service_time: params.capacity.service_time,
            objective: params.objective,
        },
        left_out,
        reports: vec![ours],
        at_the_same_hours: Vec::new(),
        took,
    };
    for contender in &options.compare {
        compare(*contender, &policy, &trace, &params, &mut outcome).map_err(wrong)?;
    }
    Ok(outcome)
}

fn compare(
    contender: Contender,
    policy: &Policy,
    trace: &Trace,
    params: &SimParams,
    outcome: &mut Outcome,
) -> Result<(), Complaints> {
    let ours = &outcome.reports[0];
    let rival = match contender {
        Contender::Hpa => Rival::HPA,
        Contender::Kpa => Rival::KPA,
        Contender::Static => Rival::Static { backends: ours.peak },
    };
    let same = match contender {
        Contender::Hpa | Contender::Kpa => {
            simulate_rival_at(ours.clone_hours, &rival, policy, trace, params)?
        }
        Contender::Static => {
            let mean = (ours.clone_hours * 3600.0 / ours.seconds).round().max(1.0);
            simulate_rival(&Rival::Static { backends: mean as u32 }, policy, trace, params)?
        }
    };
    outcome.reports.push(simulate_rival(&rival, policy, trace, params)?);
    outcome.at_the_same_hours.push(same);
    Ok(())
}

fn read_trace(path: &Path) -> Result<Trace, SimulateError> {
    let unreadable = |why: String| SimulateError::Unreadable { path: path.to_owned(), why };
    let size = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if size > MAX_TRACE_BYTES {
        return Err(unreadable(format!("its {size} bytes are more than {MAX_TRACE_BYTES}")));
    }
    let text = std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))?;
    Trace::parse_csv(&text).map_err(|complaints| SimulateError::Trace { path: path.to_owned(), complaints })
}

/// The trace with its busiest interval at `peak`.
fn fitted(trace: Trace, peak: Option<f64>) -> Result<Trace, SimulateError> {
    let Some(peak) = peak else { return Ok(trace) };
    let complain = |problem: String| {
        let remedy = "give requests per second in the busiest interval, e.g. 300";
        SimulateError::Options(vec![Complaint::new("peak", problem, remedy)].into())
    };
    let busiest = trace.peak();
    if !(peak.is_finite() && peak > 0.0) {
        return Err(complain(format!("must be above 0, got {peak}")));
    }
    if busiest == 0.0 {
        return Err(complain("cannot be reached: the trace has no request".to_owned()));
    }
    trace.scaled(peak / busiest).map_err(|_| complain(format!("is no load, got {peak}")))
}

/// Signals that the model of a tier tells.
const SIMULATED: [Signal; 5] =
    [Signal::Concurrency, Signal::RequestsPerSecond, Signal::P95Latency, Signal::QueueWait, Signal::Cpu];

/// The policy without what the model cannot tell, and the names of that: a signal that
/// never comes would keep the tier from shrinking.
fn simulated(mut policy: Policy, dated: bool) -> (Policy, Vec<String>) {
    let mut left_out: Vec<String> = Vec::new();
    let targets = &mut policy.targets;
    for (signal, target) in
        [(Signal::P50Latency, &mut targets.p50_latency), (Signal::P99Latency, &mut targets.p99_latency)]
    {
        left_out.extend(target.take().map(|_| signal.name().to_owned()));
    }
    left_out.extend(targets.error_share.take().map(|_| Signal::ErrorShare.name().to_owned()));
    let told = |signal: &Signal| SIMULATED.contains(signal);
    let (signals, others): (Vec<_>, Vec<_>) = policy.signals.into_iter().partition(|own| match &own.origin {
        Origin::Formula(formula) => formula.inputs().iter().all(told),
        Origin::Prometheus { .. } => false,
    });
    policy.signals = signals;
    left_out.extend(others.iter().map(|own| own.name.to_string()));
    let own = &policy.signals;
    let known = |signal: &Signal| told(signal) || own.iter().any(|own| Signal::Custom(own.name) == *signal);
    let before = policy.steps.len();
    policy.steps.retain(|step| known(&step.signal));
    if policy.steps.len() < before {
        left_out.push(format!("{} of the steps", before - policy.steps.len()));
    }
    policy.activation.retain(|(signal, _)| told(signal));
    if !dated && !policy.schedule.is_empty() {
        left_out.push("schedule (give --starts)".to_owned());
    }
    if !dated && policy.predict.is_some() {
        left_out.push("predict (give --starts)".to_owned());
    }
    (policy, left_out)
}

fn params(options: &Options, policy: &Policy, trace: &Trace) -> SimParams {
    let by_target = policy.targets.concurrency.map_or(1, |target| target.ceil().max(1.0) as u32);
    let service_time = options.service_time;
    let length = trace.end().saturating_sub(trace.start());
    SimParams {
        clone_time: options.clone_time,
        clone_time_each: options.clone_time_each,
        starts: options.starts,
        cold_start: options.cold_start,
        capacity: Capacity { slots: options.capacity.unwrap_or(by_target), service_time },
        objective: options.objective.unwrap_or(service_time * OBJECTIVE),
        step: DECIDE_EVERY,
        timeline_every: Some((length / MOMENTS).max(DECIDE_EVERY)),
    }
}
