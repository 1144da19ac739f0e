//! The disk tests: a file with a seeded pattern, written through to the disk and read from the disk.
//!
//! Reading uses `O_DIRECT`, so that the sum is over what the (copied, forked, overlaid) disk holds and
//! not over what the page cache remembers.

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::pattern::{self, Digest};
use crate::sys::AlignedBuffer;

/// One request to the disk.
const PIECE: usize = 256 << 10;

/// Writes the pattern of `seed`, `bytes` long, and waits until it is on the disk. `bytes` must be a
/// multiple of 4096.
pub(crate) fn write(path: &Path, bytes: u64, seed: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
    file.set_len(bytes)?;
    let mut piece = vec![0; PIECE];
    let mut writer = &file;
    let mut offset = 0;
    while offset < bytes {
        let count = usize::try_from(bytes - offset).unwrap_or(PIECE).min(PIECE);
        pattern::fill(&mut piece[..count], seed, offset);
        writer.write_all(&piece[..count])?;
        offset += count as u64;
    }
    file.sync_all()
}

/// Writes another pattern over the file in its old length.
pub(crate) fn overwrite(path: &Path, seed: u64) -> io::Result<()> {
    write(path, std::fs::metadata(path)?.len(), seed)
}

/// Length in bytes and digest of what the disk holds; and whether the page cache was avoided.
pub(crate) fn checksum(path: &Path) -> io::Result<(u64, String, bool)> {
    // Not every file system knows O_DIRECT (tmpfs of older kernels): then the cache must do.
    let (file, direct) = match OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path) {
        Ok(file) => (file, true),
        Err(e) if e.raw_os_error() == Some(libc::EINVAL) => (File::open(path)?, false),
        Err(e) => return Err(e),
    };
    let (length, digest) = sum(file)?;
    Ok((length, digest, direct))
}

fn sum(mut file: File) -> io::Result<(u64, String)> {
    let (mut buffer, mut digest, mut length) = (AlignedBuffer::new(PIECE), Digest::new(), 0);
    loop {
        let count = file.read(buffer.bytes())?;
        if count == 0 {
            return Ok((length, digest.hex()));
        }
        digest.add(&buffer.bytes()[..count]);
        length += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_is_what_is_summed_and_overwriting_changes_it() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("file");
        write(&path, 1 << 20, 1).expect("written");
        let first = checksum(&path).expect("read");
        assert_eq!(first.0, 1 << 20);
        overwrite(&path, 2).expect("overwritten");
        assert_ne!(checksum(&path).expect("read").1, first.1);
        overwrite(&path, 1).expect("overwritten");
        assert_eq!(checksum(&path).expect("read"), first);
    }

    #[test]
    fn a_file_never_written_is_an_error_not_an_empty_sum() {
        assert!(checksum(Path::new("/nonexistent/file")).is_err());
        assert!(overwrite(Path::new("/nonexistent/file"), 1).is_err());
    }
}
