//! The requests to a memory process.

#![no_main]
#![forbid(unsafe_code)]

#[path = "../decoders/memory_request.rs"]
mod decoder;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| decoder::check(bytes));
