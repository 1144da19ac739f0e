//! What a forecast remembers, kept in a file beyond the life of the process.
//!
//! One thread writes it, now and then and at the end. The file is replaced as a whole and
//! on the disk before that, so a crash leaves the old one or the new one. One that cannot
//! be read, or was made for another season, is told and begun anew.

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use scaler::{Record, Scaler};

/// Between two times that it is written.
const EVERY: Duration = Duration::from_secs(60);

/// The file of a forecast's record. Dropping it waits until the last write is done.
pub(super) struct RecordFile {
    sender: Option<SyncSender<Record>>,
    writer: Option<JoinHandle<()>>,
    written: Instant,
}

impl RecordFile {
    /// Reads the file into the scaler, if the policy names one and it is there.
    pub(super) fn open(path: Option<&Path>, scaler: &mut Scaler) -> Option<Self> {
        let path = path?.to_owned();
        match read(&path) {
            Ok(Some(record)) => {
                let words =
                    if scaler.remember(record) { "taken up" } else { "of another season; begun anew" };
                tracing::info!(file = %path.display(), "the record of former days is {words}");
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(file = %path.display(), %error, "no record of former days"),
        }
        let (sender, records) = sync_channel::<Record>(1);
        let write_all = move || {
            for record in records {
                if let Err(error) = write(&path, &record) {
                    tracing::warn!(file = %path.display(), %error, "the forecast's record cannot be kept");
                }
            }
        };
        let started = std::thread::Builder::new().name("record".to_owned()).spawn(write_all);
        let writer = started.map_err(|error| tracing::warn!(%error, "no record is kept")).ok();
        Some(Self { sender: writer.is_some().then_some(sender), writer, written: Instant::now() })
    }

    /// Writes the record now and then.
    pub(super) fn keep(&mut self, record: Option<&Record>) {
        let (Some(record), Some(sender)) = (record.filter(|_| self.written.elapsed() >= EVERY), &self.sender)
        else {
            return;
        };
        self.written = Instant::now();
        // While the last one is still being written, this one waits for its next turn.
        let _ = sender.try_send(record.clone());
    }

    /// Writes the record at the end.
    pub(super) fn finish(&mut self, record: Option<&Record>) {
        if let (Some(record), Some(sender)) = (record, &self.sender) {
            // The thread ends only when all is written.
            let _ = sender.send(record.clone());
        }
    }
}

impl Drop for RecordFile {
    fn drop(&mut self) {
        self.sender = None;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
    }
}

fn read(path: &Path) -> io::Result<Option<Record>> {
    match std::fs::read(path) {
        Ok(text) => Ok(Some(serde_json::from_slice(&text)?)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn write(path: &Path, record: &Record) -> io::Result<()> {
    // Beside the file, and not the name of another one: `shop.json` and `shop.yaml` differ.
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let mut file = File::create(&part)?;
    file.write_all(&serde_json::to_vec(record)?)?;
    file.sync_all()?;
    std::fs::rename(&part, path)
}

#[cfg(test)]
mod tests {
    use scaler::{Policy, PoolView, Predict, Sample};

    use super::*;

    fn scaler() -> Scaler {
        let s = Duration::from_secs;
        let predict = Predict { season: s(3600), bin: s(60), buffer: s(0), acts: true };
        Scaler::new(Policy { predict: Some(predict), ..Policy::default() }).unwrap()
    }

    /// A scaler that has wanted three for an hour and more.
    fn experienced() -> Scaler {
        let mut scaler = scaler();
        for minute in 0..70 {
            let now = Duration::from_secs(minute * 60);
            scaler.set_wall_clock(now, now);
            scaler.observe(&Sample { in_flight: Some(11.0), ..Sample::default() }, now);
            scaler.decide(&PoolView { ready: 3, ..PoolView::default() }, now);
        }
        scaler
    }

    #[test]
    fn a_record_outlives_its_scaler() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.json");
        let old = experienced();
        write(&path, old.record().unwrap()).unwrap();
        let mut new = scaler();
        RecordFile::open(Some(&path), &mut new);
        new.set_wall_clock(Duration::from_secs(4500), Duration::ZERO);
        assert_eq!((new.record(), new.forecast()), (old.record(), Some(3)));
    }

    #[test]
    fn the_end_is_written_whenever_it_comes() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.json");
        let old = experienced();
        let mut file = RecordFile::open(Some(&path), &mut scaler()).unwrap();
        file.keep(old.record());
        assert!(!path.exists(), "a minute is not over");
        file.finish(old.record());
        drop(file);
        assert_eq!(read(&path).unwrap().as_ref(), old.record());
    }

    #[test]
    fn two_records_of_like_names_do_not_meet_while_they_are_written() {
        let folder = tempfile::tempdir().unwrap();
        let other = folder.path().join("shop.part");
        std::fs::write(&other, "mine").unwrap();
        write(&folder.path().join("shop.json"), experienced().record().unwrap()).unwrap();
        assert_eq!(std::fs::read_to_string(&other).unwrap(), "mine");
    }

    #[test]
    fn a_file_that_is_none_is_begun_anew() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("shop.json");
        for content in ["", "{}", "[1, 2]", "{\"bin_seconds\":1,\"bins\":[null],\"open\":null}"] {
            std::fs::write(&path, content).unwrap();
            let mut new = scaler();
            assert!(RecordFile::open(Some(&path), &mut new).is_some());
            assert_eq!(new.record(), scaler().record(), "{content}");
        }
        assert!(RecordFile::open(None, &mut scaler()).is_none());
        assert!(RecordFile::open(Some(folder.path()), &mut scaler()).is_some());
    }

    #[test]
    fn a_record_is_replaced_as_a_whole_or_not_at_all() {
        let folder = tempfile::tempdir().unwrap();
        let record = experienced().record().cloned().unwrap();
        assert!(write(&folder.path().join("no/such/folder.json"), &record).is_err());
        let path = folder.path().join("shop.json");
        write(&path, &record).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
