//! The control protocol between SFMD, SFLD and their users.

#![no_main]
#![forbid(unsafe_code)]

#[path = "../decoders/control.rs"]
mod decoder;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| decoder::check(bytes));
