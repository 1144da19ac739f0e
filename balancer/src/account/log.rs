//! The access log: a bounded channel, and the one thread that writes.
//!
//! The thread writes in batches and then pauses for a moment, so that a busy data plane does
//! not have to wake it for each line. A file that was moved away is opened anew with the next
//! batch, and with each new configuration.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::Duration;

use super::AccountError;
use super::line;
use super::notes::Notes;

/// Between two batches.
const PAUSE: Duration = Duration::from_millis(20);
/// How long the end of the process waits for what is still to be written.
const LAST_WRITES: Duration = Duration::from_secs(1);
/// Bytes that are gathered at most before they are written.
const BATCH: usize = 256 * 1024;
/// Names of clients are nobody else's business.
const MODE: u32 = 0o640;

/// How lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// One object a line.
    Json,
    /// NCSA's combined format.
    Combined,
}

/// Where lines go.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// To this file, at its end.
    File(PathBuf),
    /// To standard output.
    Stdout,
}

/// The access log, as it is configured.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSettings {
    /// Where lines go.
    pub to: Destination,
    /// How they look.
    pub format: LogFormat,
    /// Whether targets and referers are told with their queries.
    pub query: bool,
    /// Lines that may wait to be written.
    pub max_waiting: usize,
}

/// What became of lines.
#[derive(Debug, Default)]
pub(crate) struct LogCounts {
    pub(crate) written: AtomicU64,
    /// Too many were waiting.
    pub(crate) dropped: AtomicU64,
    /// They could not be written.
    pub(crate) failed: AtomicU64,
}

enum Message {
    Line(Box<Notes>),
    Reopen,
    /// Write what there is; the sender is told by a hang-up.
    End(SyncSender<()>),
}

/// The access log, for those who have something to tell.
pub(crate) struct AccessLog {
    settings: LogSettings,
    sender: SyncSender<Message>,
    counts: Arc<LogCounts>,
}

impl AccessLog {
    /// The log that there was if it is to be the same, else a new one that goes on counting.
    pub(super) fn follow(settings: &LogSettings, old: Option<&Arc<Self>>) -> Result<Arc<Self>, AccountError> {
        match old {
            Some(old) if old.settings == *settings => Ok(Arc::clone(old)),
            _ => Self::start(settings, old.map(|old| Arc::clone(&old.counts)).unwrap_or_default()),
        }
    }

    fn start(settings: &LogSettings, counts: Arc<LogCounts>) -> Result<Arc<Self>, AccountError> {
        let output =
            Output::open(&settings.to).map_err(|(path, source)| AccountError::Log { path, source })?;
        let (sender, messages) = sync_channel(settings.max_waiting);
        let (format, query) = (settings.format, settings.query);
        let writer = Writer {
            messages,
            output,
            format,
            query,
            counts: Arc::clone(&counts),
            room: Vec::new(),
            lines: 0,
        };
        let thread = thread::Builder::new().name("access-log".to_owned());
        thread.spawn(move || writer.run()).map_err(AccountError::Thread)?;
        Ok(Arc::new(Self { settings: settings.clone(), sender, counts }))
    }

    /// Takes a line, if there is room for it.
    pub(super) fn send(&self, notes: Box<Notes>) {
        if self.sender.try_send(Message::Line(notes)).is_err() {
            self.counts.dropped.fetch_add(1, Relaxed);
        }
    }

    /// Opens the file anew.
    pub(super) fn reopen(&self) {
        // A writer that is behind looks at its file before its next batch anyway.
        let _ = self.sender.try_send(Message::Reopen);
    }

    /// Waits until what was taken is written, or a second.
    pub(super) fn close(&self) {
        let (sender, done) = sync_channel(0);
        let sent = self.sender.try_send(Message::End(sender));
        if !matches!(sent, Err(TrySendError::Full(_))) {
            // The hang-up is the answer.
            let _ = done.recv_timeout(LAST_WRITES);
        }
    }

    pub(super) fn counts(&self) -> &LogCounts {
        &self.counts
    }
}

enum Output {
    Stdout,
    File { path: PathBuf, file: File, broken: bool },
}

impl Output {
    fn open(to: &Destination) -> Result<Self, (String, io::Error)> {
        match to {
            Destination::Stdout => Ok(Self::Stdout),
            Destination::File(path) => {
                let file = open(path).map_err(|error| (path.display().to_string(), error))?;
                Ok(Self::File { path: path.clone(), file, broken: false })
            }
        }
    }

    /// Opens the file anew if it is not the one at its path any more.
    fn follow(&mut self) -> io::Result<()> {
        let Self::File { path, file, broken } = self else { return Ok(()) };
        let open_one = file.metadata()?;
        let same = std::fs::metadata(&*path)
            .is_ok_and(|named| (named.dev(), named.ino()) == (open_one.dev(), open_one.ino()));
        if !same {
            (*file, *broken) = (open(path)?, false);
        }
        Ok(())
    }

    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        match self {
            Self::Stdout => {
                let mut stdout = io::stdout().lock();
                stdout.write_all(lines)?;
                stdout.flush()
            }
            Self::File { file, broken, .. } => {
                // A piece of a line shall not run into the next one.
                if *broken {
                    file.write_all(b"\n")?;
                }
                let written = file.write_all(lines);
                *broken = written.is_err();
                written
            }
        }
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).mode(MODE).open(path)
}

struct Writer {
    messages: Receiver<Message>,
    output: Output,
    format: LogFormat,
    query: bool,
    counts: Arc<LogCounts>,
    room: Vec<u8>,
    /// Those in `room`.
    lines: u64,
}

impl Writer {
    /// Until nobody can send any more.
    fn run(mut self) {
        while let Ok(first) = self.messages.recv() {
            let mut next = Some(first);
            let mut ends = Vec::new();
            while let Some(message) = next {
                match message {
                    Message::Line(notes) => self.gather(&notes),
                    Message::Reopen => {}
                    Message::End(done) => ends.push(done),
                }
                next = self.messages.try_recv().ok();
            }
            self.write();
            if ends.is_empty() {
                thread::sleep(PAUSE);
            }
        }
    }

    fn gather(&mut self, notes: &Notes) {
        line::write(notes, self.format, self.query, &mut self.room);
        self.lines += 1;
        if self.room.len() >= BATCH {
            self.write();
        }
    }

    fn write(&mut self) {
        let followed = self.output.follow();
        let written = followed.and_then(|()| self.output.write(&self.room));
        let count = if written.is_ok() { &self.counts.written } else { &self.counts.failed };
        if let Err(error) = written {
            tracing::warn!(%error, lines = self.lines, "the access log cannot be written");
        }
        count.fetch_add(self.lines, Relaxed);
        self.lines = 0;
        self.room.clear();
    }
}
