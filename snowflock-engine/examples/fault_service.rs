//! Prints what a fault costs a guest on this machine, for work on the fault path.
//!
//!     cargo run --release -p snowflock-engine --example fault_service target/release

use std::path::PathBuf;

use snowflock_engine::memory::bench::{FEWEST_PAGES, Walk, fault_service, write_fault_service};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let programs = PathBuf::from(std::env::args().nth(1).ok_or("the folder of the programs is needed")?);
    let (memtap, memserver) = (programs.join("flurry-memtap"), programs.join("flurry-memserver"));
    let folder = std::env::temp_dir();
    for walk in [Walk::Random(1), Walk::Random(2), Walk::Ascending] {
        let (touches, stats) = fault_service(&memtap, &folder, FEWEST_PAGES, walk)?;
        println!("absent page, {walk:?}: {touches:?}\n    {stats:?}");
    }
    println!("frozen page: {:?}", write_fault_service(&memserver, &folder, FEWEST_PAGES)?);
    Ok(())
}
