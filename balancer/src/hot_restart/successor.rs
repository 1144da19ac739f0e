//! In the old process, the one that replaces it: started, and waited for until it is ready.

use std::ffi::OsString;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use snowflock_engine::sys::fdpass::{Channel, Message};

use super::predecessor::READY;
use super::{Offer, PREDECESSOR};

/// Longest time from the start of the new program to its word that it is ready.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Why a process goes on itself.
#[derive(Debug, thiserror::Error)]
pub enum HandOverError {
    /// The new program cannot be started.
    #[error("{program} cannot be started: {source}")]
    Start {
        /// The program.
        program: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The sockets cannot be given to it.
    #[error("the listening sockets cannot be handed over: {0}")]
    Offer(#[source] io::Error),
    /// It says why it cannot run.
    #[error("{0}")]
    Refused(String),
    /// It ended without a word.
    #[error("the new program ended before it was ready ({0}); what it said is in the log")]
    Ended(String),
    /// It takes too long.
    #[error("the new program was not ready within {START_LIMIT:?}, and was ended")]
    Silent,
    /// This process must not be replaced.
    #[error("{0}")]
    Kept(&'static str),
}

/// A new process that is not ready yet. It is killed when dropped.
#[derive(Debug)]
pub struct Successor {
    child: Option<Child>,
    channel: Option<Channel>,
}

impl Drop for Successor {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            // One that has ended already is what was wanted.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Successor {
    /// Starts the program of this process again, as it is on disk now, with the same arguments.
    ///
    /// # Errors
    /// [`HandOverError`]; nothing is left running then.
    pub fn start(offer: &Offer) -> Result<Self, HandOverError> {
        if std::process::id() == 1 {
            return Err(HandOverError::Kept(
                "process 1 of a container cannot be replaced: the container would end with it (start another one)",
            ));
        }
        let mut arguments = std::env::args_os();
        let program = program(arguments.next());
        Self::run(&program, arguments.collect(), offer)
    }

    fn run(program: &Path, arguments: Vec<OsString>, offer: &Offer) -> Result<Self, HandOverError> {
        let (channel, theirs) = Channel::pair().map_err(HandOverError::Offer)?;
        let theirs = theirs.as_fd().try_clone_to_owned().map_err(HandOverError::Offer)?;
        let mut command = Command::new(program);
        command.args(arguments).stdin(Stdio::from(theirs));
        command.env(PREDECESSOR, std::process::id().to_string());
        let started = command.spawn();
        // With it goes our copy of the other end, so that its end is noticed.
        drop(command);
        let child = started.map_err(|source| HandOverError::Start { program: program.into(), source })?;
        let successor = Self { child: Some(child), channel: Some(channel) };
        successor.give(offer).map_err(HandOverError::Offer)?;
        Ok(successor)
    }

    fn give(&self, offer: &Offer) -> io::Result<()> {
        let Some(channel) = &self.channel else { return Ok(()) };
        channel.set_timeout(Some(START_LIMIT))?;
        match offer.send(channel) {
            // It is gone already; it is waited for as any other.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
            sent => sent,
        }
    }

    /// Waits until it accepts connections; returns its process ID. Whoever no longer waits kills it.
    ///
    /// # Errors
    /// [`HandOverError`]; it has ended then.
    pub async fn ready(mut self) -> Result<u32, HandOverError> {
        let Some(channel) = self.channel.take() else { return Err(HandOverError::Silent) };
        let said = tokio::task::spawn_blocking(move || channel.receive()).await;
        let said = said.map_err(|error| HandOverError::Offer(io::Error::other(error)))?;
        match said {
            Ok(Message { bytes, .. }) if bytes == READY => {
                let child = self.child.take();
                Ok(child.map_or(0, |child| child.id()))
            }
            Ok(Message { bytes, .. }) => {
                Err(HandOverError::Refused(String::from_utf8_lossy(&bytes).into_owned()))
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut) => {
                Err(HandOverError::Silent)
            }
            Err(_gone) => Err(HandOverError::Ended(self.ending().await)),
        }
    }

    /// How it ended. Its end of the line is closed, so that it has, or is about to.
    async fn ending(&mut self) -> String {
        /// How often it is looked, and how many times, before it is killed.
        const LOOK: (Duration, u32) = (Duration::from_millis(20), 50);
        for _ in 0..LOOK.1 {
            match self.child.as_mut().map(Child::try_wait) {
                Some(Ok(Some(status))) => return status.to_string(),
                Some(Ok(None)) => tokio::time::sleep(LOOK.0).await,
                Some(Err(error)) => return error.to_string(),
                None => break,
            }
        }
        "it hangs, and was killed".to_owned()
    }
}

/// The program by the name that it was started with: a link may lead to a newer one by now.
fn program(name: Option<OsString>) -> PathBuf {
    let name = PathBuf::from(name.unwrap_or_else(|| "/proc/self/exe".into()));
    // One without a folder is looked for as the shell did.
    match name.components().count() {
        1 => name,
        _ => std::path::absolute(&name).unwrap_or(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer() -> Offer {
        let admin = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Offer::new(admin.local_addr().unwrap(), &admin).unwrap()
    }

    fn run(script: &str) -> Result<Successor, HandOverError> {
        Successor::run(Path::new("/bin/sh"), vec!["-c".into(), script.into()], &offer())
    }

    #[tokio::test]
    async fn a_program_that_ends_without_a_word_is_reported_with_how_it_ended() {
        let error = run("exit 3").unwrap().ready().await.unwrap_err();
        assert!(error.to_string().contains("exit status: 3"), "{error}");
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = Successor::run(Path::new("/nonexistent/flurry"), Vec::new(), &offer()).unwrap_err();
        assert!(error.to_string().starts_with("/nonexistent/flurry cannot be started: "), "{error}");
    }

    #[tokio::test]
    async fn a_successor_that_is_no_longer_wanted_is_killed() {
        let successor = run("exec sleep 60").unwrap();
        let pid = successor.child.as_ref().unwrap().id();
        drop(successor);
        assert!(!Path::new(&format!("/proc/{pid}")).exists());
    }

    #[test]
    fn a_program_is_found_again_by_the_name_it_was_started_with() {
        assert_eq!(program(Some("flurry".into())), Path::new("flurry"));
        assert!(program(Some("./flurry".into())).is_absolute());
        assert_eq!(program(Some("/opt/flurry".into())), Path::new("/opt/flurry"));
    }
}
