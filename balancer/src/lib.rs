//! The data plane and the front-door program of Flurry.

pub mod admin;
