//! Addresses and streams of bytes, of both sides: what carries them does not matter to
//! whoever reads and writes.

mod address;
mod gather;
mod stream;

pub use address::Address;
pub(crate) use gather::Gathered;
pub(crate) use stream::{Raw, Stream};
