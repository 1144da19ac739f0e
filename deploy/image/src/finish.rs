//! From a tree of Debian packages to a guest: our programs, their units, and no more boot than it takes.
//!
//! A guest has four virtio devices that the initial RAM disk knows, no user at a console and a life
//! of minutes. What a general system does for hotplug, logins, encrypted disks and upkeep is masked,
//! by the means that systemd offers to an administrator: links to /dev/null.

use std::fs;
use std::path::PathBuf;

use crate::error::{ImageError, OnFile};
use crate::inputs::Inputs;
use crate::place::Tree;
use crate::spec::Packages;

/// Files of ours in every guest: path and text.
const FILES: [(&str, &str); 4] = [
    ("/etc/systemd/system/flurry-agent.service", include_str!("../guest/flurry-agent.service")),
    ("/etc/systemd/journald.conf.d/flurry.conf", include_str!("../guest/journald.conf")),
    ("/etc/hosts", "127.0.0.1 localhost\n"),
    // Otherwise systemd looks for a policy that is not there.
    ("/etc/selinux/config", "SELINUX=disabled\n"),
];
/// And in the demo guest.
const DEMO_FILES: [(&str, &str); 3] = [
    ("/etc/systemd/system/flurry-demo.service", include_str!("../guest/flurry-demo.service")),
    ("/etc/systemd/system/nginx.service", include_str!("../guest/nginx.service")),
    ("/etc/nginx/nginx.conf", include_str!("../guest/nginx.conf")),
];
const WANTED: &str = "/etc/systemd/system/sysinit.target.wants";
const AGENT: &str = "/usr/sbin/flurry-agent";
/// The same program under another name: SnowFlock's calls for the shell.
const SF: &str = "/usr/bin/sf";
const DEMO_APP: &str = "/usr/bin/flurry-demo";

/// Units that a guest has no use for.
const MASKED: &str = include_str!("../guest/masked-units");
/// Removed from the tree: what a running guest never reads.
const CLEARED: [&str; 4] = ["/boot", "/var/cache/apt", "/var/cache/debconf", "/var/lib/apt/lists"];

/// The digest of an image covers these as well: a changed unit makes another image.
pub(crate) fn add_to(inputs: &mut Inputs) {
    for (path, text) in FILES.iter().chain(&DEMO_FILES) {
        inputs.add(path, text.as_bytes());
    }
    inputs.add("masked", MASKED.as_bytes());
    inputs.add(SF, AGENT.as_bytes());
}

/// Finishes the tree.
pub(crate) fn finish(tree: &Tree, wanted: &Packages) -> Result<(), ImageError> {
    for (path, text) in FILES {
        tree.write(path, text)?;
    }
    tree.program(AGENT, &wanted.agent)?;
    tree.link(SF, AGENT)?;
    tree.link(&format!("{WANTED}/flurry-agent.service"), "../flurry-agent.service")?;
    fs::create_dir_all(tree.at("/etc/flurry/hooks.d")?).on("creating", tree.root())?;
    if let Some(app) = &wanted.demo_app {
        demo(tree, app)?;
    }
    name_nobody(tree)?;
    for line in MASKED.lines().filter(|line| line.starts_with('/')) {
        tree.link(line, "/dev/null")?;
    }
    tree.link("/etc/systemd/system/default.target", "/lib/systemd/system/multi-user.target")?;
    for copied in &wanted.copy {
        tree.copy(&copied.to.to_string_lossy(), &copied.from)?;
    }
    CLEARED.iter().try_for_each(|dir| tree.clear(dir))
}

fn demo(tree: &Tree, app: &std::path::Path) -> Result<(), ImageError> {
    for (path, text) in DEMO_FILES {
        tree.write(path, text)?;
    }
    tree.program(DEMO_APP, app)?;
    // Early and at the same time: neither waits for the other, nor for the rest of the boot.
    for unit in ["flurry-demo.service", "nginx.service"] {
        tree.link(&format!("{WANTED}/{unit}"), &format!("../{unit}"))?;
    }
    tree.remove("/etc/systemd/system/multi-user.target.wants/nginx.service")
}

/// What makes one machine differ from another is left to the boot and the agent.
fn name_nobody(tree: &Tree) -> Result<(), ImageError> {
    tree.write("/etc/machine-id", "")?;
    tree.write("/etc/hostname", "guest\n")?;
    tree.write("/etc/fstab", "")?;
    tree.remove("/var/lib/dbus/machine-id")?;
    tree.remove("/var/lib/systemd/random-seed")
}

/// The kernel and the directory of its modules. Of several kernels the last by name is taken.
pub(crate) fn kernel(tree: &Tree) -> Result<(PathBuf, PathBuf), ImageError> {
    let boot = tree.at("/boot")?;
    let kernels = fs::read_dir(&boot).into_iter().flatten().flatten().map(|e| e.file_name());
    let names = kernels.map(|name| name.to_string_lossy().into_owned());
    let release = names.filter_map(|name| name.strip_prefix("vmlinuz-").map(String::from)).max();
    let release = release.ok_or_else(|| ImageError::Incomplete("a kernel in /boot".into()))?;
    let modules = tree.at(&format!("/lib/modules/{release}"))?;
    Ok((boot.join(format!("vmlinuz-{release}")), modules))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_masked_unit_is_an_absolute_path_under_systemds_directories() {
        let entries = MASKED.lines().filter(|l| !l.is_empty() && !l.starts_with('#'));
        for entry in entries {
            assert!(entry.starts_with("/etc/systemd/"), "{entry}");
        }
    }

    #[test]
    fn of_two_kernels_the_newer_is_taken_with_its_own_modules() {
        let dir = tempfile::tempdir().expect("temporary directory");
        fs::create_dir_all(dir.path().join("boot")).expect("directory");
        fs::create_dir_all(dir.path().join("lib/modules")).expect("directory");
        for release in ["6.1.0-10-cloud-amd64", "6.1.0-56-cloud-amd64"] {
            fs::write(dir.path().join(format!("boot/vmlinuz-{release}")), "").expect("file");
        }
        let (kernel, modules) = kernel(&Tree::new(dir.path().into())).expect("found");
        assert!(kernel.ends_with("boot/vmlinuz-6.1.0-56-cloud-amd64"));
        assert!(modules.ends_with("lib/modules/6.1.0-56-cloud-amd64"));
    }

    #[test]
    fn a_tree_without_a_kernel_is_told_to_lack_one() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let said = kernel(&Tree::new(dir.path().into())).expect_err("none").to_string();
        assert_eq!(said, "the package tree lacks a kernel in /boot");
    }
}
