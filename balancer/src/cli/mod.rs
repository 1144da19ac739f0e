//! The sub-commands of `flurry`.

pub mod replay;
