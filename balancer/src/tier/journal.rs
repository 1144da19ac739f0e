//! The scaler's journal: one JSON object per line for all that it was told and decided.
//!
//! A thread writes, so that a slow disk does not slow the loop, and the way to it is
//! bounded. What could not be written is told by an entry `cut` in its place. At its
//! limit the file is renamed to `.old`, over an older one, and begun anew. A file that
//! cannot be written is told once and tried again now and then.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use scaler::journal::{Entry, Happened};

/// Size at which the file is begun anew, bytes.
const LIMIT: u64 = 64 << 20;
/// Entries that wait for the disk at most: about four minutes of them.
const WAITING: usize = 4096;
/// Between two tries to open a file that could not be written.
const TRY_AGAIN: Duration = Duration::from_secs(10);

/// Where entries go. Dropping it waits until all is written.
#[derive(Debug)]
pub(super) struct Journal {
    sender: Option<SyncSender<Entry>>,
    lost: Arc<AtomicU64>,
    writer: Option<JoinHandle<()>>,
}

impl Journal {
    /// Opens the file, if the policy names one.
    pub(super) fn open(path: Option<&Path>) -> Self {
        let lost = Arc::new(AtomicU64::new(0));
        let Some(path) = path.map(Path::to_owned) else { return Self { sender: None, lost, writer: None } };
        let (sender, entries) = sync_channel(WAITING);
        let shown = path.display().to_string();
        let mut file = JournalFile::new(path, LIMIT, Arc::clone(&lost));
        let builder = std::thread::Builder::new().name("journal".to_owned());
        let started = builder.spawn(move || file.write_all_of(&entries));
        if let Err(error) = &started {
            tracing::warn!(file = shown, %error, "no journal");
        }
        let writer = started.ok();
        Self { sender: writer.is_some().then_some(sender), lost, writer }
    }

    /// Whether anything is written at all.
    pub(super) fn is_open(&self) -> bool {
        self.sender.is_some()
    }

    /// Writes an event down.
    pub(super) fn note(&self, at_seconds: f64, what: Happened) {
        self.write(Entry { at_seconds, what });
    }

    /// Writes an entry down.
    pub(super) fn write(&self, entry: Entry) {
        if let Some(sender) = &self.sender
            && sender.try_send(entry).is_err()
        {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Drop for Journal {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(writer) = self.writer.take() {
            // It ends by itself; a panic of it was told.
            let _ = writer.join();
        }
    }
}

/// The file, as the thread sees it.
struct JournalFile {
    path: PathBuf,
    limit: u64,
    open: Option<(File, u64)>,
    tried: Option<Instant>,
    /// Entries that could not be written and are not told of yet.
    lost: Arc<AtomicU64>,
    /// Orders in force, which a file that is begun anew repeats.
    orders: Vec<Entry>,
    /// Whether the next line stands after a gap.
    cut: bool,
}

impl JournalFile {
    fn new(path: PathBuf, limit: u64, lost: Arc<AtomicU64>) -> Self {
        Self { path, limit, open: None, tried: None, lost, orders: Vec::new(), cut: false }
    }

    fn write_all_of(&mut self, entries: &Receiver<Entry>) {
        while let Ok(first) = entries.recv() {
            // What has gathered meanwhile is one write.
            let batch: Vec<Entry> = std::iter::once(first).chain(entries.try_iter().take(100)).collect();
            if let Err(error) = self.write(&batch) {
                self.lost.fetch_add(batch.len() as u64, Ordering::Relaxed);
                if self.open.take().is_some() || self.tried.is_none() {
                    let file = self.path.display();
                    tracing::warn!(%file, %error, "the journal cannot be written; it is tried again");
                }
                self.tried = Some(Instant::now());
            }
            batch.into_iter().for_each(|entry| self.remember(entry));
        }
    }

    fn write(&mut self, batch: &[Entry]) -> io::Result<()> {
        let lost = self.lost.swap(0, Ordering::Relaxed);
        let written = self.try_write(batch, lost);
        if written.is_err() {
            self.lost.fetch_add(lost, Ordering::Relaxed);
        }
        written
    }

    fn try_write(&mut self, batch: &[Entry], lost: u64) -> io::Result<()> {
        let at_seconds = batch[0].at_seconds;
        if self.open.is_none() {
            if self.tried.is_some_and(|at| at.elapsed() < TRY_AGAIN) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.open = Some(opened(&self.path)?);
        }
        let mut lines = self.lines(batch, (lost > 0 || self.cut).then_some((at_seconds, lost)))?;
        if self.open.as_ref().is_some_and(|(_, size)| *size > 0 && size + lines.len() as u64 > self.limit) {
            std::fs::rename(&self.path, old(&self.path))?;
            self.open = Some(opened(&self.path)?);
            lines = self.lines(batch, Some((at_seconds, lost)))?;
        }
        let Some((file, size)) = &mut self.open else { return Ok(()) };
        file.write_all(&lines)?;
        *size += lines.len() as u64;
        (self.cut, self.tried) = (false, None);
        Ok(())
    }

    /// The lines of a batch; after a gap the gap first, and the orders that hold.
    fn lines(&self, batch: &[Entry], gap: Option<(f64, u64)>) -> io::Result<Vec<u8>> {
        let cut = gap.map(|(at_seconds, lost)| Entry { at_seconds, what: Happened::Cut { lost } });
        let orders = self.orders.iter().filter(|_| cut.is_some());
        let mut lines = Vec::new();
        for entry in cut.iter().chain(orders).chain(batch) {
            serde_json::to_writer(&mut lines, entry)?;
            lines.push(b'\n');
        }
        Ok(lines)
    }

    /// Keeps the orders that hold: the newest mode, and the newest size.
    fn remember(&mut self, entry: Entry) {
        let of_mode = |what: &Happened| matches!(what, Happened::Mode { .. });
        match &entry.what {
            Happened::Started { .. } => self.orders.clear(),
            Happened::Mode { .. } => {
                self.orders.retain(|order| !of_mode(&order.what));
                self.orders.push(entry);
            }
            Happened::HoldAt { .. } | Happened::Resume => {
                self.orders.retain(|order| of_mode(&order.what));
                self.orders.push(entry);
            }
            _ => {}
        }
    }
}

/// The file at its end, and its size. A line that a crash cut off is ended, so that only
/// it is lost.
fn opened(path: &Path) -> io::Result<(File, u64)> {
    let mut file = File::options().create(true).read(true).append(true).open(path)?;
    let mut size = file.metadata()?.len();
    if size > 0 {
        let mut last = [0];
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
        if last != *b"\n" {
            file.write_all(b"\n")?;
            size += 1;
        }
    }
    Ok((file, size))
}

fn old(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".old");
    name.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(at: u32) -> Entry {
        Entry { at_seconds: f64::from(at), what: Happened::Resume }
    }

    fn file(path: &Path, limit: u64) -> JournalFile {
        JournalFile::new(path.to_owned(), limit, Arc::default())
    }

    fn written(path: &Path, count: u32, limit: u64) {
        let mut file = file(path, limit);
        (0..count).for_each(|at| file.write(&[entry(at)]).unwrap());
    }

    fn entries(path: &Path) -> Vec<Entry> {
        let text = std::fs::read_to_string(path).unwrap();
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    }

    #[test]
    fn every_entry_is_a_line_and_an_older_file_is_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.jsonl");
        written(&path, 3, LIMIT);
        written(&path, 2, LIMIT);
        assert_eq!(entries(&path).len(), 5);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().next(), Some(r#"{"at_seconds":0.0,"event":"resume"}"#));
    }

    #[test]
    fn a_line_that_a_crash_cut_off_spoils_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.jsonl");
        std::fs::write(&path, "{\"at_seconds\":0.0,\"event\":\"resu").unwrap();
        written(&path, 1, LIMIT);
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().nth(1), Some(r#"{"at_seconds":0.0,"event":"resume"}"#));
    }

    #[test]
    fn at_its_limit_the_file_is_begun_anew_with_the_orders_that_hold() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.jsonl");
        let mut file = file(&path, 250);
        let hold = Happened::HoldAt { backends: 3, for_seconds: None };
        file.remember(Entry { at_seconds: 0.5, what: hold.clone() });
        (0..9).for_each(|at| file.write(&[entry(at)]).unwrap());
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 2);
        let kept = entries(&path);
        assert_eq!((&kept[0].what, &kept[1].what), (&Happened::Cut { lost: 0 }, &hold));
    }

    #[test]
    fn what_was_lost_is_told_once_the_file_can_be_written_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("later/shop.jsonl");
        let mut file = file(&path, LIMIT);
        let (sender, waiting) = sync_channel(10);
        (0..3).for_each(|at| sender.send(entry(at)).unwrap());
        drop(sender);
        file.write_all_of(&waiting);
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        assert!(file.write(&[entry(8)]).is_err(), "it is not tried again at once");
        file.tried = None;
        file.write(&[entry(9)]).unwrap();
        let kept = entries(&path);
        assert_eq!(kept[0].what, Happened::Cut { lost: 3 });
        assert_eq!(kept.last().unwrap().at_seconds, 9.0);
    }

    #[test]
    fn a_disk_that_hangs_slows_nobody_and_costs_bounded_memory() {
        let (sender, _never_read) = sync_channel(2);
        let lost = Arc::new(AtomicU64::new(0));
        let journal = Journal { sender: Some(sender), lost: Arc::clone(&lost), writer: None };
        (0..5).for_each(|at| journal.write(entry(at)));
        assert_eq!(lost.load(Ordering::Relaxed), 3);
    }

    #[test]
    fn a_place_that_cannot_be_written_is_no_panic_and_the_end_of_a_journal_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(Some(folder.path()));
        journal.note(1.0, Happened::Resume);
        assert!(journal.is_open() && !Journal::open(None).is_open());
        let path = folder.path().join("shop.jsonl");
        let journal = Journal::open(Some(&path));
        (0..500).for_each(|at| journal.write(entry(at)));
        drop(journal);
        assert_eq!(entries(&path).len(), 500);
    }
}
