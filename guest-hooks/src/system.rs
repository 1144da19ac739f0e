//! What belongs to the whole system rather than to one interface: boot id, machine id, host name, power.

use std::fs;
use std::io::{self, Read};
use std::path::Path;

use snowflock_engine::wire::Identity;

use crate::sys;

const MACHINE_ID: &str = "/etc/machine-id";
const HOSTNAME: &str = "/etc/hostname";

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

/// The files that name a machine, after a birth: a machine id of its own, and the host name for the next boot.
pub(crate) fn renew_files(identity: &Identity) {
    if let Err(e) = new_machine_id().and_then(|id| fs::write(MACHINE_ID, id + "\n")) {
        eprintln!("flurry: renewing {MACHINE_ID}: {e}");
    }
    let name = identity.hostname.as_str();
    if !name.is_empty()
        && let Err(e) = fs::write(HOSTNAME, format!("{name}\n"))
    {
        eprintln!("flurry: writing {HOSTNAME}: {e}");
    }
}

/// A random machine id in the form of a version 4 UUID without dashes, as machine-id(5) wants it.
fn new_machine_id() -> io::Result<String> {
    let mut bytes = [0; 16];
    fs::File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    bytes[6] = bytes[6] & 0x0F | 0x40;
    bytes[8] = bytes[8] & 0x3F | 0x80;
    Ok(bytes.iter().map(|b| format!("{b:02x}")).collect())
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
    fn machine_ids_are_uuids_of_version_4_and_differ() {
        let (a, b) = (new_machine_id().expect("random"), new_machine_id().expect("random"));
        assert!(a != b && a.len() == 32 && a.as_bytes()[12] == b'4');
    }
}
