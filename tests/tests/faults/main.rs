//! What goes wrong: each fault has one outcome, a clear message, and leaves nothing behind.

mod death;
mod memory;
mod refusals;
mod stop;
mod unready;
