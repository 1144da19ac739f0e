//! A descriptor on disk: whole or not there at all.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use super::limits::MAX_FILE;
use super::{Descriptor, DescriptorError};

/// Tells writers of one process apart.
static WRITES: AtomicU32 = AtomicU32::new(0);

impl Descriptor {
    /// Writes the file so that any crash leaves the old one or the new one. Only its owner may
    /// read it, for it holds a key.
    ///
    /// # Errors
    /// What [`Descriptor::encode`] refuses; [`DescriptorError::File`], and nothing is left behind then.
    pub fn write(&self, path: &Path) -> Result<(), DescriptorError> {
        let bytes = self.encode().map_err(|error| error.of_file(path))?;
        replace(path, &bytes).map_err(|source| DescriptorError::File {
            path: path.into(),
            tried: "write",
            source,
        })
    }

    /// Reads a file.
    ///
    /// # Errors
    /// What [`Descriptor::decode`] refuses, with the path; [`DescriptorError::File`].
    pub fn read(path: &Path) -> Result<Self, DescriptorError> {
        let bytes = contents(path).map_err(|source| DescriptorError::File {
            path: path.into(),
            tried: "read",
            source,
        })?;
        Self::decode(&bytes).map_err(|error| error.of_file(path))
    }
}

/// At most one byte more than a descriptor may have, which is enough to refuse it.
fn contents(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for its writer.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_FILE as u64 + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let Some(name) = path.file_name() else {
        return Err(io::Error::new(ErrorKind::InvalidInput, "the path names no file"));
    };
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let new = folder.join(unfinished(name.to_owned()));
    let written = fill(&new, bytes).and_then(|()| fs::rename(&new, path));
    if written.is_err() {
        let _ = fs::remove_file(&new);
    }
    written?;
    File::open(folder)?.sync_all()
}

/// A name that no other writer has.
fn unfinished(name: OsString) -> PathBuf {
    let mut new = OsString::from(".");
    new.push(name);
    new.push(format!(".{}-{}.new", std::process::id(), WRITES.fetch_add(1, Ordering::Relaxed)));
    new.into()
}

fn fill(new: &Path, bytes: &[u8]) -> io::Result<()> {
    // Left by a process of the same ID that died here.
    match fs::remove_file(new) {
        Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(new)?;
    file.write_all(bytes)?;
    file.sync_all()
}
