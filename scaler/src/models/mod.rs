//! The autoscalers that users compare with, modelled after their public documents.
//!
//! They exist for the simulator: pure, with the default constants of the originals, and
//! held to the worked examples that the originals publish. Scale to zero is left out;
//! this project's tiers keep their parent.

pub mod hpa;
pub mod kpa;
