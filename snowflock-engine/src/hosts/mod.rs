//! The control stack of many hosts: one master, SFMD, and a daemon on each host, SFLD.
//!
//! ```text
//!   sf, flurry --request--> SFMD --wishes--> SFLD --sf_* calls--> Engine of its host
//!              <--answer---      <--reports-      <--view--------
//! ```
//!
//! SFMD grants tickets, places clones and publishes the numbered view of all hosts; what a host has is
//! its Engine's to say. `PROTOCOL.md` beside this file describes what they say to each other.
//!
//! - [`ids`]: names of hosts, tickets, checkpoints, and leases of clone IDs
//! - [`frame`], [`message`]: the protocol without sockets
//! - [`parcel`]: checkpoints that go to other hosts, in pieces
//! - [`certificates`]: who is who
//! - [`link`], [`client`]: the protocol over TLS
//! - [`master`], [`steward`]: the brains of SFMD and SFLD, without sockets, files and clocks
//! - [`daemon`]: the programs `sfmd` and `sfld`
//! - [`cli`]: the program `sf`
//! - `simulation`: both over a simulated network with faults, for tests

pub mod certificates;
pub mod cli;
pub mod client;
pub mod daemon;
pub mod frame;
pub mod ids;
pub mod link;
pub mod master;
pub mod message;
pub mod parcel;
pub mod steward;
pub mod view;

#[cfg(test)]
mod simulation;
