//! Real traffic through a router, in both modes: namespaces for the world and for guests, the bridge
//! between them as the engine makes it, and a router VM where the mode has one.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod world;

mod flows;
mod load;
mod refusals;
