//! The whole of the initial RAM disk: load the virtio drivers, mount the root disk, become its init.
//!
//! A distribution's initrd finds any disk on any machine and takes seconds of emulated time for it.
//! Ours knows its machine: the drivers lie in `/modules` in the order of `/modules/order`, the root
//! disk is what `root=` says. It does no more than that; everything else is the real init's work.
//!
//! ```text
//! devtmpfs, proc -> modules -> wait for root= -> mount -> switch root -> exec init=
//! ```

use std::ffi::CString;
use std::fs;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::sys;

/// How long the root disk may take to appear after its driver is loaded.
const ROOT_DISK_DEADLINE: Duration = Duration::from_secs(20);
const NAP: Duration = Duration::from_millis(2);

/// The parts of the kernel command line that the first stage obeys.
#[derive(Debug, PartialEq, Eq)]
struct BootLine {
    root: String,
    fstype: String,
    init: String,
    read_only: bool,
}

impl BootLine {
    fn parse(line: &str) -> Self {
        let mut boot = Self {
            root: "/dev/vda".into(),
            fstype: "ext4".into(),
            init: "/sbin/init".into(),
            read_only: false,
        };
        for word in line.split_whitespace() {
            match word.split_once('=') {
                Some(("root", v)) => boot.root = v.into(),
                Some(("rootfstype", v)) => boot.fstype = v.into(),
                Some(("init", v)) => boot.init = v.into(),
                None if word == "ro" => boot.read_only = true,
                _ => {}
            }
        }
        boot
    }
}

/// Runs the first stage. Returns only on failure, with what was tried.
pub(crate) fn run() -> String {
    match boot() {
        Ok(never) => match never {},
        Err(why) => why,
    }
}

fn boot() -> Result<std::convert::Infallible, String> {
    for (kind, at) in [("devtmpfs", "/dev"), ("proc", "/proc")] {
        sys::mount(kind, at, kind, false).map_err(|e| format!("mounting {kind} on {at}: {e}"))?;
    }
    let line = fs::read_to_string("/proc/cmdline").map_err(|e| format!("reading /proc/cmdline: {e}"))?;
    let boot = BootLine::parse(&line);
    load_modules(Path::new("/modules"))?;
    wait_for(&boot.root)?;
    sys::mount(&boot.root, "/root", &boot.fstype, boot.read_only)
        .map_err(|e| format!("mounting {} ({}) as root: {e}", boot.root, boot.fstype))?;
    for at in ["/dev", "/proc"] {
        sys::move_mount(at, &format!("/root{at}"))
            .map_err(|e| format!("moving {at} to the root disk: {e}"))?;
    }
    sys::switch_root("/root").map_err(|e| format!("switching to the root disk: {e}"))?;
    let init = CString::new(boot.init.as_str()).map_err(|_| "init= holds a zero byte".to_string())?;
    Err(format!("starting {}: {}", boot.init, sys::exec(&init)))
}

/// Loads the modules in the listed order. One that fails is named and skipped: the root disk may not need it.
fn load_modules(dir: &Path) -> Result<(), String> {
    let order = dir.join("order");
    let list = fs::read_to_string(&order).map_err(|e| format!("reading {}: {e}", order.display()))?;
    for name in list.lines().filter(|l| !l.is_empty()) {
        let loaded = fs::File::open(dir.join(name)).and_then(|file| sys::load_module(&file));
        if let Err(e) = loaded {
            eprintln!("flurry: module {name}: {e}");
        }
    }
    Ok(())
}

fn wait_for(device: &str) -> Result<(), String> {
    let started = Instant::now();
    while !Path::new(device).exists() {
        if started.elapsed() > ROOT_DISK_DEADLINE {
            return Err(format!("root disk {device} did not appear within {ROOT_DISK_DEADLINE:?}"));
        }
        sleep(NAP);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bare_command_line_boots_the_first_virtio_disk_writable() {
        let boot = BootLine::parse("console=ttyS0 quiet");
        assert_eq!((boot.root.as_str(), boot.fstype.as_str(), boot.read_only), ("/dev/vda", "ext4", false));
    }

    #[test]
    fn the_last_mention_of_a_root_wins() {
        let boot = BootLine::parse("root=/dev/vdb root=/dev/vdc rootfstype=xfs ro init=/bin/sh\n");
        assert_eq!(boot.root, "/dev/vdc");
        assert_eq!((boot.fstype.as_str(), boot.init.as_str(), boot.read_only), ("xfs", "/bin/sh", true));
    }

    #[test]
    fn a_missing_module_list_is_named() {
        let dir = std::env::temp_dir().join("flurry-no-such-modules");
        assert!(load_modules(&dir).is_err_and(|why| why.contains("flurry-no-such-modules/order")));
    }
}
