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
//! - [`certificates`]: who is who
//! - [`link`], [`client`]: the protocol over TLS

pub mod certificates;
pub mod client;
pub mod frame;
pub mod ids;
pub mod link;
pub mod message;
pub mod view;
