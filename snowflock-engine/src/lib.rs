//! VM fork (SnowFlock) for QEMU guests.

pub mod wire;
