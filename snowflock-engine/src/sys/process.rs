//! Starting programs with chosen descriptors, ending them, and telling a
//! process from a later one with the same number.

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

/// Environment variable that every process started by an engine carries: the engine's state folder.
pub const ENV_OWNER: &str = "FLURRY_STATE";

/// Makes the child see our descriptor `ours` as its descriptor `theirs`, for each pair. The sources
/// must stay open until the child runs.
pub fn inherit(command: &mut Command, pairs: &[(RawFd, RawFd)]) {
    let pairs = pairs.to_vec();
    let mut moved = vec![-1; pairs.len()];
    let place = move || {
        // First all out of the way, above every target, so that no target overwrites a source.
        let above = pairs.iter().map(|(_, theirs)| theirs + 1).max().unwrap_or(0);
        for ((ours, _), moved) in pairs.iter().zip(&mut moved) {
            // SAFETY: between fork and exec only async-signal-safe calls on plain numbers.
            *moved = unsafe { libc::fcntl(*ours, libc::F_DUPFD_CLOEXEC, above) };
        }
        for ((_, theirs), moved) in pairs.iter().zip(&moved) {
            // SAFETY: as above. dup2 clears close-on-exec of the target.
            if *moved < 0 || unsafe { libc::dup2(*moved, *theirs) } < 0 {
                return Err(io::Error::last_os_error());
            }
        }
        Ok(())
    };
    // SAFETY: the closure allocates nothing and takes no lock.
    unsafe { command.pre_exec(place) };
}

/// Takes over a descriptor that the parent process left to this one. Call once for each number.
///
/// # Errors
/// There is none with this number.
pub fn inherited(fd: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: asks about a number only.
    if unsafe { libc::fcntl(fd, libc::F_SETFD, libc::FD_CLOEXEC) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the number is open, and by contract nobody else in this process owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A process that cannot be mistaken for a later one with the same number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProcessIdentity {
    /// Process number.
    pub pid: u32,
    /// Start time in clock ticks since boot, from `/proc/PID/stat`.
    pub started: u64,
}

impl ProcessIdentity {
    /// Of a running process; `None` if there is none with this number.
    #[must_use]
    pub fn of(pid: u32) -> Option<Self> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        Self::in_stat(pid, &stat)
    }

    /// Of a process whose `/proc/PID/stat` says this; `None` if it has ended.
    fn in_stat(pid: u32, stat: &str) -> Option<Self> {
        // The name in parentheses may hold anything; fields are counted from its end.
        let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
        let (state, threads) = (*fields.first()?, fields.get(17)?.parse::<u32>().ok()?);
        // A leader that has ended is a zombie for as long as other threads of its process run, or are on
        // their way out: memory and descriptors go with the last one.
        (state != "Z" || threads > 1).then_some(())?;
        Some(Self { pid, started: fields.get(19)?.parse().ok()? })
    }

    /// Whether it still runs.
    #[must_use]
    pub fn is_alive(self) -> bool {
        Self::of(self.pid) == Some(self)
    }

    /// Ends it at once and waits until it is gone; `false` if it outlived the deadline.
    #[must_use]
    pub fn kill(self, deadline: Duration) -> bool {
        let until = Instant::now() + deadline;
        while self.is_alive() {
            if Instant::now() > until {
                return false;
            }
            if let Err(Errno::ESRCH) = kill(Pid::from_raw(self.pid as i32), Signal::SIGKILL) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(2));
        }
        true
    }
}

/// The processes that carry this folder as their owner.
#[must_use]
pub fn owned_by(folder: &Path) -> Vec<ProcessIdentity> {
    let wanted = [ENV_OWNER.as_bytes(), b"=", folder.as_os_str().as_bytes()].concat();
    let carries = |pid: u32| {
        let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
        environment.split(|byte| *byte == 0).any(|entry| entry == wanted)
    };
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let numbers = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    numbers.filter(|pid| carries(*pid)).filter_map(ProcessIdentity::of).collect()
}

/// Sets the niceness of all threads of a process, -20 (first) to 19 (last); threads that it starts later
/// take it over from theirs. Without the right to it, or after the process's end, nothing changes.
pub fn set_niceness(process: ProcessIdentity, niceness: i32) {
    let threads = std::fs::read_dir(format!("/proc/{}/task", process.pid)).into_iter().flatten().flatten();
    for thread in threads.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()) {
        // SAFETY: numbers only.
        if unsafe { libc::setpriority(libc::PRIO_PROCESS, thread, niceness) } < 0 {
            tracing::debug!(pid = process.pid, thread, niceness, "niceness not changed");
        }
    }
}

/// Waits for the end of a process, which need not be a child. Returns at once if it has ended.
///
/// # Errors
/// No free file descriptor.
pub fn wait_for_end(process: ProcessIdentity) -> io::Result<()> {
    // SAFETY: numbers only.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, process.pid, 0) };
    if raw < 0 {
        let error = io::Error::last_os_error();
        return if error.raw_os_error() == Some(libc::ESRCH) { Ok(()) } else { Err(error) };
    }
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    let pidfd = unsafe { OwnedFd::from_raw_fd(raw as i32) };
    while process.is_alive() {
        let mut wait = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
        match poll(&mut wait, PollTimeout::NONE) {
            Ok(_) => return Ok(()),
            Err(Errno::EINTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_told_from_another_with_its_number() {
        let us = ProcessIdentity::of(std::process::id()).unwrap();
        assert!(us.is_alive());
        assert!(!ProcessIdentity { started: us.started + 1, ..us }.is_alive());
    }

    #[test]
    fn a_process_lives_until_its_last_thread_has_ended() {
        let stat = |state, threads: u32| {
            let zeros = "0 ".repeat(15);
            format!("7 (a) b) {state} 1 {zeros}{threads} 0 4711 0 0")
        };
        let of = |state, threads| ProcessIdentity::in_stat(7, &stat(state, threads));
        let alive = Some(ProcessIdentity { pid: 7, started: 4711 });
        assert_eq!([of("S", 1), of("S", 3), of("Z", 2), of("Z", 1)], [alive, alive, alive, None]);
    }

    #[test]
    fn all_threads_of_a_process_get_the_niceness() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        set_niceness(ProcessIdentity::of(child.id()).unwrap(), 7);
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        let niceness = stat.rsplit_once(')').unwrap().1.split_whitespace().nth(16).unwrap().to_owned();
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(niceness, "7");
    }

    #[test]
    fn a_killed_process_is_gone() {
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let identity = ProcessIdentity::of(child.id()).unwrap();
        assert!(identity.kill(Duration::from_secs(5)));
        child.wait().unwrap();
    }
}
