//! The demo application that runs behind nginx in the demo guest.

fn main() {}
