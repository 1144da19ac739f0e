//! Hot restart: one running Flurry replaced by another without a refused connection; the old process
//! starts the new one and gives it its listening sockets.
//!
//!   old: offer -> wait ------------------------- ready: stop accepting, drain, end
//!   new:   \-> take, check, probe, listen -> say --/   failed: the old one goes on
//!
//! The sockets are the same in both processes, with the connections that wait in them: there
//! is no moment at which nobody listens, and none that waits is lost. What a process knows
//! (counts, health of backends, keys of TLS tickets) stays behind.

mod notify;
mod offer;
mod predecessor;
mod successor;

pub use notify::notify;
pub use offer::{Inherited, Offer};
pub use predecessor::{MeetError, Predecessor};
pub use successor::{HandOverError, Successor};

/// In the environment of a process that is to take over: the ID of the process that started
/// it. The two talk over its standard input.
const PREDECESSOR: &str = "FLURRY_PREDECESSOR";
