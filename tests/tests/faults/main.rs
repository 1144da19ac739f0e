//! What goes wrong: each fault has one outcome, a clear message, and leaves nothing behind.

#![allow(clippy::unwrap_used, reason = "a test ends by a panic")]

mod death;
mod memory;
mod refusals;
mod starved;
mod stop;
mod unready;
