//! Any bytes are refused, or are a descriptor that comes back as it was.

use snowflock_engine::descriptor::Descriptor;

/// Magic, version, flags, length; the checksum at the end.
const FRAME: usize = 16;

/// The bytes as they are, and with a frame that is right, so that what lies behind it is reached.
pub(crate) fn check(bytes: &[u8]) {
    decode(bytes);
    if let Some(framed) = framed(bytes) {
        decode(&framed);
    }
}

fn decode(bytes: &[u8]) {
    match Descriptor::decode(bytes) {
        Ok(descriptor) => {
            let again = descriptor.encode().expect("what was accepted can be written");
            assert!(Descriptor::decode(&again).expect("what was written can be read") == descriptor);
        }
        Err(error) => {
            assert!(!error.faults().is_empty() && !error.to_string().is_empty());
            let inside = |fault: &snowflock_engine::descriptor::Fault| fault.offset <= Some(bytes.len());
            assert!(error.faults().iter().all(inside), "{error}");
        }
    }
}

fn framed(bytes: &[u8]) -> Option<Vec<u8>> {
    let end = bytes.len().checked_sub(4).filter(|end| *end >= FRAME - 4)?;
    let mut framed = bytes[..end].to_vec();
    framed[..8].copy_from_slice(b"SFVD\x01\0\0\0");
    framed[8..12].copy_from_slice(&u32::try_from(bytes.len()).ok()?.to_le_bytes());
    framed.extend(crc32fast::hash(&framed).to_le_bytes());
    Some(framed)
}
