//! VM fork with real guests: what a clone is made of, who it is, how many
//! there may be, and what its network lets it do.

#![allow(clippy::unwrap_used, reason = "a test ends by a panic")]

mod bindings;
mod content;
mod layers;
mod litter;
mod network;
mod tickets;
mod unique;
