//! Where requests go: the plan that workers follow.
//!
//!   request -> first route that matches -> pool | redirect | answer of our own
//!
//! A [`Plan`] never changes. A new configuration is a new plan, which requests that begin
//! later follow; those under way finish with the old one.

mod connect;
mod edit;
mod hedge;
mod matcher;
mod plan;
mod reach;
mod traffic;

pub use connect::{TargetPattern, Targets};
pub use edit::{HeaderEdits, Rewrite, Template};
pub use hedge::HedgeAfter;
pub use matcher::{HostPattern, Matcher, PathPattern, Seen};
pub use plan::{Action, FALLBACK, OwnAnswer, Plan, Route, RouteSettings};
pub(crate) use reach::may_dial;
pub(crate) use traffic::limits;
pub use traffic::{RetrySettings, Traffic, TrafficSettings};
