//! The way out of one parent's network: firewall, throttle, NAT, port and DNS forwards.
//!
//! ```text
//! ROUTER.md -> config -> rules -+-> plan --control--> the router VM: inside -> netlink -> kernel
//!                               +-> host::distributed -> netlink -> kernel, in the bridge's namespace
//! ```
//!
//! Two ways of having the same rules: in a VM of their own, or on the host.

pub mod address;
pub mod config;
pub mod control;
pub mod host;
pub mod inside;
pub mod netlink;
pub mod plan;
pub mod recipe;
pub mod rules;
mod sys;
