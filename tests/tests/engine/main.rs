//! VM fork with real guests: what a clone is made of, who it is, how many
//! there may be, and what its network lets it do.

mod content;
mod litter;
mod network;
mod tickets;
