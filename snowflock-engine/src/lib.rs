//! VM fork (SnowFlock; Lagar-Cavilla et al., EuroSys'09) for running guests.
//!
//! ARCHITECTURE.md at the top of the repository has the picture. Features cut
//! the crate for its three users: nothing for the guest agent, `shim` for the
//! library inside QEMU, `host` (default) for all that runs on a host.

#[cfg(feature = "shim")]
pub mod shim_protocol;
#[cfg(feature = "shim")]
#[allow(unsafe_code)]
pub mod sys;

#[cfg(feature = "host")]
pub mod agent;
#[cfg(feature = "host")]
pub mod control;
#[cfg(feature = "host")]
pub mod descriptor;
#[cfg(feature = "host")]
pub mod hosts;
#[cfg(feature = "host")]
pub mod hypervisor;
#[cfg(feature = "host")]
pub mod mcdist;
#[cfg(feature = "host")]
pub mod memory;
#[cfg(feature = "host")]
pub mod network;
pub mod wire;
