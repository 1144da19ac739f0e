//! Our initial RAM disks: one program as `/init`, the drivers it needs, and nothing else.
//!
//! A cpio archive of the "newc" kind (initramfs buffer format in the kernel's documentation), not
//! compressed: it is under 2 MiB, and unpacking costs an emulated CPU more than reading.

use std::fs;
use std::path::{Path, PathBuf};

use crate::commands;
use crate::error::{ImageError, OnFile};

/// The drivers of a guest's devices, loaded in this order, each after what it depends on.
pub(crate) const GUEST_DRIVERS: [&str; 5] =
    ["virtio_pci", "virtio_blk", "virtio_console", "virtio_net", "virtio_balloon"];

const DIRECTORY: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;
const PLAIN: u32 = 0o100_644;
const CONSOLE: u32 = 0o020_600;
/// `/dev/console`: character device 5, 1.
const CONSOLE_DEVICE: (u32, u32) = (5, 1);

/// The whole archive for the kernel release whose modules are in `modules` (`lib/modules/RELEASE`).
/// A driver may be followed by a blank and its parameters, which are handed on to `init`.
pub(crate) fn archive(init: &Path, modules: &Path, drivers: &[&str]) -> Result<Vec<u8>, ImageError> {
    let mut cpio = Cpio::default();
    for dir in ["dev", "proc", "root", "sys", "modules"] {
        cpio.entry(dir, DIRECTORY, (0, 0), &[]);
    }
    cpio.entry("dev/console", CONSOLE, CONSOLE_DEVICE, &[]);
    cpio.entry("init", PROGRAM, (0, 0), &fs::read(init).on("reading", init)?);
    let parameters = |name: &str| drivers.iter().find_map(|d| d.strip_prefix(name)?.strip_prefix(' '));
    let names: Vec<&str> = drivers.iter().filter_map(|driver| driver.split(' ').next()).collect();
    let mut order = String::new();
    for module in load_order(modules, &names)? {
        let name = module_name(&module);
        order += &format!("{name}.ko {}", parameters(&name).unwrap_or_default());
        order.truncate(order.trim_end().len());
        order += "\n";
        cpio.entry(&format!("modules/{name}.ko"), PLAIN, (0, 0), &module_bytes(&modules.join(&module))?);
    }
    cpio.entry("modules/order", PLAIN, (0, 0), order.as_bytes());
    Ok(cpio.finish())
}

/// The drivers' module files, dependencies first, each once. A driver built into the kernel has none.
fn load_order(modules: &Path, drivers: &[&str]) -> Result<Vec<PathBuf>, ImageError> {
    let read = |file: &str| fs::read_to_string(modules.join(file)).on("reading", &modules.join(file));
    let (dependencies, builtin) = (read("modules.dep")?, read("modules.builtin")?);
    let mut order: Vec<PathBuf> = Vec::new();
    for driver in drivers.iter().copied() {
        let line = dependencies.lines().find(|line| {
            line.split_once(':').is_some_and(|(file, _)| module_name(Path::new(file)) == driver)
        });
        let Some((file, needs)) = line.and_then(|line| line.split_once(':')) else {
            if builtin.lines().any(|file| module_name(Path::new(file)) == driver) {
                continue;
            }
            return Err(ImageError::Incomplete(format!("the kernel module {driver}")));
        };
        // depmod lists the nearest dependency first; the farthest must be loaded first.
        for module in needs.split_whitespace().rev().chain([file]).map(PathBuf::from) {
            if !order.contains(&module) {
                order.push(module);
            }
        }
    }
    Ok(order)
}

/// `kernel/net/core/net-failover.ko.xz` is the module `net_failover`.
fn module_name(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default().to_string_lossy().into_owned();
    name.split('.').next().unwrap_or_default().replace('-', "_")
}

/// A module's bytes, unpacked if the distribution packs them.
fn module_bytes(file: &Path) -> Result<Vec<u8>, ImageError> {
    let unpacker = match file.extension().and_then(|e| e.to_str()) {
        Some("xz") => "xz",
        Some("zst") => "zstd",
        _ => return fs::read(file).on("reading", file),
    };
    commands::output(unpacker, |c| {
        c.arg("-dc").arg(file);
    })
}

/// A growing cpio archive.
#[derive(Default)]
struct Cpio {
    bytes: Vec<u8>,
    entries: u32,
}

impl Cpio {
    fn entry(&mut self, name: &str, mode: u32, (major, minor): (u32, u32), data: &[u8]) {
        self.entries += 1;
        let fields =
            [self.entries, mode, 0, 0, 1, 0, data.len() as u32, 0, 0, major, minor, name.len() as u32 + 1, 0];
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes().chain([0]));
        self.pad(4);
        self.bytes.extend(data);
        self.pad(4);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, (0, 0), &[]);
        self.pad(512);
        self.bytes
    }

    fn pad(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }
}

#[cfg(test)]
mod tests;
