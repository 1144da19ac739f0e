//! What a forecast remembers, kept in a file beyond the life of the process.
//!
//! The file is replaced as a whole, so a crash leaves the old one or the new one. One
//! that cannot be read, or was made for another season, is told and begun anew.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use scaler::{Record, Scaler};

/// Between two times that it is written.
const EVERY: Duration = Duration::from_secs(60);

/// The file of a forecast's record.
pub(super) struct RecordFile {
    path: PathBuf,
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
        Some(Self { path, written: Instant::now() })
    }

    /// Writes the record now and then, on a thread for such work.
    pub(super) fn keep(&mut self, record: Option<&Record>) {
        let Some(record) = record.filter(|_| self.written.elapsed() >= EVERY) else { return };
        self.written = Instant::now();
        let (path, record) = (self.path.clone(), record.clone());
        tokio::task::spawn_blocking(move || {
            if let Err(error) = write(&path, &record) {
                tracing::warn!(file = %path.display(), %error, "the forecast's record cannot be kept");
            }
        });
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
    let part = path.with_extension("part");
    std::fs::write(&part, serde_json::to_vec(record)?)?;
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
