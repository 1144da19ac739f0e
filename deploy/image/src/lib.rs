//! Guest images: what a parent VM boots from, and how one is made.
//!
//! An image is a directory: `vmlinuz`, `initrd`, `disk.raw` or `disk.qcow2`, and `image.json`, the
//! manifest. [`build()`] makes one from Debian packages or from a disk of the user's own; [`Image::open`]
//! reads one back and checks it before any VM is started on it.
//!
//! ```text
//! packages:  check -> base tree (cached) -> finish the tree -> disk + initrd -> manifest -> rename
//! own disk:  check -> copy or link                                           -> manifest -> rename
//!               any failure: the unfinished directory goes, an older image stays as it was
//! ```
//!
//! [`build_appliance()`] makes what boots without any disk: a kernel, and one program with its drivers.
//!
//! An image whose inputs have not changed is reused; `image.json` keeps their digest.

mod appliance;
mod base;
mod build;
mod commands;
mod disk;
mod elf;
mod error;
mod finish;
mod initrd;
mod inputs;
mod kernel;
mod manifest;
mod place;
mod spec;

pub use appliance::{Appliance, build_appliance};
pub use build::{Built, build};
pub use disk::DiskFormat;
pub use error::ImageError;
pub use manifest::{Image, MANIFEST_VERSION};
pub use spec::{Copied, OwnDisk, Packages, Placement, Source, Spec};
