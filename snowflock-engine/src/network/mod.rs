//! The private network of one parent and its clones: a bridge in a namespace of
//! its own, a tap for each VM, and the identity that a clone ID stands for.
//!
//!   balancer --socket made inside--> [ netns: bridge .1 -- tap2 -- parent .2 ]
//!                                                      \-- tap3 -- clone 1 .3
//!
//! A tap lets nothing out that does not carry its own MAC and IPv4 address.

mod filter;
pub mod identity;
mod namespace;
mod overlay;

pub use namespace::{BRIDGE, Dialer, Network, NetworkError, Port, namespace_name};
pub use overlay::Overlay;
