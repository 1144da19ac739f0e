//! How many backends a tier wants, and why. Pure: no clock, no socket, no randomness;
//! `now` is an argument, a duration since the start of whoever calls.
//!
//!   Sample -> observe -> History --- windows ---> Wish --- limits ---> Decision
//!                                                  ^                   (and why)
//!                             PoolView, Policy ----+
//!
//! A *backend* here is the parent or a clone; every count includes the parent.
//! [`Scaler`] is the entry: feed it samples, ask it for decisions.
//! The policy's YAML is described in `POLICY.md` beside this crate.

mod clock;
mod decision;
mod explain;
mod forecast;
mod formula;
mod goal;
mod history;
pub mod journal;
pub mod models;
mod name;
mod panic;
mod policy;
mod pool;
mod rate;
mod reason;
mod rolling;
mod sample;
mod scaler;
mod schedule;
mod signal;
pub mod simulate;
mod step;
mod victims;
mod wish;
pub mod yaml;

use std::time::Duration;

/// From one decision to the next, wherever this scaler runs.
pub const DECIDE_EVERY: Duration = Duration::from_millis(250);

pub use decision::{Action, Decision};
pub use explain::Explanation;
pub use forecast::{Predict, Record};
pub use formula::Formula;
pub use name::Name;
pub use policy::{
    CustomSignal, Direction, Fallback, GivenTimes, Mode, Origin, Policy, ScaleDown, ScaleUp, Targets,
    WhenMissing,
};
pub use pool::PoolView;
pub use rate::{Rate, Select};
pub use reason::{Bound, Driver, HoldReason, Reason, Way};
pub use sample::{LATENCY_WINDOW, Refused, Sample};
pub use scaler::Scaler;
pub use schedule::Schedule;
pub use signal::{Measure, Reading, Signal};
pub use step::{Change, Step, Threshold};
pub use victims::{BackendView, Phase, choose_victims};
