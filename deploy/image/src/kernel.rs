//! A bzImage's kernel, unpacked: it can be started as an ELF file (PVH) without the room and the time
//! that unpacking itself takes it.

use std::fs;
use std::path::Path;

use crate::commands;
use crate::error::{ImageError, OnFile};

/// The boot protocol's name, in the setup header (Documentation/arch/x86/boot.rst in the kernel).
const HEADER_MAGIC: (usize, &[u8]) = (0x202, b"HdrS");
const SETUP_SECTORS: usize = 0x1f1;
const PAYLOAD_OFFSET: usize = 0x248;
const PAYLOAD_LENGTH: usize = 0x24c;
const SECTOR: usize = 512;
/// The unpacked size, which the kernel's build appends to what it packs.
const SIZE: usize = 4;
const ELF: &[u8] = b"\x7fELF";

/// How kernels are packed: magic, program, Debian package, ending of file names.
const PACKINGS: [(&[u8], &str, &str, &str); 4] = [
    (b"\x02\x21\x4c\x18", "lz4", "lz4", "lz4"),
    (b"\x28\xb5\x2f\xfd", "zstd", "zstd", "zst"),
    (b"\xfd7zXZ\x00", "xz", "xz-utils", "xz"),
    (b"\x1f\x8b", "gzip", "gzip", "gz"),
];

/// Unpacks the kernel in `bzimage` to the file `to`, working in `scratch`.
pub(crate) fn unpack(bzimage: &Path, to: &Path, scratch: &Path) -> Result<(), ImageError> {
    let image = fs::read(bzimage).on("reading", bzimage)?;
    let incomplete =
        || ImageError::Incomplete(format!("a kernel that can be unpacked in {}", bzimage.display()));
    let packed = payload(&image).ok_or_else(incomplete)?;
    let known = PACKINGS.into_iter().find(|(magic, ..)| packed.starts_with(magic));
    let (_, program, package, ending) = known.ok_or_else(incomplete)?;
    commands::require(&[(program, package)])?;
    // gzip keeps that size as part of its own format.
    let end = packed.len() - if program == "gzip" { 0 } else { SIZE };
    let part = scratch.join("kernel").with_extension(ending);
    fs::write(&part, &packed[..end]).on("writing", &part)?;
    let kernel = commands::output(program, |c| {
        c.arg("-dc").arg(&part);
    })?;
    if !kernel.starts_with(ELF) {
        return Err(incomplete());
    }
    fs::write(to, kernel).on("writing", to)
}

/// The packed kernel in a bzImage.
fn payload(image: &[u8]) -> Option<&[u8]> {
    let word = |at: usize| Some(u32::from_le_bytes(image.get(at..at + 4)?.try_into().ok()?) as usize);
    if !image.get(HEADER_MAGIC.0..)?.starts_with(HEADER_MAGIC.1) {
        return None;
    }
    // 0 stands for 4, for the oldest boot loaders' sake.
    let sectors = match usize::from(*image.get(SETUP_SECTORS)?) {
        0 => 4,
        sectors => sectors,
    };
    let start = ((sectors + 1) * SECTOR).checked_add(word(PAYLOAD_OFFSET)?)?;
    let end = start.checked_add(word(PAYLOAD_LENGTH)?)?;
    image.get(start..end).filter(|packed| packed.len() > SIZE)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bzimage(packed: &[u8]) -> Vec<u8> {
        let mut image = vec![0; 2 * SECTOR];
        image[SETUP_SECTORS] = 1;
        image[HEADER_MAGIC.0..HEADER_MAGIC.0 + 4].copy_from_slice(HEADER_MAGIC.1);
        image[PAYLOAD_LENGTH..PAYLOAD_LENGTH + 4].copy_from_slice(&(packed.len() as u32).to_le_bytes());
        image.extend(packed);
        image
    }

    #[test]
    fn a_packed_kernel_is_unpacked() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let plain = dir.path().join("plain");
        fs::write(&plain, b"\x7fELF and the rest").expect("written");
        let mut packed = commands::output("xz", |c| {
            c.args(["-c", "--check=crc32"]).arg(&plain);
        })
        .expect("packed");
        packed.extend([0; SIZE]);
        let (image, to) = (dir.path().join("vmlinuz"), dir.path().join("vmlinux"));
        fs::write(&image, bzimage(&packed)).expect("written");
        unpack(&image, &to, dir.path()).expect("unpacked");
        assert_eq!(fs::read(&to).expect("there"), b"\x7fELF and the rest");
    }

    #[test]
    fn what_is_no_kernel_or_cut_short_is_named() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let image = dir.path().join("vmlinuz");
        let whole = bzimage(b"not packed in any known way");
        for bytes in [&whole[..], &whole[..whole.len() - 1], &whole[..100], b""] {
            fs::write(&image, bytes).expect("written");
            let said =
                unpack(&image, &dir.path().join("out"), dir.path()).expect_err("no kernel").to_string();
            assert!(said.contains("vmlinuz"), "{said}");
        }
    }
}
