//! Real traffic through a router, in both modes: namespaces for the world and for guests, the bridge
//! between them as the engine makes it, and a router VM where the mode has one.
// Whatever fails here fails the test.
#![allow(clippy::unwrap_used)]

mod world;

mod flows;
