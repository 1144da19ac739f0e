//! What a host is told of another host's checkpoint.

#![no_main]
#![forbid(unsafe_code)]

#[path = "../decoders/parcel.rs"]
mod decoder;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| decoder::check(bytes));
