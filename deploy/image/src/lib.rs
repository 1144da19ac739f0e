//! Builds guest images.
