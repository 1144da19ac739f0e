//! Files that were written by the first release of a format version stay readable.

use super::*;

/// Written once, from [`sample`]; never to be written anew for this version.
const VERSION_1: &[u8] = include_bytes!("../fixtures/version-1.sfvd");

#[test]
fn a_file_of_version_1_stays_readable() {
    assert_eq!(Descriptor::decode(VERSION_1).unwrap(), sample());
}

#[test]
fn all_but_the_deflated_state_is_still_written_as_in_version_1() {
    // The length depends on how well the state is deflated, so it may differ.
    let state = VERSION_1.windows(6).rposition(|w| w[..2] == [7, 0] && w[4..] == [0, 0]).unwrap();
    let now = sample().encode().unwrap();
    assert_eq!(now[..8], VERSION_1[..8]);
    assert_eq!(now[12..state], VERSION_1[12..state]);
}

#[test]
fn the_format_document_shows_the_head_of_that_file() {
    let document = include_str!("../FORMAT.md");
    for (line, bytes) in VERSION_1.chunks(16).take(8).enumerate() {
        let hex: Vec<_> = bytes.iter().map(|b| format!("{b:02x}")).collect();
        let shown = format!("{:08x}  {}  {}", line * 16, hex[..8].join(" "), hex[8..].join(" "));
        assert!(document.contains(&shown), "FORMAT.md lacks the line {shown}");
    }
}
