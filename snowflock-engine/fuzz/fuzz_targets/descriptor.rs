//! The VM descriptor.

#![no_main]
#![forbid(unsafe_code)]

#[path = "../decoders/descriptor.rs"]
mod decoder;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| decoder::check(bytes));
