//! A whole tier under a changing load: it grows, shrinks, tells why, and no request fails.

mod scale;
mod scarcity;
