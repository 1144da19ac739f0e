//! The frames and messages between a host and the agent in a guest.

#![no_main]
#![forbid(unsafe_code)]

#[path = "../decoders/wire.rs"]
mod decoder;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| decoder::check(bytes));
