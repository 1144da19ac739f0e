//! The status document: what `GET /v1/status` of the admin listener answers,
//! what `flurry status` prints, and what `flurry replay` samples.
//!
//! One writer (the process that runs `flurry up`), any number of readers.
//! Times are seconds as floating point, sizes are bytes or 4 KiB pages as the
//! name says. A missing value is `null`, never a zero that was not measured.

use serde::{Deserialize, Serialize};

/// The whole document.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Status {
    /// Version of the running program.
    pub version: String,
    /// Seconds since the process started.
    pub uptime_seconds: f64,
    /// The tier that is served.
    pub tier: TierStatus,
    /// The load of the last second or so.
    pub load: LoadStatus,
    /// What the scaler wants and what there is.
    pub scaling: ScalingStatus,
    /// Every backend of every pool, fixed ones, the parent and clones alike.
    pub backends: Vec<BackendStatus>,
    /// The parent and its clones; `None` for a tier of fixed backends.
    pub engine: Option<EngineStatus>,
    /// The newest decisions, oldest first, at most 64.
    pub decisions: Vec<DecisionStatus>,
}

/// The tier: its name and where it listens.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TierStatus {
    /// Name from the configuration.
    pub name: String,
    /// `starting`, `serving` or `draining`.
    pub state: String,
    /// Addresses of the listeners, `host:port`.
    pub listen: Vec<String>,
}

/// The load over the last full second, latencies over the last ten: that of the VMs, where there
/// are any, else of all pools.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct LoadStatus {
    /// Requests that ended in the last full second.
    pub requests_per_second: f64,
    /// Requests being served by backends now.
    pub in_flight: u64,
    /// Requests waiting for a backend now.
    pub queued: u64,
    /// Median latency in seconds; `None` when nothing ended.
    pub p50_seconds: Option<f64>,
    /// 95th percentile of latency in seconds.
    pub p95_seconds: Option<f64>,
    /// 99th percentile of latency in seconds.
    pub p99_seconds: Option<f64>,
    /// Requests since start, for whatever backend and none.
    pub requests_total: u64,
    /// Requests since start that the tier answered with a 5xx of its own or cut off.
    pub failed_total: u64,
}

/// What the scaler wants and what there is. Counts include the parent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScalingStatus {
    /// Backends wanted by the last decision.
    pub desired: u32,
    /// Backends that take new requests.
    pub ready: u32,
    /// Clones that are being born.
    pub starting: u32,
    /// Clones that are draining.
    pub retiring: u32,
    /// What the scaler goes by; empty for a tier that is not scaled.
    pub scaler: ScalerStatus,
}

/// What the scaler of a tier goes by now.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ScalerStatus {
    /// `active`, `recommend` or `paused`.
    pub mode: String,
    /// Fewest backends now: `min`, raised by schedules, forecasts, or by hand.
    pub min: u32,
    /// Most backends now.
    pub max: u32,
    /// Seconds until the panic ends if the load stays low; `None` without one.
    pub panic_seconds: Option<f64>,
    /// Backends wanted at this time in former seasons.
    pub forecast: Option<u32>,
    /// What every signal of the policy says.
    pub signals: Vec<SignalStatus>,
    /// One sentence for each thing that would lead to another decision.
    pub would_change: Vec<String>,
}

/// A signal of the policy.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct SignalStatus {
    /// Its name.
    pub signal: String,
    /// Its target per backend, seconds for times.
    pub target: f64,
    /// Mean over the window for growing, for the whole tier.
    pub value: Option<f64>,
    /// Mean over the stable window.
    pub stable: Option<f64>,
    /// Age of its newest value, seconds.
    pub age_seconds: Option<f64>,
}

/// One backend of the pool.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct BackendStatus {
    /// Its pool; `default` is the one at the top of the configuration, to which the VMs belong.
    pub pool: String,
    /// `parent`, `clone-7`, or the configured address of a fixed backend.
    pub id: String,
    /// `ip:port`.
    pub address: String,
    /// `probing`, `ready`, `ejected` or `draining`.
    pub state: String,
    /// Requests being served now.
    pub in_flight: u64,
    /// Requests since it joined the pool.
    pub requests_total: u64,
    /// Requests since it joined the pool that failed.
    pub failed_total: u64,
    /// Its weight among the others, from the configuration.
    pub weight: u32,
    /// The share of its working set that is here, 0 to 1: the share of its weight that counts.
    pub warm_ratio: f64,
    /// Whether it sits out for bad answers.
    pub circuit: CircuitStatus,
}

/// Whether a backend sits out because it answers worse than it may (`outliers`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CircuitStatus {
    /// `closed` (requests pass), `open` (it sits out) or `half_open` (a good probe lets it in again).
    pub state: String,
    /// `errors`, `gateway_errors` or `success_rate`; `None` while it is closed.
    pub reason: Option<String>,
    /// Seconds that it still sits out.
    pub seconds_left: Option<f64>,
    /// Ejections since it joined the pool.
    pub ejections_total: u64,
}

/// The engine: parent, clones, and medians of what forking cost so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EngineStatus {
    /// `kvm` or `tcg`.
    pub accelerator: String,
    /// Why that accelerator was taken, one sentence.
    pub accelerator_reason: String,
    /// Hollow shells waiting to become clones.
    pub shells: u32,
    /// The parent VM.
    pub parent: CloneStatus,
    /// The clones, by ID.
    pub clones: Vec<CloneStatus>,
    /// From the start of the parent's VM to its first HTTP response, milliseconds.
    pub boot_to_first_response_ms: Option<f64>,
    /// Median pause of the parent per checkpoint, milliseconds.
    pub parent_pause_ms: Option<f64>,
    /// Size of the newest VM descriptor, bytes, compressed as stored.
    pub descriptor_bytes: Option<u64>,
    /// Median from `sf_create_clones` to the first HTTP response, milliseconds.
    pub fork_to_first_response_ms: Option<f64>,
    /// The same for every clone so far, in order of birth.
    pub fork_to_first_response_all_ms: Vec<f64>,
    /// What the last forks were made of, oldest first.
    pub forks: Vec<ForkStatus>,
    /// Pages fetched on a fault or by prefetch since start, all checkpoints.
    pub pages_fetched: u64,
}

/// The birth of a clone; each phase from `sf_create_clones`, milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct ForkStatus {
    /// Clone ID.
    pub id: u32,
    /// When it began, seconds since the process started; `None` if the clone is long gone.
    pub began_at_seconds: Option<f64>,
    /// Memory mapped and served, device state loaded.
    pub seeded_ms: f64,
    /// vCPUs running.
    pub running_ms: f64,
    /// Its own addresses and names taken.
    pub joined_ms: f64,
    /// First HTTP response; `None` if there was none yet.
    pub first_response_ms: Option<f64>,
}

/// A parent (ID 0) or a clone.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct CloneStatus {
    /// Clone ID; 0 is the parent.
    pub id: u32,
    /// Address inside the private network.
    pub ip: String,
    /// Hardware address inside the private network.
    pub mac: String,
    /// Life cycle: `promised seeded running joined ready retiring gone failed`.
    pub state: String,
    /// Guest pages whose content is on this host.
    pub pages_present: u64,
    /// Guest pages in all.
    pub pages_total: u64,
    /// Pages that only this VM holds (its own writes); `None` if not known.
    pub pages_private: Option<u64>,
    /// From `sf_create_clones` to the first HTTP response, milliseconds.
    pub fork_to_first_response_ms: Option<f64>,
}

/// One decision of the scaler.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct DecisionStatus {
    /// Seconds since the process started.
    pub at_seconds: f64,
    /// `grow`, `shrink` or `hold`.
    pub action: String,
    /// Backends before.
    pub from: u32,
    /// Backends wanted.
    pub to: u32,
    /// One sentence: inputs, and the rule that bound the answer.
    pub reason: String,
}

/// The last quarter of an hour, one entry a second, in columns of the same length.
/// What `GET /v1/history` answers.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct History {
    /// Seconds since the process started.
    pub at_seconds: Vec<f64>,
    /// Requests that ended in the second before.
    pub requests_per_second: Vec<f64>,
    /// Requests being served by backends.
    pub in_flight: Vec<u64>,
    /// Requests waiting for a backend.
    pub queued: Vec<u64>,
    /// Median latency of the ten seconds before, seconds.
    pub p50_seconds: Vec<Option<f64>>,
    /// 95th percentile of the same.
    pub p95_seconds: Vec<Option<f64>>,
    /// 99th percentile of the same.
    pub p99_seconds: Vec<Option<f64>>,
    /// Requests since start that the tier failed.
    pub failed_total: Vec<u64>,
    /// Backends wanted.
    pub desired: Vec<u32>,
    /// Backends that take new requests.
    pub ready: Vec<u32>,
}
