//! `flurry`: the front-door program.

fn main() {}
