//! What another host tells of a checkpoint is refused, or is what was told.

use snowflock_engine::control::Parcel;

/// Magic, version and length of the header.
const FIXED: usize = 10;

/// The bytes as they are, and behind a start that is right, so that header and descriptor are reached.
pub(crate) fn check(bytes: &[u8]) {
    decode(bytes);
    if let Some((_, rest)) = bytes.split_at_checked(FIXED) {
        let opened = rest.iter().position(|byte| *byte == b'S').unwrap_or(rest.len());
        for header in [opened, rest.len()] {
            let mut whole = b"SFCK\0\x01".to_vec();
            whole.extend(u32::try_from(header).unwrap_or(u32::MAX).to_be_bytes());
            whole.extend_from_slice(rest);
            decode(&whole);
        }
    }
}

fn decode(bytes: &[u8]) {
    match Parcel::decode(bytes) {
        Ok(parcel) => assert_eq!(Parcel::decode(bytes).expect("it was understood before"), parcel),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
