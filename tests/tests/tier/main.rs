//! A whole tier under a changing load: it grows, shrinks, tells why, and no request fails.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests")]

mod scale;
mod scarcity;
