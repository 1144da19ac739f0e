//! The programs under test, as cargo has built them.

use std::path::{Path, PathBuf};

/// The folder that cargo puts programs into: tests run in `deps` below it.
///
/// # Panics
/// The test's own executable cannot be found.
#[must_use]
pub fn folder() -> PathBuf {
    let ours = std::env::current_exe().expect("the path of the test's own executable");
    let above = ours.ancestors().nth(2).map(Path::to_path_buf);
    above.expect("a test's executable lies two folders below the top")
}

/// The front-door program.
///
/// # Panics
/// It was not built.
#[must_use]
pub fn flurry() -> PathBuf {
    built("flurry")
}

fn built(name: &str) -> PathBuf {
    let path = folder().join(name);
    assert!(path.is_file(), "{} is missing; build it first: cargo build --workspace", path.display());
    path
}
