//! What a disk, a kernel or an initial RAM disk is, told from its first bytes. Nothing is believed from its name.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt;
use std::path::Path;

use serde::{Deserialize, Serialize};

const SECTOR: u64 = 512;
/// Far enough for the superblock of btrfs, the last of those looked for.
const HEAD: usize = 0x10048;
/// A qcow2 disk larger than this is a damaged header (64 TiB).
const MOST_BYTES: u64 = 64 << 40;

/// The format of a disk file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DiskFormat {
    /// The disk's bytes as they are.
    Raw,
    /// QEMU's format, version 2 or 3.
    Qcow2,
}

impl DiskFormat {
    /// The name that QEMU knows it by.
    pub fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }
}

/// A disk's format and its size as the guest sees it, in bytes.
///
/// # Errors
/// In words: it cannot be read, is of another format, or is not complete in itself.
pub(crate) fn probe(path: &Path) -> Result<(DiskFormat, u64), String> {
    let file = File::open(path).map_err(|e| e.to_string())?;
    let length = file.metadata().map_err(|e| e.to_string())?.len();
    let head = read_head(&file).map_err(|e| e.to_string())?;
    if let Some(other) = foreign_format(&head) {
        return Err(format!("is a {other} disk; convert it: qemu-img convert -O qcow2 OLD NEW"));
    }
    if head.starts_with(b"QFI\xfb") {
        return qcow2_size(&head).map(|bytes| (DiskFormat::Qcow2, bytes));
    }
    if length == 0 || length % SECTOR != 0 {
        return Err(format!("is no disk: {length} bytes are not a whole number of {SECTOR}-byte sectors"));
    }
    if has_file_system(&head) {
        Ok((DiskFormat::Raw, length))
    } else {
        Err("holds neither a qcow2 header nor a partition table nor a file system (ext4, xfs, btrfs)".into())
    }
}

fn read_head(file: &File) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(HEAD);
    file.take(HEAD as u64).read_to_end(&mut head)?;
    Ok(head)
}

fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..at + 4).map(|b| u32::from_be_bytes([b[0], b[1], b[2], b[3]]))
}

fn be64(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from(be32(bytes, at)?) << 32 | u64::from(be32(bytes, at + 4)?))
}

fn qcow2_size(head: &[u8]) -> Result<u64, String> {
    let field = |what: Option<u64>| what.ok_or("its qcow2 header is cut short");
    let version = field(be32(head, 4).map(u64::from))?;
    let backing = field(be64(head, 8))?;
    let bytes = field(be64(head, 24))?;
    let encryption = field(be32(head, 32).map(u64::from))?;
    if !(2..=3).contains(&version) {
        return Err(format!("is qcow version {version}; 2 and 3 can be used"));
    }
    if backing != 0 {
        return Err("has a backing file; make it complete: qemu-img convert -O qcow2 OLD NEW".into());
    }
    if encryption != 0 {
        return Err("is encrypted; decrypt it: qemu-img convert".into());
    }
    if bytes == 0 || bytes > MOST_BYTES {
        return Err(format!("its header claims a disk of {bytes} bytes"));
    }
    Ok(bytes)
}

fn at(head: &[u8], offset: usize, magic: &[u8]) -> bool {
    head.get(offset..offset + magic.len()) == Some(magic)
}

fn foreign_format(head: &[u8]) -> Option<&'static str> {
    let known: [(usize, &[u8], &str); 5] = [
        (0, b"KDMV", "VMDK"),
        (0, b"# Disk DescriptorFile", "VMDK"),
        (0, b"vhdxfile", "VHDX"),
        (0, b"conectix", "VHD"),
        (0x40, &[0x7f, 0x10, 0xda, 0xbe], "VDI"),
    ];
    known.iter().find(|(offset, magic, _)| at(head, *offset, magic)).map(|(_, _, name)| *name)
}

fn has_file_system(head: &[u8]) -> bool {
    let known: [(usize, &[u8]); 4] =
        [(510, &[0x55, 0xAA]), (0x438, &[0x53, 0xEF]), (0, b"XFSB"), (0x10040, b"_BHRfS_M")];
    known.iter().any(|(offset, magic)| at(head, *offset, magic))
}

/// What is wrong with a kernel file, if anything.
pub(crate) fn kernel_complaint(path: &Path) -> Option<String> {
    let mut head = [0; 0x206];
    let read = File::open(path).and_then(|file| file.read_exact_at(&mut head, 0));
    match read {
        Err(e) => Some(e.to_string()),
        Ok(()) if at(&head, 0x202, b"HdrS") || head.starts_with(b"\x7fELF") => None,
        Ok(()) => Some("is neither a bzImage nor an ELF kernel for x86".into()),
    }
}

/// What is wrong with an initial RAM disk, if anything.
pub(crate) fn initrd_complaint(path: &Path) -> Option<String> {
    let known: [&[u8]; 7] = [
        b"0707",
        &[0x1f, 0x8b],
        b"BZh",
        &[0xfd, b'7', b'z', b'X', b'Z'],
        &[0x28, 0xb5, 0x2f, 0xfd],
        &[0x02, 0x21, 0x4c, 0x18],
        &[0x5d, 0x00, 0x00],
    ];
    let mut head = [0; 5];
    match File::open(path).and_then(|file| file.read_exact_at(&mut head, 0)) {
        Err(e) => Some(e.to_string()),
        Ok(()) if known.iter().any(|magic| head.starts_with(magic)) => None,
        Ok(()) => Some("is neither a cpio archive nor a compressed one".into()),
    }
}

#[cfg(test)]
mod tests;
