//! SFMD's record on disk: a file that only grows while SFMD runs.
//!
//! ```text
//! file    "SFMDREC2"  entry  entry ...
//! entry   length (u32 BE, not 0)  CRC-32 of the payload (u32 BE)  payload: JSON
//! ```
//!
//! The first entry is all that is remembered, each further one a list of changes of it: those of one
//! append, so that a crash loses all of them or none. At each start, and when the changes have become
//! longer than what they change, all that is remembered is written as the first entry of a new file, which
//! then replaces the old one.
//!
//! A crash may cut the last entry off, or leave zeros where it or its length should be: the file's length
//! may reach the disk before the bytes do. Such an entry was never acted upon and is dropped. Any other
//! damage is an error.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::durable::{Change, Durable};
use crate::hosts::ids::Unique;

const MAGIC: &[u8; 8] = b"SFMDREC2";
/// No entry is longer: all that is remembered, with 4,096 answers of the largest size.
const LONGEST_ENTRY: usize = 256 << 20;
const HEADER: usize = 8;
/// Changes are not worth a new file before they are so long, bytes.
const WORTH_COMPACTING: u64 = 1 << 20;

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
    folder: PathBuf,
    path: PathBuf,
    file: File,
    /// Bytes of the first entry, and of all others.
    whole: u64,
    changes: u64,
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
        let (file, whole) = write_anew(folder, &path, &durable).map_err(system("write", &path))?;
        let folder = folder.to_owned();
        Ok((Self { folder, path, file, whole, changes: 0, _lock: lock }, durable))
    }

    /// Adds changes, all or none of them if a crash comes; they are on disk when this returns. `after` is
    /// what they make.
    ///
    /// # Errors
    /// The file cannot be written. Nothing that follows from the changes may be said then.
    pub fn append(&mut self, changes: &[&Change], after: &Durable) -> Result<(), RecordError> {
        self.add(changes, after).map_err(|source| RecordError::System {
            what: "write",
            path: self.path.clone(),
            source,
        })
    }

    fn add(&mut self, changes: &[&Change], after: &Durable) -> io::Result<()> {
        if self.changes > WORTH_COMPACTING.max(self.whole) {
            (self.file, self.whole) = write_anew(&self.folder, &self.path, after)?;
            self.changes = 0;
            return Ok(());
        }
        let bytes = entry(&changes)?;
        self.changes += bytes.len() as u64;
        self.file.write_all(&bytes)?;
        self.file.sync_data()
    }
}

fn entry<T: Serialize>(value: &T) -> io::Result<Vec<u8>> {
    let payload = serde_json::to_vec(value)?;
    if payload.len() > LONGEST_ENTRY {
        return Err(io::Error::other(format!("an entry of {} bytes is too long", payload.len())));
    }
    let length = u32::try_from(payload.len()).map_err(io::Error::other)?;
    let mut bytes = Vec::with_capacity(HEADER + payload.len());
    bytes.extend(length.to_be_bytes());
    bytes.extend(crc32fast::hash(&payload).to_be_bytes());
    bytes.extend(payload);
    Ok(bytes)
}

/// Writes a whole new file, and puts it into the place of the old one. Returns its length, too.
fn write_anew(folder: &Path, path: &Path, durable: &Durable) -> io::Result<(File, u64)> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().create(true).write(true).truncate(true).mode(0o600).open(&new)?;
    let whole = entry(durable)?;
    file.write_all(MAGIC)?;
    file.write_all(&whole)?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    File::open(folder)?.sync_all()?;
    Ok((file, whole.len() as u64))
}

/// What the bytes of a record say.
fn replay(path: &Path, bytes: &[u8]) -> Result<Durable, RecordError> {
    let damaged = |offset, why: String| RecordError::Damaged { path: path.to_owned(), offset, why };
    let Some(mut rest) = bytes.strip_prefix(MAGIC) else {
        return Err(damaged(0, "it does not begin with SFMDREC2".into()));
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
            Some(durable) => {
                let changes = read::<Vec<Change>>(payload).map_err(|why| damaged(offset, why))?;
                changes.into_iter().for_each(|change| durable.apply(change));
            }
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
    if length == 0 {
        return Ok(None);
    }
    if length > LONGEST_ENTRY {
        return Err(format!("an entry of {length} bytes"));
    }
    let Some((payload, rest)) = behind.split_at_checked(length) else { return Ok(None) };
    match crc32fast::hash(payload) == u32::from_be_bytes(sum) {
        true => Ok(Some((payload, rest))),
        false if rest.iter().all(|byte| *byte == 0) => Ok(None),
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
            durable.apply(opened(number));
            record.append(&[&opened(number)], &durable).unwrap();
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
        let last = entry(&[opened(3)]).unwrap().len();
        let before = replay(&path, &whole[..whole.len() - last]).unwrap();
        assert_ne!(before, durable);
        for cut in 1..=last {
            assert_eq!(replay(&path, &whole[..whole.len() - cut]).unwrap(), before, "cut by {cut}");
        }
    }

    #[test]
    fn zeros_where_the_last_entry_should_be_are_an_entry_that_was_not_written() {
        let (folder, durable) = written();
        let path = folder.path().join("record");
        let whole = fs::read(&path).unwrap();
        let last = entry(&[opened(3)]).unwrap().len();
        let before = replay(&path, &whole[..whole.len() - last]).unwrap();
        for unwritten in 1..=last {
            let mut bytes = whole.clone();
            bytes[whole.len() - unwritten..].fill(0);
            assert_eq!(replay(&path, &bytes).unwrap(), before, "{unwritten} bytes");
            bytes.extend([0; 5000]);
            assert_eq!(replay(&path, &bytes).unwrap(), before, "{unwritten} bytes and more");
        }
        let longer = [&whole[..], &[0; 5000]].concat();
        assert_eq!(replay(&path, &longer).unwrap(), durable);
    }

    #[test]
    fn changes_of_one_append_are_lost_together_or_not_at_all() {
        let (folder, mut durable) = written();
        let path = folder.path().join("record");
        let (mut record, before) = RecordFile::open(folder.path()).unwrap();
        let start = fs::metadata(&path).unwrap().len() as usize;
        [4, 5].into_iter().for_each(|number| durable.apply(opened(number)));
        record.append(&[&opened(4), &opened(5)], &durable).unwrap();
        let whole = fs::read(&path).unwrap();
        for length in start..whole.len() {
            assert_eq!(replay(&path, &whole[..length]).unwrap(), before, "{length} bytes");
        }
        assert_eq!(replay(&path, &whole).unwrap(), durable);
    }

    #[test]
    fn a_record_does_not_grow_without_end() {
        let folder = tempfile::tempdir().unwrap();
        let (mut record, mut durable) = RecordFile::open(folder.path()).unwrap();
        let why = "x".repeat(40_000);
        for _ in 0..100 {
            // It changes nothing: there is no such ticket.
            let killed = Change::Killed { ticket: TicketId(7), why: why.clone() };
            durable.apply(killed.clone());
            record.append(&[&killed], &durable).unwrap();
            let length = fs::metadata(folder.path().join("record")).unwrap().len();
            assert!(length < 2 * WORTH_COMPACTING, "{length} bytes");
        }
        drop(record);
        assert_eq!(RecordFile::open(folder.path()).unwrap().1, durable);
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
