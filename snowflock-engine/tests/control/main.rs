//! Lives and ends of clones, on VMs made of plain memory: what must come of an
//! end at a bad moment. Needs root, for network namespaces and userfaultfd.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod ends;
mod hooks;
mod network;
mod stage;
mod starving;
