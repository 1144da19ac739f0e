//! Who this guest is: from the agent's record for every answer, from everywhere for `/identity`.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

const RECORD: &str = "/run/flurry/identity";

/// The agent's record, opened once: it is written in place, and looking it up anew for every answer
/// would cost a fresh clone more than the answer.
static OPEN: OnceLock<File> = OnceLock::new();

/// The clone's number for the X-Flurry-Clone header; the host name where there is no agent.
pub(crate) fn clone_name() -> String {
    let mut room = [0; 512];
    let count = record().and_then(|file| file.read_at(&mut room, 0).ok()).unwrap_or(0);
    let record = std::str::from_utf8(&room[..count]).unwrap_or("");
    clone_id(record).map_or_else(hostname, str::to_string)
}

fn record() -> Option<&'static File> {
    if OPEN.get().is_none() {
        // The agent may not have started yet; then the next answer tries again.
        let _ = OPEN.set(File::open(RECORD).ok()?);
    }
    OPEN.get()
}

fn clone_id(record: &str) -> Option<&str> {
    let value = record.lines().find_map(|line| line.strip_prefix("FLURRY_CLONE_ID="))?;
    Some(value).filter(|v| !v.is_empty() && v.bytes().all(|b| b.is_ascii_digit()))
}

fn line_of(file: impl AsRef<Path>) -> String {
    fs::read_to_string(file).unwrap_or_default().trim().to_string()
}

fn hostname() -> String {
    line_of("/proc/sys/kernel/hostname")
}

/// Everything that must differ between clones, as JSON.
pub(crate) fn json() -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let uptime = line_of("/proc/uptime");
    let uptime: f64 = uptime.split(' ').next().and_then(|s| s.parse().ok()).unwrap_or(0.0);
    format!(
        "{{\"clone\":{},\"hostname\":{},\"machine_id\":{},\"macs\":{},\"ips\":{},\"unix_time_ns\":{},\"boot_id\":{},\
         \"uptime_seconds\":{uptime}}}",
        quoted(&clone_name()),
        quoted(&hostname()),
        quoted(&line_of("/etc/machine-id")),
        list(&macs()),
        list(&addresses(&fs::read_to_string("/proc/net/fib_trie").unwrap_or_default())),
        now.as_nanos(),
        quoted(&line_of("/proc/sys/kernel/random/boot_id")),
    )
}

/// The MACs of all interfaces but the loopback, by interface name.
fn macs() -> Vec<String> {
    let mut interfaces: Vec<_> =
        fs::read_dir("/sys/class/net").into_iter().flatten().flatten().map(|e| e.path()).collect();
    interfaces.sort();
    interfaces.retain(|path| !path.ends_with("lo"));
    interfaces.into_iter().map(|path| line_of(path.join("address"))).collect()
}

/// The local addresses in `/proc/net/fib_trie`: those whose next line says "/32 host LOCAL".
fn addresses(trie: &str) -> Vec<String> {
    let lines: Vec<_> = trie.lines().map(str::trim).collect();
    let local = |pair: &[&str]| {
        let address = pair[0].strip_prefix("|-- ")?;
        (pair[1].ends_with("host LOCAL") && !address.starts_with("127.")).then(|| address.to_string())
    };
    let mut found: Vec<_> = lines.windows(2).filter_map(local).collect();
    found.sort();
    found.dedup();
    found
}

fn list(items: &[String]) -> String {
    let items: Vec<_> = items.iter().map(|item| quoted(item)).collect();
    format!("[{}]", items.join(","))
}

/// A JSON string (RFC 8259, section 7).
pub(crate) fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c < ' ' => out += &format!("\\u{:04x}", c as u32),
            c => out.push(c),
        }
    }
    out + "\""
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clones_number_is_read_from_the_agents_record() {
        assert_eq!(clone_id("FLURRY_CLONE_ID=12\nFLURRY_CLONES=20\n\n\n"), Some("12"));
        assert_eq!(clone_id(""), None);
        assert_eq!(clone_id("FLURRY_CLONE_ID=\r\nX-Evil: 1"), None);
    }

    #[test]
    fn local_addresses_are_found_once_and_without_the_loopback() {
        let trie = "Main:\n  +-- 0.0.0.0/0 2 0 2\n     |-- 10.0.2.0\n        /24 link UNICAST\n     |-- 10.0.2.15\n        \
                    /32 host LOCAL\n     |-- 127.0.0.1\n        /32 host LOCAL\nLocal:\n     |-- 10.0.2.15\n        /32 host LOCAL\n";
        assert_eq!(addresses(trie), ["10.0.2.15"]);
    }

    #[test]
    fn text_is_quoted_as_json_wants_it() {
        assert_eq!(quoted("a\"b\\c\n"), "\"a\\\"b\\\\c\\u000a\"");
    }
}
