//! Memory of forked VMs, with real memory processes and real page faults, on
//! VMs made of plain memory. Needs root, for userfaultfd.

mod crashes;
mod errors;
mod forks;
mod siblings;
mod world;
