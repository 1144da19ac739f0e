//! The sub-commands of `flurry`.

pub mod replay;

/// The world was not as needed.
pub(crate) const FAILED: u8 = 1;
/// The user's input is wrong.
pub(crate) const WRONG_INPUT: u8 = 2;
