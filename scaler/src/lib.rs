//! How many clones a tier wants, and why.

pub mod yaml;
