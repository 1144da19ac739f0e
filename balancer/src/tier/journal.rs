//! The scaler's journal: one JSON object per line for all that it was told and decided.
//!
//! A thread writes, so that a slow disk does not slow the loop. At its limit the file is
//! renamed to `.old`, over an older one, and begun anew. A file that cannot be written is
//! told once; the tier goes on without.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};

use scaler::journal::{Entry, Happened};

/// Size at which the file is begun anew, bytes.
const LIMIT: u64 = 64 << 20;

/// Where entries go. Dropping it ends the thread once all is written.
#[derive(Debug, Clone)]
pub(super) struct Journal(Option<Sender<Entry>>);

impl Journal {
    /// Opens the file, if the policy names one.
    pub(super) fn open(path: Option<&Path>) -> Self {
        let Some(path) = path.map(Path::to_owned) else { return Self(None) };
        let (sender, entries) = channel();
        let writer = std::thread::Builder::new().name("journal".to_owned());
        let shown = path.display().to_string();
        let started = writer.spawn(move || write_all(&path, &entries, LIMIT));
        if let Err(error) = &started {
            tracing::warn!(file = shown, %error, "no journal");
        }
        Self(started.ok().map(|_| sender))
    }

    /// Whether anything is written at all.
    pub(super) fn is_open(&self) -> bool {
        self.0.is_some()
    }

    /// Writes an event down.
    pub(super) fn note(&self, at_seconds: f64, what: Happened) {
        self.write(Entry { at_seconds, what });
    }

    /// Writes an entry down.
    pub(super) fn write(&self, entry: Entry) {
        if let Some(sender) = &self.0 {
            // The thread has ended only if it could not write, which was told.
            let _ = sender.send(entry);
        }
    }
}

fn write_all(path: &Path, entries: &Receiver<Entry>, limit: u64) {
    if let Err(error) = try_write_all(path, entries, limit) {
        tracing::warn!(file = %path.display(), %error, "the journal cannot be written; the tier goes on without");
    }
}

fn try_write_all(path: &Path, entries: &Receiver<Entry>, limit: u64) -> io::Result<()> {
    let mut file = File::options().create(true).append(true).open(path)?;
    let mut size = file.metadata()?.len();
    while let Ok(entry) = entries.recv() {
        let mut lines = serde_json::to_vec(&entry)?;
        lines.push(b'\n');
        // What has gathered meanwhile is one write.
        for entry in entries.try_iter().take(100) {
            serde_json::to_writer(&mut lines, &entry)?;
            lines.push(b'\n');
        }
        if size + lines.len() as u64 > limit {
            std::fs::rename(path, old(path))?;
            file = File::options().create(true).append(true).open(path)?;
            size = 0;
        }
        file.write_all(&lines)?;
        size += lines.len() as u64;
    }
    Ok(())
}

fn old(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".old");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(path: &Path, count: u32, limit: u64) -> io::Result<()> {
        let (sender, entries) = channel();
        for at in 0..count {
            sender.send(Entry { at_seconds: f64::from(at), what: Happened::Resume }).unwrap();
        }
        drop(sender);
        try_write_all(path, &entries, limit)
    }

    #[test]
    fn every_entry_is_a_line_and_an_older_file_is_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.jsonl");
        written(&path, 3, LIMIT).unwrap();
        written(&path, 2, LIMIT).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        let read: Vec<Entry> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read.len(), 5);
        assert_eq!(text.lines().next(), Some(r#"{"at_seconds":0.0,"event":"resume"}"#));
    }

    #[test]
    fn at_its_limit_the_file_is_begun_anew_and_one_older_one_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.jsonl");
        (0..4).for_each(|_| written(&path, 3, 250).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        assert!(std::fs::metadata(&path).unwrap().len() <= 250);
        assert!(old(&path).ends_with("shop.jsonl.old"));
    }

    #[test]
    fn a_place_that_cannot_be_written_is_an_error_and_no_panic() {
        let folder = tempfile::tempdir().unwrap();
        assert!(written(folder.path(), 1, LIMIT).is_err());
        let journal = Journal::open(Some(folder.path()));
        journal.note(1.0, Happened::Resume);
        assert!(journal.is_open() && !Journal::open(None).is_open());
    }
}
