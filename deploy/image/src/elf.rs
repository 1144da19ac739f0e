//! Is a program static? One that asks for a dynamic linker cannot run in an initial RAM disk.

use std::fs;
use std::path::Path;

const MAGIC: &[u8] = b"\x7fELF\x02\x01";
const MACHINE_X86_64: u16 = 62;
const PROGRAM_HEADER: usize = 56;
const PT_INTERP: u32 = 3;

/// What is wrong with the program under the spec's `key`, if anything.
pub(crate) fn static_program_complaint(key: &str, path: &Path) -> Option<String> {
    let why = match fs::read(path) {
        Err(e) => e.to_string(),
        Ok(bytes) => match interpreter(&bytes) {
            None => "not a 64-bit x86 ELF program".into(),
            Some(true) => "is linked dynamically; build it with RUSTFLAGS=\"-C target-feature=+crt-static\" and --target"
                .into(),
            Some(false) => return None,
        },
    };
    Some(format!("{key}: {}: {why}", path.display()))
}

/// Does the program ask for a dynamic linker? `None` if it is no program of this machine.
fn interpreter(bytes: &[u8]) -> Option<bool> {
    let half = |at: usize| bytes.get(at..at + 2).map(|b| u16::from_le_bytes([b[0], b[1]]));
    if !bytes.starts_with(MAGIC) || half(18)? != MACHINE_X86_64 {
        return None;
    }
    let table: [u8; 8] = bytes.get(32..40)?.try_into().ok()?;
    let table = usize::try_from(u64::from_le_bytes(table)).ok()?;
    let headers = bytes.get(table..)?.chunks_exact(PROGRAM_HEADER).take(usize::from(half(56)?));
    let asks = |header: &[u8]| header[..4] == PT_INTERP.to_le_bytes();
    Some(headers.into_iter().any(asks))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A program with one header of this type.
    fn program(header_type: u32) -> Vec<u8> {
        let mut bytes = vec![0; 64 + PROGRAM_HEADER];
        bytes[..6].copy_from_slice(MAGIC);
        bytes[18] = 62;
        bytes[32] = 64;
        bytes[56] = 1;
        bytes[64..68].copy_from_slice(&header_type.to_le_bytes());
        bytes
    }

    #[test]
    fn a_program_that_names_a_dynamic_linker_is_told_from_a_static_one() {
        assert_eq!(interpreter(&program(PT_INTERP)), Some(true));
        assert_eq!(interpreter(&program(1)), Some(false));
    }

    #[test]
    fn no_prefix_of_a_program_panics() {
        let whole = program(PT_INTERP);
        for end in 0..whole.len() {
            interpreter(&whole[..end]);
        }
        assert_eq!(interpreter(b"#!/bin/sh\n"), None);
    }

    #[test]
    fn this_test_itself_is_dynamic_and_the_complaint_says_the_remedy() {
        let me = std::env::current_exe().expect("own path");
        let complaint = static_program_complaint("agent", &me);
        assert!(complaint.is_some_and(|c| c.starts_with("agent: ") && c.contains("crt-static")));
    }
}
