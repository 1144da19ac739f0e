//! What belongs to the whole system rather than to one interface: boot id, machine id, power.

use std::fs;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

use crate::sys;

const MACHINE_ID: &str = "/etc/machine-id";
/// 32 digits and a newline.
const LENGTH: u64 = 33;
const HEX: &[u8; 16] = b"0123456789abcdef";

/// The kernel's boot id; zeros when there is none to read.
pub(crate) fn boot_id() -> [u8; 16] {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
    parse_hex(&text).unwrap_or_default()
}

/// Sixteen bytes in hexadecimal; dashes and white space do not count.
fn parse_hex(text: &str) -> Option<[u8; 16]> {
    let digits: Vec<u8> = text.chars().filter_map(|c| c.to_digit(16).map(|d| d as u8)).collect();
    let pairs: Vec<u8> = digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect();
    pairs.try_into().ok()
}

/// `/etc/machine-id`, kept open: renewing it is one write in place.
///
/// Truncating and writing anew, the usual way, makes ext4 start writing to the disk at once.
pub(crate) struct MachineId {
    file: Option<File>,
}

impl MachineId {
    /// Opens the file, if there is one of the usual form.
    pub(crate) fn open() -> Self {
        let usual = |file: &File| file.metadata().is_ok_and(|about| about.len() == LENGTH);
        let file = OpenOptions::new().write(true).open(MACHINE_ID).ok();
        Self { file: file.filter(usual) }
    }

    /// Gives the machine a new random id.
    pub(crate) fn renew(&mut self) -> io::Result<()> {
        let id = new_machine_id(sys::random()?);
        if self.file.is_none() {
            fs::write(MACHINE_ID, id)?;
            *self = Self::open();
            return Ok(());
        }
        self.file.as_ref().map_or(Ok(()), |file| file.write_all_at(&id, 0))
    }
}

/// A machine id in the form of a version 4 UUID without dashes, as machine-id(5) wants it, and a newline.
fn new_machine_id(mut bytes: [u8; 16]) -> [u8; LENGTH as usize] {
    bytes[6] = bytes[6] & 0x0F | 0x40;
    bytes[8] = bytes[8] & 0x3F | 0x80;
    let mut text = [b'\n'; LENGTH as usize];
    for (pair, byte) in text.chunks_exact_mut(2).zip(bytes) {
        pair[0] = HEX[usize::from(byte >> 4)];
        pair[1] = HEX[usize::from(byte & 15)];
    }
    text
}

/// Powers the machine off: through systemd if it is the init, else at once.
pub(crate) fn power_off() -> io::Result<()> {
    if Path::new("/run/systemd/system").exists() {
        sys::ask_systemd_to_power_off()
    } else {
        sys::power_off_now()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_boot_id_is_read_with_its_dashes() {
        let id = parse_hex("00112233-4455-6677-8899-aabbccddeeff\n");
        assert_eq!(id.map(|b| (b[0], b[1], b[15])), Some((0x00, 0x11, 0xFF)));
        assert_eq!(parse_hex("0011"), None);
    }

    #[test]
    fn a_machine_id_is_a_uuid_of_version_4_in_digits_and_a_newline() {
        assert_eq!(&new_machine_id([0; 16]), b"00000000000040008000000000000000\n");
        assert_eq!(&new_machine_id([0xFF; 16]), b"ffffffffffff4fffbfffffffffffffff\n");
    }
}
