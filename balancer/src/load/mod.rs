//! The load: what workers count, and samples made of it.

mod counters;
pub mod histogram;
mod route;
mod sampler;

pub use counters::{
    Counter, DURATION_BOUNDS, Ending, Load, ScaledCounters, ScaledTotals, Totals, WorkerCounters,
};
pub use route::{RouteCounters, RouteLoad};
pub use sampler::{Gauges, LoadSampler, Sample};
