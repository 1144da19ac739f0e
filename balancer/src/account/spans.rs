//! Spans of requests as OTLP has them in JSON: one for the request here, one for each try.
//!
//! Attributes are those of OpenTelemetry's semantic conventions for HTTP, with a few of ours
//! (`flurry.*`). Queries are left out: they may hold secrets.

use std::net::SocketAddr;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use super::context::{SpanId, Trace};
use super::notes::{End, Notes, Try, without_query};

/// Methods that the conventions know; another one is `_OTHER`.
const METHODS: [&[u8]; 9] =
    [b"CONNECT", b"DELETE", b"GET", b"HEAD", b"OPTIONS", b"PATCH", b"POST", b"PUT", b"TRACE"];

const SERVER: u8 = 2;
const CLIENT: u8 = 3;
const ERROR: u8 = 2;

/// The request that an OTLP collector gets: spans, and who made them.
pub(super) fn document(resource: &[(String, String)], spans: Vec<Value>) -> Value {
    let attributes: Vec<Value> = resource.iter().map(|(key, value)| text(key, value)).collect();
    json!({"resourceSpans": [{
        "resource": {"attributes": attributes},
        "scopeSpans": [{
            "scope": {"name": "flurry", "version": env!("CARGO_PKG_VERSION")},
            "spans": spans,
        }],
    }]})
}

/// All spans of a request; none without a trace.
pub(super) fn of(notes: &Notes) -> Vec<Value> {
    let (Some(trace), Some(end)) = (&notes.trace, &notes.end) else { return Vec::new() };
    let tries = notes.tries.iter().enumerate().filter_map(|(nth, one)| attempt(notes, trace, end, nth, one));
    std::iter::once(server(notes, trace, end)).chain(tries).collect()
}

fn server(notes: &Notes, trace: &Trace, end: &End) -> Value {
    let head = &notes.head;
    let mut attributes = vec![
        text("url.path", &lossy(without_query(head.target()))),
        text("url.scheme", notes.scheme()),
        text("network.protocol.version", head.protocol().trim_start_matches("HTTP/").trim_end_matches(".0")),
        number("flurry.queue_us", u64::try_from(notes.queued.as_micros()).unwrap_or(u64::MAX)),
        number("http.response.body.size", notes.bytes_out),
    ];
    attributes.extend(method(head.method()));
    let optional = [
        ("server.address", Some(head.host()).filter(|it| !it.is_empty())),
        ("user_agent.original", Some(head.user_agent()).filter(|it| !it.is_empty())),
        ("flurry.route", end.route.as_deref().map(str::as_bytes)),
    ];
    attributes.extend(optional.into_iter().filter_map(|(key, value)| Some(text(key, &lossy(value?)))));
    attributes.extend(notes.client.map(|client| text("client.address", &client.to_string())));
    if end.status != 0 {
        attributes.push(number("http.response.status_code", end.status.into()));
    }
    let failed = end.status == 0 || end.status >= 500 || end.ending != crate::load::Ending::Answered;
    let error = failed.then(|| match notes.reason() {
        Some(reason) => lossy(reason),
        None => end.status.to_string(),
    });
    let ids = (trace.span, trace.parent);
    span(notes, trace, ids, SERVER, (notes.began, end.at), attributes, error)
}

fn attempt(notes: &Notes, trace: &Trace, end: &End, nth: usize, one: &Try) -> Option<Value> {
    let last = nth + 1 == notes.tries.len();
    let over = if last { end.at } else { one.ended.unwrap_or(end.at) };
    let (id, scheme) = (one.backend.as_str(), if one.secure { "https" } else { "http" });
    let path = lossy(without_query(notes.head.target()));
    let mut attributes =
        vec![text("url.full", &format!("{scheme}://{id}{path}")), text("flurry.backend", id)];
    attributes.extend(method(notes.head.method()));
    match id.parse::<SocketAddr>() {
        Ok(address) => {
            attributes.push(text("server.address", &address.ip().to_string()));
            attributes.push(number("server.port", address.port().into()));
        }
        Err(_) => attributes.push(text("server.address", id)),
    }
    if nth > 0 {
        attributes.push(number("http.request.resend_count", nth as u64));
    }
    if let Some(status) = one.status {
        attributes.push(number("http.response.status_code", status.as_u16().into()));
    }
    let bad = one.status.filter(|it| it.is_client_error() || it.is_server_error());
    let error = one.error.map(str::to_owned).or_else(|| bad.map(|status| status.as_str().to_owned()));
    let ids = (one.span?, Some(trace.span));
    Some(span(notes, trace, ids, CLIENT, (one.began, over), attributes, error))
}

fn span(
    notes: &Notes,
    trace: &Trace,
    (id, parent): (SpanId, Option<SpanId>),
    kind: u8,
    (began, ended): (Instant, Instant),
    mut attributes: Vec<Value>,
    error: Option<String>,
) -> Value {
    attributes.extend(error.as_ref().map(|error| text("error.type", error)));
    let mut span = json!({
        "traceId": trace.id.to_string(),
        "spanId": id.to_string(),
        "name": if METHODS.contains(&notes.head.method()) { lossy(notes.head.method()) } else { "HTTP".to_owned() },
        "kind": kind,
        "startTimeUnixNano": nanos(notes, began),
        "endTimeUnixNano": nanos(notes, ended),
        "attributes": attributes,
    });
    if let Some(parent) = parent {
        span["parentSpanId"] = parent.to_string().into();
    }
    if error.is_some() {
        span["status"] = json!({"code": ERROR});
    }
    span
}

/// The time of day of an instant, in nanoseconds; JSON has them as text.
fn nanos(notes: &Notes, at: Instant) -> String {
    let since = at.saturating_duration_since(notes.began);
    let time = notes.time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO) + since;
    time.as_nanos().to_string()
}

fn method(method: &[u8]) -> Vec<Value> {
    match METHODS.contains(&method) {
        true => vec![text("http.request.method", &lossy(method))],
        false => {
            vec![text("http.request.method", "_OTHER"), text("http.request.method_original", &lossy(method))]
        }
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

/// Numbers of 64 bits are text in JSON.
fn number(key: &str, value: u64) -> Value {
    json!({"key": key, "value": {"intValue": value.to_string()}})
}
