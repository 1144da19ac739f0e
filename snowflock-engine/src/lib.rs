//! VM fork (SnowFlock) for QEMU guests.
