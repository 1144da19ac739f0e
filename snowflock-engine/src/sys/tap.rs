//! Tap devices: the host's end of a guest's network card.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;

const IOCTL_TUNSETIFF: u64 = 0x4004_54ca;
const IFF_TAP: u16 = 0x0002;
const IFF_NO_PI: u16 = 0x1000;
/// Packets carry a virtio header, so checksums and segmentation are left to whoever needs them.
const IFF_VNET_HDR: u16 = 0x4000;
const NAME_BYTES: usize = 16;

#[repr(C)]
struct InterfaceRequest {
    name: [u8; NAME_BYTES],
    flags: u16,
    rest: [u8; 22],
}

/// Creates a tap device in the namespace of the calling thread. It lives as long as the file is open.
///
/// # Errors
/// The name is empty, longer than 15 bytes or taken; no `/dev/net/tun`; no right to it.
pub fn create(name: &str) -> io::Result<File> {
    if name.is_empty() || name.len() >= NAME_BYTES {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, format!("interface name {name:?}")));
    }
    let device = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    let mut request =
        InterfaceRequest { name: [0; NAME_BYTES], flags: IFF_TAP | IFF_NO_PI | IFF_VNET_HDR, rest: [0; 22] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: TUNSETIFF takes a `struct ifreq` of 40 bytes, which this is.
    if unsafe { libc::ioctl(device.as_raw_fd(), IOCTL_TUNSETIFF as _, &raw mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(device)
}

const _: () = assert!(size_of::<InterfaceRequest>() == 40, "struct ifreq of 64-bit Linux");
