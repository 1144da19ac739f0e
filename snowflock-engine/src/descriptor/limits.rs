//! Every bound on a descriptor, with its reason. Both encoder and decoder keep them.

use crate::memory::PAGE_BYTES;

/// Device state before compression, bytes. A machine of few devices has 0.3 to 0.4 MB; what is
/// longer than this holds guest memory.
pub const MAX_DEVICE_STATE: usize = 16 << 20;

/// A descriptor file, bytes. Room for the largest device state even if it does not compress.
pub const MAX_FILE: usize = MAX_DEVICE_STATE + (1 << 20);

/// vCPUs of a VM: what [`crate::hypervisor::Machine`] can count.
pub const MAX_VCPUS: u16 = u8::MAX as u16;

/// The smallest page of any architecture here, bytes.
pub const MIN_PAGE_BYTES: u32 = 4 << 10;

/// The largest base page (not huge page) of any architecture here, bytes: aarch64 has 64 KiB.
pub const MAX_PAGE_BYTES: u32 = 64 << 10;

/// Pages of a VM: the engine counts and numbers them in 32 bits.
pub const MAX_PAGES: u64 = u32::MAX as u64;

/// Regions of memory. QEMU and Xen split RAM at most in a few places (holes for devices, NUMA nodes).
pub const MAX_REGIONS: usize = 64;

/// Layers of a disk: one for each generation of clones of clones, and reads slow down with each.
pub const MAX_LAYERS: usize = 64;

/// A path, bytes: Linux' `PATH_MAX` without its final zero.
pub const MAX_PATH: usize = 4095;

/// A short name, bytes: words such as `qemu`, `kvm`, `qcow2`.
pub const MAX_NAME: usize = 32;

/// A hypervisor's version text, bytes: QEMU's with its package version takes 45.
pub const MAX_VERSION: usize = 128;

/// A parent's name, bytes: a file name's limit, and the parent's folder is named after it.
pub const MAX_PARENT: usize = 255;

/// An address block as text, bytes: `255.255.255.255/32`.
pub const MAX_BLOCK: usize = 18;

/// Deflate cannot shrink anything by more than this factor (RFC 1951: 258 bytes in two bits, and
/// some header), so a greater claim is a lie that can be told before any memory is set aside for it.
pub const MAX_INFLATION: usize = 1032;

/// All sections but the device state at their longest, with their headers; see FORMAT.md.
const MAX_SMALL_SECTIONS: usize = (6 + 44)
    + (6 + 16)
    + (6 + 3 + 2 * MAX_NAME + MAX_VERSION)
    + (6 + 2 + MAX_REGIONS * 16)
    + (6 + 10 + MAX_LAYERS * (2 + MAX_PATH + 1 + MAX_NAME))
    + (6 + 2 + MAX_PARENT + MAX_BLOCK + 14);

/// The device state section when nothing of it compresses: zlib then stores blocks of at least
/// 16 KiB with 5 bytes each, and 6 bytes around all.
const MAX_STATE_SECTION: usize = 6 + 4 + MAX_DEVICE_STATE + (MAX_DEVICE_STATE >> 14) * 5 + 11;

/// What can be described can be written and read again.
const _: () = assert!(12 + MAX_SMALL_SECTIONS + MAX_STATE_SECTION + 4 <= MAX_FILE);
/// Lengths are u32 in the file.
const _: () = assert!(MAX_FILE <= u32::MAX as usize);
/// Lengths of texts are u8, of paths and counts u16.
const _: () = assert!(MAX_NAME <= 255 && MAX_VERSION <= 255 && MAX_PARENT <= 255 && MAX_BLOCK <= 255);
const _: () = assert!(MAX_PATH <= 65535 && MAX_REGIONS <= 65535 && MAX_LAYERS <= 65535);
/// The largest memory in bytes does not overflow.
const _: () = assert!(MAX_PAGES <= u64::MAX / MAX_PAGE_BYTES as u64);
/// The engine's own page is one that can be described.
const _: () = assert!(PAGE_BYTES >= MIN_PAGE_BYTES as usize && PAGE_BYTES <= MAX_PAGE_BYTES as usize);
