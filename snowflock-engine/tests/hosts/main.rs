//! `sfmd`, `sfld` and `sf` as processes, on VMs of plain memory: what users see, and what becomes of it
//! when a daemon ends. Needs root, for network namespaces and userfaultfd.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod across;
mod daemons;
mod ends;
mod guests;
mod kills;
mod life;
mod machines;
mod outages;
mod wire;
