//! Datagrams of the page network.

#![no_main]
#![forbid(unsafe_code)]

#[path = "../decoders/mcdist.rs"]
mod decoder;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| decoder::check(bytes));
