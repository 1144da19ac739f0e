//! The one place of this crate where `unsafe` lives: what the kernel offers
//! and std does not, each fact behind a safe signature.
//!
//! - [`uffd`]: userfaultfd, the kernel's hook into page faults
//! - [`fdpass`]: messages with file descriptors over unix sockets
//! - [`memory`]: memfds and shared mappings of them
//! - [`netns`], [`tap`]: network namespaces and tap devices

pub mod fdpass;
pub mod memory;
#[cfg(feature = "host")]
pub mod netns;
#[cfg(feature = "host")]
pub mod process;
#[cfg(feature = "host")]
pub mod tap;
pub mod uffd;
