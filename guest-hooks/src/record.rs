//! `/run/flurry/identity`: who this guest is, for programs in it. One `NAME=value` a line, as a shell reads it.
//!
//! The file stays open, is always the same file and has one size for ever: a new identity is one
//! `pwrite`, so readers may keep it open too, and a clone's programs never see their parent's
//! identity after the host has been told of the new one.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use snowflock_engine::wire::Identity;

const DIRECTORY: &str = "/run/flurry";
const FILE: &str = "/run/flurry/identity";
/// Larger than the longest record; the rest is filled with newlines.
const SIZE: usize = 384;

/// The open identity file.
pub(crate) struct Record {
    file: File,
}

impl Record {
    /// Creates the file (empty until the first identity).
    pub(crate) fn open() -> Result<Self, String> {
        fs::create_dir_all(DIRECTORY).map_err(|e| format!("creating {DIRECTORY}: {e}"))?;
        File::create(FILE).map(|file| Self { file }).map_err(|e| format!("creating {FILE}: {e}"))
    }

    /// Replaces the record. The generation is a number that no other birth of any guest has.
    pub(crate) fn write(&self, identity: &Identity, generation: u128) {
        let text = Text::of(identity, generation);
        if let Err(e) = self.file.write_all_at(&text.bytes, 0) {
            eprintln!("flurry: writing {FILE}: {e}");
        }
    }
}

/// A text in a fixed place; what does not fit is cut.
struct Text {
    bytes: [u8; SIZE],
    used: usize,
}

impl Text {
    fn of(i: &Identity, generation: u128) -> Self {
        let mut text = Self { bytes: [b'\n'; SIZE], used: 0 };
        let [a, b, c, d, e, f] = i.mac;
        // Writing into Text cannot fail.
        let _ = write!(
            text,
            "FLURRY_CLONE_ID={}\nFLURRY_CLONES={}\nFLURRY_IPV4={}\nFLURRY_PREFIX_LEN={}\nFLURRY_GATEWAY={}\n\
             FLURRY_PARENT_IPV4={}\nFLURRY_MAC={a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}\nFLURRY_HOSTNAME={}\nFLURRY_GENERATION={:032x}\n",
            i.clone_id,
            i.clones,
            i.ipv4,
            i.prefix_len,
            i.gateway,
            i.parent_ipv4,
            i.hostname.as_str(),
            generation,
        );
        text
    }
}

impl std::fmt::Write for Text {
    fn write_str(&mut self, s: &str) -> std::fmt::Result {
        let count = s.len().min(SIZE - self.used);
        self.bytes[self.used..self.used + count].copy_from_slice(&s.as_bytes()[..count]);
        self.used += count;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use snowflock_engine::wire::Name;
    use std::net::Ipv4Addr;

    #[test]
    fn the_longest_identity_fits_into_the_record() {
        let widest = Identity {
            clone_id: u32::MAX,
            clones: u32::MAX,
            unix_time_ns: u64::MAX,
            mac: [0xFE; 6],
            ipv4: Ipv4Addr::new(223, 255, 255, 254),
            prefix_len: 32,
            gateway: Ipv4Addr::new(223, 255, 255, 253),
            parent_ipv4: Ipv4Addr::new(223, 255, 255, 252),
            entropy: [0; 32],
            hostname: Name::cut(&"h".repeat(63)),
        };
        let text = Text::of(&widest, u128::MAX);
        assert!(text.used < SIZE, "{} bytes", text.used);
        let shown = std::str::from_utf8(&text.bytes).expect("ASCII");
        assert!(shown.starts_with("FLURRY_CLONE_ID=4294967295\n") && shown.contains("FLURRY_HOSTNAME=hhh"));
        assert!(shown.contains("\nFLURRY_GENERATION=ffffffffffffffffffffffffffffffff\n"));
    }
}
