//! What a fault costs a guest is measured with real memory processes. Needs
//! root, for userfaultfd. The figures are for `flurry bench`; here they only
//! must make sense.

use std::path::Path;
use std::time::Duration;

use snowflock_engine::memory::bench::{
    BenchError, Distribution, FEWEST_PAGES, Walk, fault_service, local_fault_service, write_fault_service,
};

const MEMTAP: &str = env!("CARGO_BIN_EXE_flurry-memtap");
const MEMSERVER: &str = env!("CARGO_BIN_EXE_flurry-memserver");

fn assert_sensible(found: Distribution) {
    let Distribution { samples, p50, p90, p99, max } = found;
    println!("{found:?}");
    assert_eq!(samples, FEWEST_PAGES);
    assert!(p50 <= p90 && p90 <= p99 && p99 <= max, "{found:?}");
    assert!(p50 > Duration::from_nanos(500), "no fault is that cheap: {found:?}");
}

#[test]
fn every_page_of_a_clone_is_fetched_by_a_fault_of_its_own() {
    let folder = tempfile::tempdir().unwrap();
    assert_sensible(local_fault_service(Path::new(MEMTAP), folder.path(), FEWEST_PAGES).unwrap());
    let (touches, stats) = fault_service(Path::new(MEMTAP), folder.path(), 100, Walk::Ascending).unwrap();
    assert_eq!((touches.samples, stats.fetched), (100, 100), "{stats:?}");
}

#[test]
fn every_first_write_of_a_frozen_parent_is_saved() {
    let folder = tempfile::tempdir().unwrap();
    assert_sensible(write_fault_service(Path::new(MEMSERVER), folder.path(), FEWEST_PAGES).unwrap());
}

#[test]
fn a_missing_program_or_folder_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let no_program = local_fault_service(Path::new("/nowhere"), folder.path(), FEWEST_PAGES);
    assert!(matches!(no_program, Err(BenchError::Memory(_))), "{no_program:?}");
    let no_folder = local_fault_service(Path::new(MEMTAP), Path::new("/nowhere"), FEWEST_PAGES);
    assert!(matches!(no_folder, Err(BenchError::System(_))), "{no_folder:?}");
    let no_memory_process = local_fault_service(Path::new("/bin/true"), folder.path(), FEWEST_PAGES);
    assert!(matches!(no_memory_process, Err(BenchError::Memory(_))), "{no_memory_process:?}");
}
