//! The messages between a host and the library inside QEMU.

#![no_main]
#![forbid(unsafe_code)]

#[path = "../decoders/shim_protocol.rs"]
mod decoder;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| decoder::check(bytes));
