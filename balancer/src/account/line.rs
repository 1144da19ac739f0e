//! Lines of the access log. Whatever a client sends, one request is one line: what is not
//! printable is escaped.

use std::borrow::Cow;
use std::time::Duration;

use serde::Serialize;

use super::log::LogFormat;
use super::notes::{Notes, without_query};
use super::stamp;
use crate::load::Ending;

/// The status that stands for a client that went away without an answer (nginx's).
const NO_ANSWER: u16 = 499;

/// A line of JSON. Absent is what there was not.
#[derive(Serialize)]
struct Line<'a> {
    time: String,
    client: Option<String>,
    method: Cow<'a, str>,
    host: Option<Cow<'a, str>>,
    target: Cow<'a, str>,
    protocol: &'static str,
    status: Option<u16>,
    bytes_in: u64,
    bytes_out: u64,
    duration_us: u64,
    queue_us: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_us: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    backend: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'a str>,
    tries: usize,
    ending: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    referer: Option<Cow<'a, str>>,
}

/// Adds a line, with its end.
pub(super) fn write(notes: &Notes, format: LogFormat, query: bool, out: &mut Vec<u8>) {
    match format {
        LogFormat::Json => json(notes, query, out),
        LogFormat::Combined => combined(notes, query, out),
    }
    out.push(b'\n');
}

fn shown(bytes: &[u8], query: bool) -> &[u8] {
    if query { bytes } else { without_query(bytes) }
}

fn text(bytes: &[u8]) -> Option<Cow<'_, str>> {
    (!bytes.is_empty()).then(|| String::from_utf8_lossy(bytes))
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

fn json(notes: &Notes, query: bool, out: &mut Vec<u8>) {
    let (head, Some(end)) = (&notes.head, &notes.end) else { return };
    let line = Line {
        time: stamp::rfc3339(notes.time),
        client: notes.client.map(|it| it.to_string()),
        method: String::from_utf8_lossy(head.method()),
        host: text(head.host()),
        target: String::from_utf8_lossy(shown(head.target(), query)),
        protocol: head.protocol(),
        status: (end.status != 0).then_some(end.status),
        bytes_in: notes.bytes_in,
        bytes_out: notes.bytes_out,
        duration_us: micros(end.at.saturating_duration_since(notes.began)),
        queue_us: micros(notes.queued),
        upstream_us: notes.upstream().map(micros),
        backend: notes.tries.last().map(|it| it.backend.as_str()),
        route: end.route.as_deref(),
        tries: notes.tries.len(),
        ending: word(end.ending),
        why: notes.reason().map(String::from_utf8_lossy),
        trace_id: notes.trace.map(|trace| trace.id.to_string()),
        user_agent: text(head.user_agent()),
        referer: text(shown(head.referer(), query)),
    };
    // Only a writer could fail, and a vector cannot.
    let _ = serde_json::to_writer(out, &line);
}

fn word(ending: Ending) -> &'static str {
    match ending {
        Ending::Answered => "answered",
        Ending::CutOff => "cut_off",
        Ending::Abandoned => "abandoned",
    }
}

/// NCSA's combined format: `client - - [time] "request" status bytes "referer" "user agent"`.
fn combined(notes: &Notes, query: bool, out: &mut Vec<u8>) {
    let (head, Some(end)) = (&notes.head, &notes.end) else { return };
    let client = notes.client.map_or_else(|| "-".to_owned(), |it| it.to_string());
    let mut time = String::new();
    stamp::ncsa(notes.time, &mut time);
    out.extend_from_slice(format!("{client} - - {time} \"").as_bytes());
    escape(head.method(), out);
    out.push(b' ');
    escape(shown(head.target(), query), out);
    let status = if end.status == 0 { NO_ANSWER } else { end.status };
    out.extend_from_slice(format!(" {}\" {status} {} \"", head.protocol(), notes.bytes_out).as_bytes());
    quoted(shown(head.referer(), query), out);
    out.extend_from_slice(b"\" \"");
    quoted(head.user_agent(), out);
    out.push(b'"');
}

fn quoted(field: &[u8], out: &mut Vec<u8>) {
    if field.is_empty() { out.push(b'-') } else { escape(field, out) }
}

/// What is not printable ASCII, and what could end a quotation, becomes `\xHH`.
fn escape(bytes: &[u8], out: &mut Vec<u8>) {
    for byte in bytes {
        match byte {
            b'"' | b'\\' | 0..0x20 | 0x7f.. => out.extend_from_slice(format!("\\x{byte:02X}").as_bytes()),
            _ => out.push(*byte),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::{Account, End, Head};
    use http::Request;
    use std::sync::Arc;
    use std::time::{Instant, SystemTime};

    /// The account of a request with a field, over after 1500 us.
    fn notes(field: &[u8]) -> Notes {
        let request = Request::get("/a?key=secret").header("host", "shop.test");
        let request = request.header("user-agent", http::HeaderValue::from_bytes(field).unwrap());
        let head = Head::of(&request.header("referer", "http://x/?key=1").body(()).unwrap());
        let began = Instant::now();
        let account = Arc::new(Account::to_nobody());
        let mut notes = Notes::new(account, head, "10.0.0.9".parse().ok(), began);
        notes.time = SystemTime::UNIX_EPOCH;
        notes.bytes_out = 5;
        let at = began + Duration::from_micros(1500);
        notes.end = Some(End { at, status: 200, ending: Ending::Answered, route: Some("default".into()) });
        notes
    }

    fn line(field: &[u8], format: LogFormat, query: bool) -> String {
        let mut out = Vec::new();
        write(&notes(field), format, query, &mut out);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_line_of_json_has_what_there_was() {
        assert_eq!(
            line(b"curl/8", LogFormat::Json, true),
            "{\"time\":\"1970-01-01T00:00:00.000000Z\",\"client\":\"10.0.0.9\",\"method\":\"GET\",\
             \"host\":\"shop.test\",\"target\":\"/a?key=secret\",\"protocol\":\"HTTP/1.1\",\"status\":200,\
             \"bytes_in\":0,\"bytes_out\":5,\"duration_us\":1500,\"queue_us\":0,\"route\":\"default\",\
             \"tries\":0,\"ending\":\"answered\",\"user_agent\":\"curl/8\",\"referer\":\"http://x/?key=1\"}\n"
        );
    }

    #[test]
    fn a_line_of_the_combined_format_is_one() {
        assert_eq!(
            line(b"curl/8", LogFormat::Combined, true),
            "10.0.0.9 - - [01/Jan/1970:00:00:00 +0000] \"GET /a?key=secret HTTP/1.1\" 200 5 \
             \"http://x/?key=1\" \"curl/8\"\n"
        );
    }

    #[test]
    fn queries_can_be_left_out_everywhere() {
        for format in [LogFormat::Json, LogFormat::Combined] {
            let line = line(b"curl/8", format, false);
            assert!(!line.contains("key") && line.contains("/a"), "{line}");
        }
    }

    #[test]
    fn nobody_forges_a_line_or_a_field() {
        for hostile in
            [&b"a\" 200 5 \"-\" \"b"[..], b"a\\\" x", b"tab\there", b"\xff\xe2\x80\xa8", b"\x1b[2J"]
        {
            let Ok(_) = http::HeaderValue::from_bytes(hostile) else { continue };
            let combined = line(hostile, LogFormat::Combined, true);
            assert_eq!(combined.matches('"').count(), 6, "{combined}");
            assert!(combined.trim_end().bytes().all(|byte| (0x20..0x7f).contains(&byte)), "{combined}");
            let json = line(hostile, LogFormat::Json, true);
            let read: serde_json::Value = serde_json::from_str(&json).unwrap();
            assert_eq!(read["user_agent"], String::from_utf8_lossy(hostile).as_ref());
            assert_eq!(json.matches('\n').count(), 1);
        }
    }
}
