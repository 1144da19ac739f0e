//! SFMD's record on disk: a file that only grows while SFMD runs.
//!
//! ```text
//! file    "SFMDREC1"  entry  entry ...
//! entry   length (u32 BE)  CRC-32 of the payload (u32 BE)  payload: JSON
//! ```
//!
//! The first entry is all that is remembered, each further one a change of it. At each start what was
//! replayed is written as the first entry of a new file, which then replaces the old one. An entry that
//! is cut off at the end of the file was never acted upon and is dropped; any other damage is an error.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::durable::{Change, Durable};
use crate::hosts::ids::Unique;

const MAGIC: &[u8; 8] = b"SFMDREC1";
/// No entry is longer: all that is remembered, with 4,096 answers of the largest size.
const LONGEST_ENTRY: usize = 256 << 20;
const HEADER: usize = 8;

/// Why the record cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// A system call failed.
    #[error("cannot {what} {}", path.display())]
    System {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// Another SFMD has it.
    #[error("{} is in use by another running sfmd; stop it, or choose another folder", .0.display())]
    InUse(PathBuf),
    /// It is damaged.
    #[error(
        "{}: damaged at byte {offset}: {why}; restore it from a backup, or move it away: \
         hosts then have to be restarted",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where.
        offset: usize,
        /// How.
        why: String,
    },
}

/// The record, open for appending. One SFMD has it at a time.
#[derive(Debug)]
pub struct RecordFile {
    path: PathBuf,
    file: File,
    _lock: Flock<File>,
}

impl RecordFile {
    /// Opens the record in this folder, or begins one, and replays it.
    ///
    /// # Errors
    /// See [`RecordError`]. A damaged record is left as it is.
    pub fn open(folder: &Path) -> Result<(Self, Durable), RecordError> {
        let path = folder.join("record");
        let system = |what, path: &Path| {
            let path = path.to_owned();
            move |source| RecordError::System { what, path, source }
        };
        fs::create_dir_all(folder).map_err(system("create", folder))?;
        let lock_path = folder.join("lock");
        let lock = File::create(&lock_path).map_err(system("create", &lock_path))?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock)
            .map_err(|_| RecordError::InUse(folder.to_owned()))?;
        let durable = match File::open(&path) {
            Ok(mut file) => {
                let mut bytes = Vec::new();
                file.read_to_end(&mut bytes).map_err(system("read", &path))?;
                replay(&path, &bytes)?
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                Durable::new(Unique::fresh().map_err(system("name", &path))?)
            }
            Err(error) => return Err(system("open", &path)(error)),
        };
        let file = write_anew(folder, &path, &durable).map_err(system("write", &path))?;
        Ok((Self { path, file, _lock: lock }, durable))
    }

    /// Adds changes; they are on disk when this returns.
    ///
    /// # Errors
    /// The file cannot be written. Nothing that follows from the changes may be said then.
    pub fn append<'a>(&mut self, changes: impl IntoIterator<Item = &'a Change>) -> Result<(), RecordError> {
        let system = |source| RecordError::System { what: "write", path: self.path.clone(), source };
        let mut bytes = Vec::new();
        for change in changes {
            bytes.extend(entry(change).map_err(system)?);
        }
        self.file.write_all(&bytes).and_then(|()| self.file.sync_data()).map_err(system)
    }
}

fn entry<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let payload = serde_json::to_vec(value)?;
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.extend(length.to_be_bytes());
    bytes.extend(crc32fast::hash(&payload).to_be_bytes());
    bytes.extend(payload);
    Ok(bytes)
}

/// Writes a whole new file, and puts it into the place of the old one.
fn write_anew(folder: &Path, path: &Path, durable: &Durable) -> io::Result<File> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&new)?;
    file.write_all(MAGIC)?;
    file.write_all(&entry(durable)?)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(folder)?.sync_all()?;
    Ok(file)
}

/// What the bytes of a record say.
fn replay(path: &Path, bytes: &[u8]) -> Result<Durable, RecordError> {
    let damaged = |offset, why: String| RecordError::Damaged { path: path.to_owned(), offset, why };
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
        return Err(damaged(0, "it does not begin with SFMDREC1".into()));
    };
    let mut durable = None;
    while !rest.is_empty() {
        let offset = bytes.len() - rest.len();
        let Some((payload, behind)) = take_entry(rest).map_err(|why| damaged(offset, why))? else {
            tracing::warn!(path = %path.display(), offset, "the last entry was cut off, and is dropped");
            break;
        };
        match &mut durable {
            None => durable = Some(read::<Durable>(payload).map_err(|why| damaged(offset, why))?),
            Some(durable) => durable.apply(read::<Change>(payload).map_err(|why| damaged(offset, why))?),
        }
        rest = behind;
    }
    durable.ok_or_else(|| damaged(MAGIC.len(), "it holds nothing".into()))
}

fn read<T: DeserializeOwned>(payload: &[u8]) -> Result<T, String> {
    serde_json::from_slice(payload).map_err(|error| format!("an entry is not understood: {error}"))
}

/// An entry's payload, and what is behind the entry.
type Entry<'a> = (&'a [u8], &'a [u8]);

/// The first entry; `None` if it is cut off by the end.
fn take_entry(bytes: &[u8]) -> Result<Option<Entry<'_>>, String> {
    let Some((header, behind)) = bytes.split_first_chunk::<HEADER>() else { return Ok(None) };
    let [a, b, c, d, sum @ ..] = *header;
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > LONGEST_ENTRY {
        return Err(format!("an entry of {length} bytes"));
    }
    let Some((payload, rest)) = behind.split_at_checked(length) else { return Ok(None) };
    match crc32fast::hash(payload) == u32::from_be_bytes(sum) {
        true => Ok(Some((payload, rest))),
        // The file's length may have reached the disk before the bytes did.
        false if rest.is_empty() => Ok(None),
        false => Err("the checksum of an entry is wrong".into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::hosts::ids::TicketId;
    use crate::hosts::master::durable::RequestKey;

    fn opened(number: u64) -> Change {
        let key = RequestKey { by: "ann".parse().unwrap(), id: Unique::of(number) };
        Change::Opened { ticket: TicketId(number), key, wanted: 3 }
    }

    /// A folder whose record has three changes, and what they make.
    fn written() -> (tempfile::TempDir, Durable) {
        let folder = tempfile::tempdir().unwrap();
        let (mut record, mut durable) = RecordFile::open(folder.path()).unwrap();
        for number in 1..=3 {
            record.append([&opened(number)]).unwrap();
            durable.apply(opened(number));
        }
        (folder, durable)
    }

    #[test]
    fn what_was_written_is_there_again_after_any_number_of_starts() {
        let (folder, durable) = written();
        for _ in 0..3 {
            let (record, again) = RecordFile::open(folder.path()).unwrap();
            assert_eq!(again, durable);
            drop(record);
        }
    }

    #[test]
    fn an_entry_that_is_cut_off_anywhere_is_dropped_and_no_other() {
        let (folder, durable) = written();
        let path = folder.path().join("record");
        let whole = fs::read(&path).unwrap();
        let last = entry(&opened(3)).unwrap().len();
        let before = replay(&path, &whole[..whole.len() - last]).unwrap();
        assert_ne!(before, durable);
        for cut in 1..=last {
            assert_eq!(replay(&path, &whole[..whole.len() - cut]).unwrap(), before, "cut by {cut}");
        }
        let mut unwritten = whole.clone();
        unwritten[whole.len() - 3..].fill(0);
        assert_eq!(replay(&path, &unwritten).unwrap(), before);
    }

    #[test]
    fn damage_in_the_middle_is_an_error_that_says_where_and_leaves_the_file() {
        let (folder, _) = written();
        let path = folder.path().join("record");
        let mut bytes = fs::read(&path).unwrap();
        bytes[MAGIC.len() + HEADER + 5] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let error = RecordFile::open(folder.path()).unwrap_err();
        assert!(matches!(error, RecordError::Damaged { offset: 8, .. }), "{error}");
        assert_eq!(fs::read(&path).unwrap(), bytes);
        fs::write(&path, "something else").unwrap();
        assert!(matches!(RecordFile::open(folder.path()), Err(RecordError::Damaged { offset: 0, .. })));
    }

    #[test]
    fn two_sfmd_cannot_have_one_record() {
        let folder = tempfile::tempdir().unwrap();
        let _first = RecordFile::open(folder.path()).unwrap();
        assert!(matches!(RecordFile::open(folder.path()), Err(RecordError::InUse(_))));
    }
}
