//! The admin listener: what Flurry tells about itself.

pub mod status;
