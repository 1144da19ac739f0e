//! What a crash leaves, and how the next start removes it.
//!
//! Every process that the engine starts carries the state folder's path in its
//! environment from its first instruction, the network has the parent's name,
//! everything else is inside the state folder. A lock on the folder and one on the name keep two engines
//! apart; the kernel lifts them when their holder dies, however it dies.

use std::fs::{self, File};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::{Flock, FlockArg};

use crate::network::Network;
use crate::sys::process::owned_by;

const KILL_LIMIT: Duration = Duration::from_secs(5);
/// Written into the lock file, so that only a folder of ours is ever emptied.
const MARK: &str = "flurry state\n";

/// Why the state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Another engine holds it.
    #[error("{0} is in use by another running flurry; stop it, or choose another name or state_dir")]
    InUse(PathBuf),
    /// Another engine has the name, and with it the network.
    #[error("another running flurry has the name {0:?}; stop it, or choose another name")]
    NameInUse(String),
    /// It holds something else.
    #[error("{0} exists and is not a state folder of flurry; choose another state_dir")]
    Foreign(PathBuf),
    /// A system call failed.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: String,
        /// The system's reason.
        source: io::Error,
    },
    /// A process of a former run does not end.
    #[error("process {0} of a former run outlives SIGKILL")]
    Unkillable(u32),
    /// The network of a former run cannot be removed.
    #[error("cannot remove what a former run left")]
    Network(#[from] crate::network::NetworkError),
}

/// The state folder of one engine, held until this is dropped.
#[derive(Debug)]
pub(super) struct Ledger {
    folder: PathBuf,
    _lock: Flock<File>,
    _name: UnixListener,
}

impl Ledger {
    /// Takes the folder, and removes what a former run of this parent has left.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub(super) fn open(folder: &Path, parent: &str) -> Result<Self, LedgerError> {
        let system = |what: String| move |source| LedgerError::System { what, source };
        let name = take_name(parent)?;
        let mark = folder.join("flurry.lock");
        let is_new = !folder.exists() || is_empty(folder);
        if !is_new && fs::read_to_string(&mark).ok().as_deref() != Some(MARK) {
            return Err(LedgerError::Foreign(folder.into()));
        }
        fs::create_dir_all(folder).map_err(system(format!("create {}", folder.display())))?;
        if is_new {
            fs::write(&mark, MARK).map_err(system(format!("write {}", mark.display())))?;
        }
        let file = File::open(&mark).map_err(system(format!("open {}", mark.display())))?;
        let lock = Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|_| LedgerError::InUse(folder.into()))?;
        let ledger = Self { folder: folder.into(), _lock: lock, _name: name };
        ledger.clean(parent)?;
        Ok(ledger)
    }

    /// The folder.
    #[must_use]
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Removes all that is left, and the folder itself.
    ///
    /// # Errors
    /// See [`LedgerError`].
    pub(super) fn close(self, parent: &str) -> Result<(), LedgerError> {
        self.clean(parent)?;
        fs::remove_dir_all(&self.folder).map_err(|source| LedgerError::System {
            what: format!("remove {}", self.folder.display()),
            source,
        })
    }

    /// Ends every process that carries this folder's mark.
    pub(super) fn end_processes(&self) -> Result<(), LedgerError> {
        for process in owned_by(&self.folder) {
            tracing::debug!(pid = process.pid, "ending a process of ours");
            if !process.kill(KILL_LIMIT) {
                return Err(LedgerError::Unkillable(process.pid));
            }
        }
        Ok(())
    }

    /// VMs first: they hold the taps of the network and the files of the folder.
    fn clean(&self, parent: &str) -> Result<(), LedgerError> {
        self.end_processes()?;
        Network::remove(parent)?;
        for entry in fs::read_dir(&self.folder).into_iter().flatten().flatten() {
            let path = entry.path();
            let removed = match path.is_dir() {
                true => fs::remove_dir_all(&path),
                false if path.ends_with("flurry.lock") => Ok(()),
                false => fs::remove_file(&path),
            };
            removed.map_err(|source| LedgerError::System {
                what: format!("remove {}", path.display()),
                source,
            })?;
        }
        Ok(())
    }
}

/// An abstract socket that nobody connects to: unlike a file, it is gone with its holder.
fn take_name(parent: &str) -> Result<UnixListener, LedgerError> {
    let address = SocketAddr::from_abstract_name(format!("flurry-{parent}"));
    address.and_then(|address| UnixListener::bind_addr(&address)).map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => LedgerError::NameInUse(parent.into()),
        _ => LedgerError::System { what: format!("take the name {parent:?}"), source },
    })
}

fn is_empty(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|mut entries| entries.next().is_none())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::process::{ENV_OWNER, ProcessIdentity, owned_by};
    use std::process::Command;

    fn sleeper(owner: &Path) -> (std::process::Child, ProcessIdentity) {
        let child = Command::new("sleep").arg("60").env(ENV_OWNER, owner).spawn().unwrap();
        let identity = ProcessIdentity::of(child.id()).unwrap();
        // Between fork and exec it has another environment.
        while !owned_by(owner).contains(&identity) {
            std::thread::yield_now();
        }
        (child, identity)
    }

    #[test]
    fn the_next_start_ends_what_a_crash_has_left_and_nothing_else() {
        let base = tempfile::tempdir().unwrap();
        let folder = base.path().join("tier");
        drop(Ledger::open(&folder, "ledger-test-next").unwrap());
        let (mut ours, our_identity) = sleeper(&folder);
        let (mut other, other_identity) = sleeper(&base.path().join("tier-2"));
        fs::write(folder.join("rubbish"), "x").unwrap();
        let next = Ledger::open(&folder, "ledger-test-next").unwrap();
        assert!(!our_identity.is_alive());
        assert!(other_identity.is_alive(), "it belongs to another engine");
        assert!(!folder.join("rubbish").exists());
        next.close("ledger-test-next").unwrap();
        assert!(!folder.exists());
        other.kill().unwrap();
        ours.wait().unwrap();
        other.wait().unwrap();
    }

    #[test]
    fn two_engines_cannot_share_a_folder_or_a_name() {
        let base = tempfile::tempdir().unwrap();
        let (folder, other) = (base.path().join("tier"), base.path().join("other"));
        let _first = Ledger::open(&folder, "ledger-test-one").unwrap();
        assert!(matches!(Ledger::open(&folder, "ledger-test-two"), Err(LedgerError::InUse(_))));
        assert!(matches!(Ledger::open(&other, "ledger-test-one"), Err(LedgerError::NameInUse(_))));
        assert!(!other.exists());
    }

    #[test]
    fn a_folder_of_somebody_else_is_not_emptied() {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join("precious"), "x").unwrap();
        assert!(matches!(Ledger::open(base.path(), "ledger-test-foreign"), Err(LedgerError::Foreign(_))));
        assert!(base.path().join("precious").exists());
    }
}
