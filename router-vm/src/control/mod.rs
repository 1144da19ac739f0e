//! What host and router VM say to each other over a virtio-serial port: `PROTOCOL.md`.

pub mod frame;
mod message;

pub use message::{BadMessage, Measures, Reply, Request};

/// The port's name in the VM.
pub const PORT_NAME: &str = "org.flurry.router.0";
