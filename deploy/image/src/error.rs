//! Why there is no image.

use std::io;
use std::path::{Path, PathBuf};

/// Why an image could not be built or opened. Nothing unfinished is left behind by any of them.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImageError {
    /// The order for an image makes no sense; each complaint names its key and the remedy.
    #[error("the image cannot be built:\n  {}", .0.join("\n  "))]
    BadSpec(Vec<String>),
    /// The directory holds no image.
    #[error("{0} holds no image (no image.json in it); `flurry image build` makes one")]
    Missing(PathBuf),
    /// The directory holds an image that must not be booted.
    #[error("the image {dir} is not usable:\n  {}", .complaints.join("\n  "))]
    Invalid {
        /// The image's directory.
        dir: PathBuf,
        /// What is wrong, one complaint per defect.
        complaints: Vec<String>,
    },
    /// Building from packages runs their install scripts in a chroot, which takes root.
    #[error("building an image from packages needs root (this is uid {0}); run it with sudo")]
    NotRoot(u32),
    /// Programs that the build uses are not installed.
    #[error("not installed: {}; remedy: apt-get install {}", .programs.join(", "), .packages.join(" "))]
    MissingPrograms {
        /// The programs.
        programs: Vec<String>,
        /// The Debian packages that hold them.
        packages: Vec<String>,
    },
    /// The file system of the output is too full.
    #[error("not enough room at {dir}: the build needs {needed_mib} MiB, {free_mib} MiB are free")]
    NoRoom {
        /// Where the image was to go.
        dir: PathBuf,
        /// What the build needs at its peak, in MiB.
        needed_mib: u64,
        /// What is free, in MiB.
        free_mib: u64,
    },
    /// The package sources do not have these packages.
    #[error("no such package in the apt sources for {suite}: {}; try apt-cache search", .packages.join(", "))]
    PackagesNotFound {
        /// The release asked for.
        suite: String,
        /// The packages that do not exist there.
        packages: Vec<String>,
    },
    /// The packages gave a tree without something that a guest needs.
    #[error("the package tree lacks {0}")]
    Incomplete(String),
    /// A program of the build failed.
    #[error("{program} failed ({status}); its last words:\n{tail}")]
    Failed {
        /// The program.
        program: String,
        /// Its exit status.
        status: String,
        /// The end of its error output.
        tail: String,
    },
    /// A file could not be read, written, moved or removed.
    #[error("{action} {path}")]
    File {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// Names the file and the action of an input or output error.
pub(crate) trait OnFile<T> {
    fn on(self, action: &'static str, path: &Path) -> Result<T, ImageError>;
}

impl<T> OnFile<T> for io::Result<T> {
    fn on(self, action: &'static str, path: &Path) -> Result<T, ImageError> {
        self.map_err(|source| ImageError::File { action, path: path.to_path_buf(), source })
    }
}
