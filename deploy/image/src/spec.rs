//! The order for an image, and everything that can be said against it before any work is done.

use std::path::{Component, Path, PathBuf};

use crate::ImageError;
use crate::{disk, elf};

/// The smallest disk that a package tree with a kernel fits into, in MiB.
const LEAST_DISK_MIB: u32 = 512;
/// Beyond this a sparse disk would not fit common file systems, in MiB (16 TiB).
const MOST_DISK_MIB: u32 = 16 << 20;
/// x86 kernels take 2047 bytes (`COMMAND_LINE_SIZE` less the terminator).
pub(crate) const MOST_CMDLINE: usize = 2047;

/// An order for an image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spec {
    /// The image's directory. Its parent must exist and be on a file system with room.
    pub output: PathBuf,
    /// What to make it from.
    pub source: Source,
    /// Build even if an image of the same inputs is there (for newer packages).
    pub fresh: bool,
}

/// What an image is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// Debian packages.
    Packages(Packages),
    /// A disk, a kernel and an initial RAM disk that exist already.
    Disk(OwnDisk),
}

/// A guest made of Debian packages: systemd, the cloud kernel, our agent, and what is listed here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packages {
    /// Debian packages beside the base (`nginx-light`, ...).
    pub packages: Vec<String>,
    /// Files and directories of this machine to put into the guest.
    pub copy: Vec<Copied>,
    /// The Debian release; `None` for this machine's own, whose apt sources are then used.
    pub suite: Option<String>,
    /// The statically linked `guest-agent`; it is also the first program of the boot.
    pub agent: PathBuf,
    /// The statically linked demo application. With it, nginx is set up in front of it.
    pub demo_app: Option<PathBuf>,
    /// The size of the (sparse) root disk in MiB.
    pub disk_mib: u32,
}

/// Something to copy into the guest.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copied {
    /// A file or a directory here.
    pub from: PathBuf,
    /// Its absolute path in the guest.
    pub to: PathBuf,
}

/// A guest that exists already.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OwnDisk {
    /// The root disk, raw or qcow2 without a backing file.
    pub disk: PathBuf,
    /// The kernel: a bzImage or an uncompressed ELF file.
    pub kernel: PathBuf,
    /// Its initial RAM disk.
    pub initrd: PathBuf,
    /// The kernel command line; it must name the root device with `root=`.
    pub cmdline: String,
    /// Copy the files or link to them.
    pub placement: Placement,
}

/// How the files of the user get into the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placement {
    /// Copies (shared blocks where the file system can, holes kept).
    Copy,
    /// Hard links: no room needed, but the files must never be written to again.
    Link,
}

impl Spec {
    /// Checks the order against itself and against the files that it names.
    ///
    /// # Errors
    /// [`ImageError::BadSpec`] with all complaints at once.
    pub fn check(&self) -> Result<(), ImageError> {
        let mut complaints = Vec::new();
        if self.output.file_name().is_none() {
            complaints.push(format!("output: must name a directory, got {:?}", self.output));
        } else if !parent_of(&self.output).is_dir() {
            complaints.push(format!(
                "output: {} is no directory; create it first",
                parent_of(&self.output).display()
            ));
        }
        match &self.source {
            Source::Packages(packages) => packages.complain(&mut complaints),
            Source::Disk(disk) => disk.complain(&mut complaints),
        }
        if complaints.is_empty() { Ok(()) } else { Err(ImageError::BadSpec(complaints)) }
    }
}

/// The directory that `path` is in; `.` for a bare name.
pub(crate) fn parent_of(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

impl Packages {
    fn complain(&self, complaints: &mut Vec<String>) {
        for (at, package) in self.packages.iter().enumerate().filter(|(_, p)| !is_package_name(p)) {
            complaints.push(format!("packages[{at}]: not a Debian package name: {package:?}"));
        }
        for (at, copied) in self.copy.iter().enumerate() {
            if !copied.from.exists() {
                complaints.push(format!("copy[{at}].from: {} does not exist", copied.from.display()));
            }
            if !is_guest_path(&copied.to) {
                complaints.push(format!(
                    "copy[{at}].to: must be an absolute path without `..`, got {}",
                    copied.to.display()
                ));
            }
        }
        if let Some(suite) = self.suite.as_ref().filter(|s| !is_suite_name(s)) {
            complaints.push(format!("suite: not a Debian release name: {suite:?}"));
        }
        complaints.extend(elf::static_program_complaint("agent", &self.agent));
        complaints
            .extend(self.demo_app.as_ref().and_then(|app| elf::static_program_complaint("demo_app", app)));
        if !(LEAST_DISK_MIB..=MOST_DISK_MIB).contains(&self.disk_mib) {
            complaints
                .push(format!("disk_mib: must be {LEAST_DISK_MIB}..={MOST_DISK_MIB}, got {}", self.disk_mib));
        }
    }
}

impl OwnDisk {
    fn complain(&self, complaints: &mut Vec<String>) {
        complaints
            .extend(disk::probe(&self.disk).err().map(|why| format!("disk: {}: {why}", self.disk.display())));
        let kernel = disk::kernel_complaint(&self.kernel);
        complaints.extend(kernel.map(|why| format!("kernel: {}: {why}", self.kernel.display())));
        let initrd = disk::initrd_complaint(&self.initrd);
        complaints.extend(initrd.map(|why| format!("initrd: {}: {why}", self.initrd.display())));
        complaints.extend(cmdline_complaint(&self.cmdline).map(|why| format!("cmdline: {why}")));
    }
}

/// What is wrong with a kernel command line, if anything.
pub(crate) fn cmdline_complaint(line: &str) -> Option<String> {
    if line.len() > MOST_CMDLINE {
        Some(format!("the kernel takes at most {MOST_CMDLINE} bytes, got {}", line.len()))
    } else if line.chars().any(char::is_control) {
        Some("must be one line without control characters".into())
    } else if root_device(line).is_none() {
        Some("must name the root device: root=/dev/vda1, for example".into())
    } else {
        None
    }
}

/// The device after the last `root=`.
pub(crate) fn root_device(cmdline: &str) -> Option<&str> {
    cmdline.split_whitespace().rev().find_map(|word| word.strip_prefix("root=")).filter(|d| !d.is_empty())
}

/// Debian policy, section 5.6.1: lower case letters, digits, `+`, `-`, `.`; at least two; begins alphanumeric.
fn is_package_name(name: &str) -> bool {
    let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
    name.len() >= 2
        && name.chars().all(allowed)
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
}

fn is_suite_name(name: &str) -> bool {
    name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

fn is_guest_path(path: &Path) -> bool {
    let mut parts = path.components();
    parts.next() == Some(Component::RootDir)
        && path.file_name().is_some()
        && parts.all(|part| matches!(part, Component::Normal(_)))
}

#[cfg(test)]
mod tests;
