//! `access_log`: who is told of each request.

use std::path::Path;

use scaler::yaml::Section;

use crate::account::{AccountSettings, Destination, LogFormat, LogSettings};

const FORMATS: [(&str, LogFormat); 2] = [("json", LogFormat::Json), ("combined", LogFormat::Combined)];
/// Lines that wait while the disk is slow; each takes about half a KiB.
const MAX_WAITING: u32 = 16_384;

/// Reads the sections about accounts of requests.
pub(super) fn read(root: &mut Section<'_>, folder: &Path) -> AccountSettings {
    AccountSettings { log: root.optional_section("access_log", |section| log(section, folder)).flatten() }
}

fn log(section: &mut Section<'_>, folder: &Path) -> Option<LogSettings> {
    const WHERE: &str = "give `path: /var/log/flurry/access.log`, or `stdout: true`";
    let path = section.path_buf("path", "give a file, e.g. /var/log/flurry/access.log").optional();
    let stdout = section.bool("stdout", "give true for lines on standard output").or(false);
    let to = match (path, stdout) {
        (Some(path), false) => Some(Destination::File(folder.join(path))),
        (None, true) => Some(Destination::Stdout),
        (Some(_), true) => {
            section.complain("stdout", "is given beside `path`", "give one of them");
            None
        }
        (None, false) => {
            section.complain("", "says nowhere to write to", WHERE);
            None
        }
    };
    let format = section.choice("format", &FORMATS, "give json or combined").or(LogFormat::Json);
    let query = section.bool("query", "give false to leave queries out").or(true);
    let max_waiting = section
        .u32("max_waiting", "give the lines that may wait to be written, e.g. 16384")
        .at_least(1)
        .at_most(1_000_000)
        .or(MAX_WAITING);
    Some(LogSettings { to: to?, format, query, max_waiting: max_waiting as usize })
}
