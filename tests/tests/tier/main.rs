//! A whole tier under a changing load: it grows, shrinks, tells why, and no request fails.

#![allow(clippy::unwrap_used, reason = "a test ends by a panic")]

mod orders;
mod router;
mod scale;
mod scarcity;
