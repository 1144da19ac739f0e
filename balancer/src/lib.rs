//! The data plane and the front-door program of Flurry.

pub mod admin;
pub mod cli;
pub mod replay;
