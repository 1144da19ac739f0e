//! Network namespaces: a thread that lives in one and makes sockets and devices there.
//!
//! A socket belongs for life to the namespace in which it was made, whoever uses
//! it later. So the balancer, in the host's namespace, talks to clones through
//! sockets made here, and no route of the host changes.

use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::mpsc::{Sender, channel};

use nix::sched::{CloneFlags, setns};

type Job = Box<dyn FnOnce() + Send>;

/// A thread inside a network namespace that runs what it is given. It ends when this is dropped.
#[derive(Debug, Clone)]
pub struct NamespaceThread {
    jobs: Sender<Job>,
}

impl NamespaceThread {
    /// Starts the thread in the namespace at `path` (such as `/run/netns/NAME`).
    ///
    /// # Errors
    /// There is no such namespace, or this process may not enter it.
    pub fn start(path: &Path) -> io::Result<Self> {
        let namespace = File::open(path)?;
        let (jobs, inbox) = channel::<Job>();
        let (entered, answer) = channel();
        std::thread::Builder::new().name("netns".into()).spawn(move || {
            let result = setns(&namespace, CloneFlags::CLONE_NEWNET);
            let stay = result.is_ok();
            let _ = entered.send(result);
            if stay {
                inbox.into_iter().for_each(|job| job());
            }
        })?;
        answer.recv().map_err(io::Error::other)??;
        Ok(Self { jobs })
    }

    /// Hands over a job without waiting for it.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn submit(&self, job: impl FnOnce() + Send + 'static) -> io::Result<()> {
        self.jobs.send(Box::new(job)).map_err(|_| io::ErrorKind::BrokenPipe.into())
    }

    /// Runs a job there and waits for its result.
    ///
    /// # Errors
    /// The thread has ended.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let (send, receive) = channel();
        self.submit(move || {
            let _ = send.send(job());
        })?;
        receive.recv().map_err(io::Error::other)
    }
}
