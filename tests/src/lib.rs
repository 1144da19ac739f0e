//! What the end-to-end tests stand on: a place of their own for each, real
//! guests, the real `flurry`, real load. Not here: what is tested.
//!
//! - [`site`]: a test's name, folder and addresses, and the proof that nothing is left of it
//! - [`guest_image`], [`programs`]: what must have been built before
//! - [`engine`], [`guest`]: an engine inside the test's process, and its guests
//! - [`tier`]: a configuration, and a running `flurry` with it
//! - [`client`], [`load`]: one request, and many
//! - [`wait`]: polling with a deadline
//!
//! Helpers end a test by a panic that says what was expected: nobody could go on.

pub mod client;
pub mod engine;
pub mod guest;
pub mod guest_image;
pub mod load;
pub mod programs;
pub mod site;
pub mod tier;
pub mod wait;
