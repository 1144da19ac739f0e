//! Prints what a fault costs a guest on this machine, for work on the fault path.
//!
//!     cargo run --release -p snowflock-engine --example fault_service target/release/flurry-memtap

use std::path::Path;

use snowflock_engine::memory::bench::{FEWEST_PAGES, Walk, fault_service};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let memtap = std::env::args().nth(1).ok_or("the path of flurry-memtap is needed")?;
    for walk in [Walk::Random(1), Walk::Random(2), Walk::Ascending] {
        let (touches, stats) = fault_service(Path::new(&memtap), &std::env::temp_dir(), FEWEST_PAGES, walk)?;
        println!("{walk:?}: {touches:?}\n    {stats:?}");
    }
    Ok(())
}
