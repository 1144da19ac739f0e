//! The virtio-serial port: found by its name in sysfs (no udev needed), opened once, read and written blocking.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use snowflock_engine::wire::{GuestMessage, MAX_FRAME, PORT_NAME};

use crate::sys;

const CLASS: &str = "/sys/class/virtio-ports";
/// How long the port's driver may take to appear.
const APPEAR_DEADLINE: Duration = Duration::from_secs(30);
const NAP: Duration = Duration::from_millis(10);

/// The open port.
pub(crate) struct Port {
    file: File,
}

impl Port {
    /// Opens `path`, or the port of our name as soon as there is one.
    pub(crate) fn open(path: Option<&Path>) -> Result<Self, String> {
        let path = path.map_or_else(wait_for_port, |p| Ok(p.to_path_buf()))?;
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .open(&path)
            .map_err(|e| format!("opening the port {}: {e}", path.display()))?;
        Ok(Self { file })
    }

    /// Lets it be waited for.
    pub(crate) fn add_to(&self, watch: &mut sys::Watch) {
        watch.add(&self.file);
    }

    pub(crate) fn file(&self) -> &File {
        &self.file
    }

    /// Sends a message; waits while no host is connected.
    pub(crate) fn send(&mut self, message: &GuestMessage) -> Result<(), String> {
        let mut out = [0; MAX_FRAME];
        self.file.write_all(message.encode(&mut out)).map_err(|e| format!("writing to the port: {e}"))
    }

    /// Waits for bytes; 0 when the host has hung up.
    pub(crate) fn read(&mut self, room: &mut [u8]) -> Result<usize, String> {
        loop {
            match self.file.read(room) {
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                other => return other.map_err(|e| format!("reading from the port: {e}")),
            }
        }
    }

    /// Are there bytes to read within `timeout`? A host that has hung up counts as silent.
    pub(crate) fn readable_within(&self, timeout: Duration) -> Result<bool, String> {
        let began = Instant::now();
        let readable =
            sys::readable_within(&self.file, timeout).map_err(|e| format!("polling the port: {e}"))?;
        if !readable {
            // With nobody connected poll() returns at once.
            sleep(timeout.saturating_sub(began.elapsed()));
        }
        Ok(readable)
    }
}

fn wait_for_port() -> Result<PathBuf, String> {
    let began = Instant::now();
    loop {
        if let Some(path) = find_port(Path::new(CLASS)) {
            return Ok(path);
        }
        if began.elapsed() > APPEAR_DEADLINE {
            return Err(format!("no virtio-serial port is named {PORT_NAME} after {APPEAR_DEADLINE:?}"));
        }
        sleep(NAP);
    }
}

/// The device of the port whose `name` file holds our name.
fn find_port(class: &Path) -> Option<PathBuf> {
    let ours = |dir: &fs::DirEntry| {
        fs::read_to_string(dir.path().join("name")).is_ok_and(|name| name.trim() == PORT_NAME)
    };
    let found = fs::read_dir(class).ok()?.flatten().find(ours)?;
    Some(Path::new("/dev").join(found.file_name()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_found_by_name_among_others() {
        let class = tempfile::tempdir().expect("temporary directory");
        for (device, name) in [("vport1p1", "org.qemu.guest_agent.0\n"), ("vport1p2", "org.flurry.agent.0\n")]
        {
            fs::create_dir(class.path().join(device)).expect("directory");
            fs::write(class.path().join(device).join("name"), name).expect("file");
        }
        assert_eq!(find_port(class.path()), Some(PathBuf::from("/dev/vport1p2")));
    }

    #[test]
    fn a_port_that_cannot_be_opened_is_named() {
        let missing = Path::new("/nonexistent/port");
        assert!(Port::open(Some(missing)).is_err_and(|why| why.contains("/nonexistent/port")));
    }
}
