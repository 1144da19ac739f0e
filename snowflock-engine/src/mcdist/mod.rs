//! mcdist: one sender gives the frozen pages of a checkpoint to many hosts at
//! once, over UDP multicast (SnowFlock, TOCS 2011, section 4.4). PROTOCOL.md
//! beside this file has the bytes, and the reasons.
//!
//! - [`code`]: one datagram that repairs another loss at every receiver
//! - [`geometry`]: which pages there are, and how they are cut
//! - [`message`]: what is said
//! - [`seal`]: what keeps others out
//! - [`sender`], [`receiver`]: the two ends, without sockets and clocks
//! - [`simulate`]: both over a simulated network
//! - [`source`]: where pages come from and go
//! - [`distributor`], [`fetcher`]: the two ends as threads with sockets

pub mod code;
pub mod distributor;
pub mod fetcher;
pub mod geometry;
pub mod message;
pub mod receiver;
pub mod seal;
pub mod sender;
pub mod simulate;
mod socket;
pub mod source;
