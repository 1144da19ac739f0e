//! Loaded into QEMU with LD_PRELOAD: gives memtap and memserver a handle on guest memory.
