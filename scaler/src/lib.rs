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
mod history;
pub mod models;
mod panic;
mod policy;
mod pool;
mod rate;
mod reason;
mod rolling;
mod scaler;
mod signal;
pub mod simulate;
mod victims;
mod wish;
pub mod yaml;

pub use decision::{Action, Decision};
pub use policy::{Direction, Policy, ScaleDown, ScaleUp, Targets};
pub use pool::PoolView;
pub use rate::{Rate, Select};
pub use reason::{Bound, Driver, HoldReason, Reason};
pub use scaler::Scaler;
pub use signal::{Observed, Reading, Refused, Sample, Signal};
pub use victims::{BackendView, Phase, choose_victims};
