//! Memory of forked VMs, with real memory processes and real page faults, on
//! VMs made of plain memory. Needs root, for userfaultfd.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod crashes;
mod errors;
mod forks;
mod siblings;
mod world;
