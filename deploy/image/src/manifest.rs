//! `image.json`: what an image consists of, and what must be true of it before a VM boots from it.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::disk::{self, DiskFormat};
use crate::error::{ImageError, OnFile};
use crate::spec::cmdline_complaint;

/// The version of the manifest's own format.
pub const MANIFEST_VERSION: u32 = 1;
pub(crate) const FILE: &str = "image.json";
/// A manifest is about 1 KiB; a larger file is something else.
const MOST_BYTES: u64 = 64 << 10;

/// The contents of `image.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Manifest {
    pub(crate) version: u32,
    pub(crate) name: String,
    pub(crate) kernel: String,
    pub(crate) initrd: String,
    pub(crate) disk: Disk,
    pub(crate) root_device: String,
    pub(crate) cmdline: String,
    /// Digest of everything that the image was made from.
    pub(crate) inputs: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Disk {
    pub(crate) file: String,
    pub(crate) format: DiskFormat,
    /// As the guest sees it.
    pub(crate) bytes: u64,
}

/// An image that was read and found usable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Image {
    dir: PathBuf,
    manifest: Manifest,
}

impl Image {
    /// Reads the image in `dir` and checks its manifest against its files.
    ///
    /// # Errors
    /// [`ImageError::Missing`] without a manifest, [`ImageError::Invalid`] with all complaints at once,
    /// [`ImageError::File`] when the manifest cannot be read.
    pub fn open(dir: &Path) -> Result<Self, ImageError> {
        let manifest = read(dir)?;
        let complaints = manifest.complaints(dir);
        if complaints.is_empty() {
            Ok(Self { dir: dir.to_path_buf(), manifest })
        } else {
            Err(ImageError::Invalid { dir: dir.to_path_buf(), complaints })
        }
    }

    /// The image's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// The image's name, for messages.
    pub fn name(&self) -> &str {
        &self.manifest.name
    }

    /// The kernel's file.
    pub fn kernel(&self) -> PathBuf {
        self.dir.join(&self.manifest.kernel)
    }

    /// The initial RAM disk's file.
    pub fn initrd(&self) -> PathBuf {
        self.dir.join(&self.manifest.initrd)
    }

    /// The root disk's file. It is shared by all VMs of the image: write to an overlay, never to it.
    pub fn disk(&self) -> PathBuf {
        self.dir.join(&self.manifest.disk.file)
    }

    /// The root disk's format.
    pub fn disk_format(&self) -> DiskFormat {
        self.manifest.disk.format
    }

    /// The root disk's size as the guest sees it, in bytes.
    pub fn disk_bytes(&self) -> u64 {
        self.manifest.disk.bytes
    }

    /// The kernel's command line.
    pub fn cmdline(&self) -> &str {
        &self.manifest.cmdline
    }

    /// The device of the root file system in the guest.
    pub fn root_device(&self) -> &str {
        &self.manifest.root_device
    }

    /// The digest of the image's inputs: equal digests, equal images.
    pub fn inputs(&self) -> &str {
        &self.manifest.inputs
    }
}

fn invalid(dir: &Path, complaint: String) -> ImageError {
    ImageError::Invalid { dir: dir.to_path_buf(), complaints: vec![complaint] }
}

fn read(dir: &Path) -> Result<Manifest, ImageError> {
    let path = dir.join(FILE);
    let file = match fs::File::open(&path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Err(ImageError::Missing(dir.to_path_buf())),
        other => other.on("opening", &path)?,
    };
    let mut text = String::new();
    file.take(MOST_BYTES + 1).read_to_string(&mut text).on("reading", &path)?;
    if text.len() as u64 > MOST_BYTES {
        return Err(invalid(dir, format!("{FILE}: larger than {MOST_BYTES} bytes, so not a manifest")));
    }
    // The version decides how the rest is to be read, so it comes first and alone.
    let raw: serde_json::Value =
        serde_json::from_str(&text).map_err(|e| invalid(dir, format!("{FILE}: not JSON: {e}")))?;
    let version = raw.get("version").and_then(serde_json::Value::as_u64);
    if version != Some(u64::from(MANIFEST_VERSION)) {
        let got = version.map_or("none".into(), |v| v.to_string());
        return Err(invalid(
            dir,
            format!("version: must be {MANIFEST_VERSION}, got {got}; build the image again"),
        ));
    }
    serde_json::from_value(raw).map_err(|e| invalid(dir, format!("{FILE}: {e}")))
}

impl Manifest {
    /// Everything that is wrong with an image in `dir` of this manifest.
    fn complaints(&self, dir: &Path) -> Vec<String> {
        let mut complaints = Vec::new();
        let files = [("kernel", &self.kernel), ("initrd", &self.initrd), ("disk.file", &self.disk.file)];
        for (key, name) in files.into_iter().filter(|(_, name)| !is_plain_name(name)) {
            complaints.push(format!("{key}: must be a file name without a directory, got {name:?}"));
        }
        complaints.extend(cmdline_complaint(&self.cmdline).map(|why| format!("cmdline: {why}")));
        if !complaints.is_empty() {
            return complaints;
        }
        let kernel = disk::kernel_complaint(&dir.join(&self.kernel));
        complaints.extend(kernel.map(|why| format!("kernel: {}: {why}", self.kernel)));
        let initrd = disk::initrd_complaint(&dir.join(&self.initrd));
        complaints.extend(initrd.map(|why| format!("initrd: {}: {why}", self.initrd)));
        complaints.extend(self.disk.complaint(dir));
        complaints
    }
}

impl Disk {
    fn complaint(&self, dir: &Path) -> Option<String> {
        match disk::probe(&dir.join(&self.file)) {
            Err(why) => Some(format!("disk.file: {}: {why}", self.file)),
            Ok((format, _)) if format != self.format => Some(format!(
                "disk.format: the manifest says {}, the file is {}",
                self.format.name(),
                format.name()
            )),
            Ok((_, bytes)) if bytes != self.bytes => {
                Some(format!("disk.bytes: the manifest says {}, the disk has {bytes}", self.bytes))
            }
            Ok(_) => None,
        }
    }
}

fn is_plain_name(name: &str) -> bool {
    let mut parts = Path::new(name).components();
    matches!((parts.next(), parts.next()), (Some(Component::Normal(_)), None)) && !name.ends_with('/')
}

#[cfg(test)]
mod tests;
