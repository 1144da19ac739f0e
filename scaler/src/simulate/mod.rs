//! Runs the very same decision code over a recorded load, and others beside it.
//!
//!   Trace -> Tier (births, queue) -> Sample -> decider -> Tier ...
//!                        \-> Meter -> SimReport
//!
//! A tier is modelled as one queue before all slots of all ready backends: a backlog
//! grows when the load exceeds them, and below that requests wait for each other as in
//! an M/M/c queue. Draining costs nothing and nothing fails. Time goes in equal steps.

mod deciders;
mod queue;
mod report;
mod tier;
mod trace;

use std::time::Duration;

pub use queue::Capacity;
pub use report::{Moment, Reversals, SimReport};
pub use trace::{LoadPoint, Trace};

use crate::models::{hpa, kpa};
use crate::policy::Policy;
use crate::scaler::Scaler;
use crate::yaml::{Complaint, Complaints, show_duration};
use deciders::{Dated, Decider, Fixed, HpaDecider, KpaDecider};
use report::Meter;
use tier::Tier;

/// What is simulated, beside the policy and the load.
#[derive(Debug, Clone, PartialEq)]
pub struct SimParams {
    /// From asking for a clone to its first answer, measured.
    pub clone_time: Duration,
    /// What each further clone of one order adds to that, measured: they share the host.
    pub clone_time_each: Duration,
    /// The same for a pod of those it is compared with.
    pub cold_start: Duration,
    /// What one backend can do, measured.
    pub capacity: Capacity,
    /// Latency that 95 % of requests must stay under, the service time included.
    pub objective: Duration,
    /// Length of a step; decisions are made once a step.
    pub step: Duration,
    /// Time between two moments of the timeline; `None` keeps none.
    pub timeline_every: Option<Duration>,
    /// Time since 1970 at the trace's time zero, for schedules and forecasts; without it
    /// they have no part.
    pub starts: Option<Duration>,
}

/// Whom to compare with.
#[derive(Debug, Clone, PartialEq)]
pub enum Rival {
    /// The Kubernetes autoscaler on CPU utilisation, with this target (its default is 0.8).
    Hpa {
        /// Utilisation to aim at; 1 is all slots busy.
        utilisation: f64,
    },
    /// Knative's autoscaler, with this target utilisation (its default is 0.7).
    Kpa {
        /// Utilisation to aim at; 1 is all slots busy.
        utilisation: f64,
    },
    /// So many backends all the time.
    Static {
        /// How many.
        backends: u32,
    },
}

impl Rival {
    /// The Kubernetes autoscaler with its defaults.
    pub const HPA: Self = Self::Hpa { utilisation: 0.8 };
    /// Knative's autoscaler with its defaults.
    pub const KPA: Self = Self::Kpa { utilisation: kpa::Config::TARGET_UTILISATION };

    fn name(&self) -> &'static str {
        match self {
            Self::Hpa { .. } => "hpa",
            Self::Kpa { .. } => "kpa",
            Self::Static { .. } => "static",
        }
    }

    fn with_utilisation(&self, utilisation: f64) -> Self {
        match self {
            Self::Hpa { .. } => Self::Hpa { utilisation },
            Self::Kpa { .. } => Self::Kpa { utilisation },
            Self::Static { .. } => self.clone(),
        }
    }

    fn complaint(&self) -> Option<Complaint> {
        match self {
            Self::Hpa { utilisation } | Self::Kpa { utilisation } if !(0.01..=1.0).contains(utilisation) => {
                let problem = format!("must be from 1% to 100%, got {utilisation}");
                Some(Complaint::new("rival.utilisation", problem, "give a share, e.g. 70%"))
            }
            Self::Hpa { .. } | Self::Kpa { .. } | Self::Static { .. } => None,
        }
    }
}

impl SimParams {
    /// Shortest step; also bounds the time a simulation takes.
    pub const SHORTEST_STEP: Duration = Duration::from_millis(10);

    /// Everything that is wrong with these parameters.
    pub fn complaints(&self) -> Vec<Complaint> {
        let mut complaints = Vec::new();
        let mut unless = |fine: bool, key: &str, problem: String, remedy: &str| {
            if !fine {
                complaints.push(Complaint::new(key, problem, remedy));
            }
        };
        let Capacity { slots, service_time } = self.capacity;
        unless(
            (1..=10_000).contains(&slots),
            "capacity.slots",
            format!("must be from 1 to 10000, got {slots}"),
            "give the requests one backend serves at once, e.g. 4",
        );
        unless(
            service_time >= Duration::from_micros(1),
            "capacity.service_time",
            format!("must be at least 1us, got {}", show_duration(service_time)),
            "give the mean time of one request, e.g. 20ms",
        );
        unless(
            self.objective > service_time,
            "objective",
            format!("must be above the service time, got {}", show_duration(self.objective)),
            "give the latency that 95 % of requests should stay under, e.g. 100ms",
        );
        unless(
            self.step >= Self::SHORTEST_STEP,
            "step",
            format!("must be at least 10ms, got {}", show_duration(self.step)),
            "give the time between decisions, e.g. 250ms",
        );
        complaints
    }

    /// What is wrong with these parameters for this trace: a simulation that would not end.
    fn complaints_for(&self, trace: &Trace) -> Vec<Complaint> {
        const MOST_STEPS: u128 = 200_000_000;
        const MOST_SLOTS: f64 = 1e6;
        let mut complaints = self.complaints();
        let length = trace.end().saturating_sub(trace.start());
        let steps = length.as_nanos() / self.step.max(Self::SHORTEST_STEP).as_nanos();
        if steps > MOST_STEPS {
            let problem = format!("is too long: {steps} steps of {}", show_duration(self.step));
            complaints.push(Complaint::new("trace", problem, "give a shorter trace, a year at most"));
        }
        let busy = trace.peak() * self.capacity.service_time.as_secs_f64();
        if busy > MOST_SLOTS {
            let problem = format!("keeps {busy:.0} requests in service at once, more than can be simulated");
            complaints.push(Complaint::new("trace", problem, "give a lower load or a shorter service time"));
        }
        complaints
    }

    /// Seconds that a request may wait.
    fn wait_limit(&self) -> f64 {
        (self.objective - self.capacity.service_time).as_secs_f64()
    }

    /// Backends that meet the objective at the start of a trace, within the policy.
    fn first_size(&self, policy: &Policy, trace: &Trace) -> u32 {
        let load = trace.points()[0].requests_per_second;
        self.capacity.backends_for(load, self.wait_limit()).clamp(policy.min, policy.max)
    }
}

/// Runs a policy over a trace. It starts with as many backends as the first load needs.
///
/// # Errors
/// All complaints about the policy and the parameters.
pub fn simulate(policy: &Policy, trace: &Trace, params: &SimParams) -> Result<SimReport, Complaints> {
    let mut complaints = policy.complaints();
    complaints.extend(params.complaints_for(trace));
    if !complaints.is_empty() {
        return Err(complaints.into());
    }
    let mut scaler = Scaler::new(policy.clone())?;
    let birth = (params.clone_time, params.clone_time_each);
    let tier = Tier::new(params.capacity, birth, params.first_size(policy, trace));
    let mut decider = Dated { scaler: &mut scaler, starts: params.starts };
    Ok(run("flurry", &mut decider, tier, trace, params))
}

/// Runs a rival over the same trace, within the same `min` and `max`.
///
/// # Errors
/// All complaints about the policy, the parameters and the rival.
pub fn simulate_rival(
    rival: &Rival,
    policy: &Policy,
    trace: &Trace,
    params: &SimParams,
) -> Result<SimReport, Complaints> {
    let mut complaints = policy.complaints();
    complaints.extend(params.complaints_for(trace));
    complaints.extend(rival.complaint());
    if !complaints.is_empty() {
        return Err(complaints.into());
    }
    let start = trace.start();
    let first = params.first_size(policy, trace);
    let bounds = (policy.min, policy.max);
    let slots = f64::from(params.capacity.slots);
    let mut size = first;
    let mut decider: Box<dyn Decider> = match rival {
        Rival::Hpa { utilisation } => {
            Box::new(HpaDecider::new(hpa::Config::with_target(slots * utilisation), bounds, start))
        }
        Rival::Kpa { utilisation } => {
            let config = kpa::Config { target: slots * utilisation, ..kpa::Config::for_concurrency(slots) };
            Box::new(KpaDecider::new(config, first, bounds, start))
        }
        Rival::Static { backends } => {
            size = *backends;
            Box::new(Fixed(*backends))
        }
    };
    let tier = Tier::new(params.capacity, (params.cold_start, Duration::ZERO), size);
    Ok(run(rival.name(), decider.as_mut(), tier, trace, params))
}

/// Runs a rival with the target utilisation at which it comes nearest to `clone_hours`, so
/// that the two differ in what they got for the same cost. A static rival has none to vary.
///
/// # Errors
/// All complaints about the policy, the parameters and the rival.
pub fn simulate_rival_at(
    clone_hours: f64,
    rival: &Rival,
    policy: &Policy,
    trace: &Trace,
    params: &SimParams,
) -> Result<SimReport, Complaints> {
    // Hours fall as utilisation rises. 2^-10 of it changes less than a backend does.
    const HALVINGS: u32 = 10;
    let (mut low, mut high) = (0.1, 1.0);
    let miss = |report: &SimReport| (report.clone_hours - clone_hours).abs();
    let mut nearest = simulate_rival(rival, policy, trace, params)?;
    for _ in 0..HALVINGS {
        let middle = (low + high) / 2.0;
        let report = simulate_rival(&rival.with_utilisation(middle), policy, trace, params)?;
        *(if report.clone_hours > clone_hours { &mut low } else { &mut high }) = middle;
        if miss(&report) < miss(&nearest) {
            nearest = report;
        }
    }
    Ok(nearest)
}

fn run(
    name: &str,
    decider: &mut dyn Decider,
    mut tier: Tier,
    trace: &Trace,
    params: &SimParams,
) -> SimReport {
    let mut meter = Meter::new(name, params.timeline_every);
    let limit = params.wait_limit();
    let service = params.capacity.service_time.as_secs_f64();
    let mut needed = (f64::NAN, 1);
    for (at, load) in trace.steps(params.step) {
        if needed.0 != load {
            needed = (load, params.capacity.backends_for(load, limit));
        }
        let passed = tier.pass(load, params.step, at);
        let pool = tier.pool();
        let moment = Moment {
            at,
            requests_per_second: load,
            ready: pool.ready,
            starting: pool.starting,
            needed: needed.1,
            latency_seconds: passed.wait + service,
        };
        meter.passed(params.step, moment, passed.wait > limit);
        if let Some(decision) = decider.step(&mut tier, &passed.sample, at) {
            meter.decided(decision);
        }
        meter.changed(pool, tier.pool(), at);
    }
    meter.finish()
}

#[cfg(test)]
mod tests;
