//! `vm.state_dir`: where sockets and the overlays of the disks of VMs are.
//!
//! A parent stands still while its disk changes to a new overlay. On a disk that step waits
//! for whatever else is being written; in memory it takes a millisecond.

use std::path::{Path, PathBuf};

use nix::sys::statfs::{TMPFS_MAGIC, statfs};
use scaler::yaml::Section;

use super::Surroundings;

/// Folders for what need not survive a restart of the machine, the usual one first.
const IN_MEMORY_AS_A_RULE: [&str; 2] = ["/run", "/dev/shm"];

pub(super) fn read(section: &mut Section<'_>, name: &str, around: &Surroundings<'_>) -> PathBuf {
    let given = section.path_buf("state_dir", "give a folder on a tmpfs, e.g. /run/flurry/shop");
    given.check(|path| absolute(path)).or(default(around).join("flurry").join(name))
}

/// The first of the usual folders that is in memory; if none is, the usual one.
fn default(around: &Surroundings<'_>) -> &'static Path {
    let found = IN_MEMORY_AS_A_RULE.iter().find(|path| (around.in_memory)(Path::new(path)));
    Path::new(found.unwrap_or(&IN_MEMORY_AS_A_RULE[0]))
}

/// Whether files below `path`, or below the nearest folder above it that exists, are kept in
/// memory: on a tmpfs.
pub(crate) fn in_memory(path: &Path) -> bool {
    let nearest = path.ancestors().find(|folder| folder.exists());
    let system = nearest.and_then(|folder| statfs(folder).ok());
    system.is_some_and(|system| system.filesystem_type() == TMPFS_MAGIC)
}

/// The folder is wiped at start, so it must be plain which one is meant.
fn absolute(path: &Path) -> Result<(), String> {
    let deep = path.components().count() >= 3;
    let plain = !path.components().any(|part| part == std::path::Component::ParentDir);
    let fine = path.is_absolute() && deep && plain;
    fine.then_some(()).ok_or_else(|| {
        format!("must be an absolute path of at least two folders without .., got `{}`", path.display())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_folder_of_shared_memory_is_in_memory_and_the_source_is_not() {
        assert!(in_memory(Path::new("/dev/shm/flurry/not-there-yet")));
        assert!(!in_memory(Path::new("/proc/self")));
        assert!(!in_memory(Path::new("")));
    }
}
