//! QMP, the JSON control protocol of QEMU (`docs/interop/qmp-spec`), over a
//! socket that QEMU inherits.
//!
//! Blocking, one command at a time, each with a deadline; events that arrive
//! meanwhile are kept until someone asks for them. A crate with every QMP type
//! exists, but its types follow one QEMU version, while this has to talk to
//! Debian's 7.2 and to later ones, and must pass file descriptors.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use serde_json::{Value, json};

/// One message of QEMU is at most this long; a status event has a few hundred bytes.
const MAX_MESSAGE: usize = 1 << 20;
/// Events that nobody asks for are dropped, oldest first.
const MAX_EVENTS: usize = 64;

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub(super) enum QmpError {
    #[error("{0}")]
    Refused(String),
    #[error("no answer")]
    Silent(#[source] io::Error),
}

impl From<io::Error> for QmpError {
    fn from(error: io::Error) -> Self {
        Self::Silent(error)
    }
}

/// A connection, ready for commands.
#[derive(Debug)]
pub(super) struct Qmp {
    stream: UnixStream,
    received: Vec<u8>,
    events: VecDeque<Value>,
}

impl Qmp {
    /// Takes QEMU's greeting and answers it.
    pub(super) fn greet(stream: UnixStream, limit: Duration) -> Result<Self, QmpError> {
        let mut qmp = Self { stream, received: Vec::new(), events: VecDeque::new() };
        let greeting = qmp.message(Instant::now() + limit)?;
        if greeting.get("QMP").is_none() {
            return Err(QmpError::Refused(format!("not a QMP greeting: {greeting}")));
        }
        qmp.execute("qmp_capabilities", json!({}), limit)?;
        Ok(qmp)
    }

    /// Runs a command and returns its result.
    pub(super) fn execute(
        &mut self,
        name: &str,
        arguments: Value,
        limit: Duration,
    ) -> Result<Value, QmpError> {
        self.send(name, arguments, None)?;
        self.result(limit)
    }

    /// Gives QEMU a file descriptor under a name, for `fd:NAME`.
    pub(super) fn give_fd(
        &mut self,
        name: &str,
        fd: BorrowedFd<'_>,
        limit: Duration,
    ) -> Result<(), QmpError> {
        self.send("getfd", json!({ "fdname": name }), Some(fd))?;
        self.result(limit).map(drop)
    }

    /// Waits for an event of this name whose data satisfies `wanted`.
    pub(super) fn wait_event(
        &mut self,
        name: &str,
        limit: Duration,
        mut wanted: impl FnMut(&Value) -> bool,
    ) -> Result<Value, QmpError> {
        let until = Instant::now() + limit;
        loop {
            let event = match self.events.pop_front() {
                Some(event) => event,
                None => self.message(until)?,
            };
            if event["event"] == name && wanted(&event["data"]) {
                return Ok(event);
            }
        }
    }

    fn send(&mut self, name: &str, arguments: Value, fd: Option<BorrowedFd<'_>>) -> Result<(), QmpError> {
        let text = json!({ "execute": name, "arguments": arguments }).to_string();
        let raw: Vec<i32> = fd.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control = if raw.is_empty() { &rights[..0] } else { &rights[..] };
        let mut rest = text.as_bytes();
        let mut control = Some(control);
        while !rest.is_empty() {
            let sent = sendmsg::<()>(
                self.stream.as_raw_fd(),
                &[IoSlice::new(rest)],
                control.take().unwrap_or_default(),
                MsgFlags::MSG_NOSIGNAL,
                None,
            );
            rest = &rest[sent.map_err(io::Error::from)?..];
        }
        Ok(())
    }

    fn result(&mut self, limit: Duration) -> Result<Value, QmpError> {
        let until = Instant::now() + limit;
        loop {
            let mut message = self.message(until)?;
            if let Some(result) = message.get_mut("return") {
                return Ok(result.take());
            }
            if let Some(error) = message.get("error") {
                return Err(QmpError::Refused(error["desc"].as_str().unwrap_or("no reason given").into()));
            }
            if self.events.len() == MAX_EVENTS {
                self.events.pop_front();
            }
            self.events.push_back(message);
        }
    }

    /// The next message of any kind.
    fn message(&mut self, until: Instant) -> io::Result<Value> {
        loop {
            if let Some(end) = self.received.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.received.drain(..=end).collect();
                return serde_json::from_slice(&line).map_err(io::Error::from);
            }
            if self.received.len() > MAX_MESSAGE {
                return Err(io::Error::new(ErrorKind::InvalidData, "message of QEMU longer than 1 MiB"));
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(ErrorKind::TimedOut.into());
            }
            self.stream.set_read_timeout(Some(left))?;
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(n) => self.received.extend_from_slice(&buffer[..n]),
                Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) => {}
                Err(e) => return Err(e),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const LIMIT: Duration = Duration::from_secs(2);

    /// A connection to a QEMU that has said all this in advance.
    fn qemu_says(lines: &[&str]) -> (Result<Qmp, QmpError>, UnixStream) {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        for line in lines {
            theirs.write_all(line.as_bytes()).unwrap();
            theirs.write_all(b"\r\n").unwrap();
        }
        (Qmp::greet(ours, LIMIT), theirs)
    }

    #[test]
    fn an_event_before_the_answer_is_kept_for_who_waits_for_it() {
        let (qmp, _qemu) = qemu_says(&[
            r#"{"QMP": {}}"#,
            r#"{"return": {}}"#,
            r#"{"event": "STOP", "data": {}}"#,
            r#"{"event": "MIGRATION", "data": {"status": "completed"}}"#,
            r#"{"return": {"status": "paused"}}"#,
        ]);
        let mut qmp = qmp.unwrap();
        assert_eq!(qmp.execute("query-status", json!({}), LIMIT).unwrap()["status"], "paused");
        qmp.wait_event("MIGRATION", LIMIT, |data| data["status"] == "completed").unwrap();
    }

    #[test]
    fn a_refusal_carries_the_words_of_qemu() {
        let (qmp, _qemu) =
            qemu_says(&[r#"{"QMP": {}}"#, r#"{"return": {}}"#, r#"{"error": {"desc": "no such node"}}"#]);
        let error = qmp.unwrap().execute("blockdev-add", json!({}), LIMIT).unwrap_err();
        assert_eq!(error.to_string(), "no such node");
    }

    #[test]
    fn a_qemu_that_ends_or_talks_nonsense_is_an_error() {
        let (qmp, qemu) = qemu_says(&[r#"{"QMP": {}}"#, r#"{"return": {}}"#]);
        drop(qemu);
        assert!(matches!(qmp.unwrap().execute("stop", json!({}), LIMIT), Err(QmpError::Silent(_))));
        assert!(qemu_says(&[r#"{"hello": 1}"#]).0.is_err());
        assert!(qemu_says(&["220 smtp ready"]).0.is_err());
    }

    #[test]
    fn silence_ends_with_the_deadline() {
        let (ours, _theirs) = UnixStream::pair().unwrap();
        let error = Qmp::greet(ours, Duration::from_millis(20)).unwrap_err();
        assert!(matches!(error, QmpError::Silent(e) if e.kind() == ErrorKind::TimedOut));
    }
}
