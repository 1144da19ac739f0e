//! What a proxy must change in heads: fields that belong to one connection go
//! (RFC 9110 7.6.1), and the backend is told who asked.
//!
//! Header maps are changed in place; nothing is copied.

use http::header::{
    CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, FORWARDED, HOST, HeaderMap, HeaderName, HeaderValue,
    PROXY_AUTHENTICATE, PROXY_AUTHORIZATION, TE, TRANSFER_ENCODING, UPGRADE,
};

use crate::server::Session;

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const HTTP2_SETTINGS: HeaderName = HeaderName::from_static("http2-settings");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
const TRAILERS: HeaderValue = HeaderValue::from_static("trailers");

/// Whether a head has fields that must go. One walk over the names is cheaper than a
/// look-up for each, and most heads have none.
fn has_fields_to_strip(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| match *name {
        CONNECTION | TE | UPGRADE | EXPECT | FORWARDED | PROXY_AUTHENTICATE | PROXY_AUTHORIZATION => true,
        _ => {
            matches!(name.as_str(), "keep-alive" | "proxy-connection" | "http2-settings")
                || says_who_asks(name)
        }
    })
}

/// Whether a field is one of X-Forwarded-*, or looks like one to a backend that does not tell `_` from `-`.
fn says_who_asks(name: &HeaderName) -> bool {
    const BEGINNING: &[u8] = b"x-forwarded-";
    let same = |(byte, wanted): (&u8, &u8)| byte == wanted || (*wanted == b'-' && *byte == b'_');
    let name = name.as_str().as_bytes();
    name.len() > BEGINNING.len() && name.iter().zip(BEGINNING).all(same)
}

/// Removes what only a proxy that is believed may say; what merely looks like it, from everybody.
fn strip_forwarded(headers: &mut HeaderMap, trusted: bool) {
    let goes = |name: &&HeaderName| (!trusted || name.as_str().contains('_')) && says_who_asks(name);
    let names: Vec<HeaderName> = headers.keys().filter(goes).cloned().collect();
    for name in &names {
        headers.remove(name);
    }
}

/// Makes a client's header fields fit for a backend.
///
/// What the client says about itself (X-Forwarded-*, Forwarded) is replaced, because
/// any client can say anything. `Expect` goes too: we answer it ourselves, when the
/// backend begins to take the body.
pub(crate) fn to_backend(headers: &mut HeaderMap, session: &Session) {
    let client = &session.client;
    let told = client.trusted.then(|| Told::take(headers));
    if has_fields_to_strip(headers) {
        let wants_trailers = headers.get(TE).is_some_and(mentions_trailers);
        strip_hop_by_hop(headers);
        for name in [EXPECT, PROXY_AUTHORIZATION, HTTP2_SETTINGS, FORWARDED] {
            headers.remove(name);
        }
        strip_forwarded(headers, client.trusted);
        if wants_trailers {
            headers.insert(TE, TRAILERS);
        }
    }
    headers.insert(X_FORWARDED_FOR, session.forwarded_for.clone());
    headers.insert(X_FORWARDED_PROTO, client.scheme());
    if let Some(told) = told {
        told.put_back(headers, session.forwarded_for.clone());
    }
}

/// What a proxy in front of us says about the client, if it is one that is believed.
struct Told {
    chain: Vec<HeaderValue>,
    proto: Option<HeaderValue>,
    host: Option<HeaderValue>,
}

impl Told {
    fn take(headers: &HeaderMap) -> Self {
        Self {
            chain: headers.get_all(X_FORWARDED_FOR).iter().cloned().collect(),
            proto: headers.get(X_FORWARDED_PROTO).cloned(),
            host: headers.get(X_FORWARDED_HOST).cloned(),
        }
    }

    /// The proxy itself becomes the last of the chain.
    fn put_back(mut self, headers: &mut HeaderMap, proxy: HeaderValue) {
        self.chain.push(proxy);
        let parts: Vec<&[u8]> = self.chain.iter().map(HeaderValue::as_bytes).collect();
        if let Ok(chain) = HeaderValue::from_bytes(&parts.join(&b", "[..])) {
            headers.insert(X_FORWARDED_FOR, chain);
        }
        for (name, value) in [(X_FORWARDED_PROTO, self.proto), (X_FORWARDED_HOST, self.host)] {
            if let Some(value) = value {
                headers.insert(name, value);
            }
        }
    }
}

/// HTTP/2 cuts cookies into pieces; everywhere else they are one field (RFC 9113 8.2.3).
pub(crate) fn join_cookies(headers: &mut HeaderMap) {
    let pieces: Vec<&[u8]> = headers.get_all(COOKIE).iter().map(HeaderValue::as_bytes).collect();
    if pieces.len() > 1 {
        if let Ok(whole) = HeaderValue::from_bytes(&pieces.join(&b"; "[..])) {
            headers.insert(COOKIE, whole);
        }
    }
}

/// Makes a backend's header fields fit for a client.
pub(crate) fn to_client(headers: &mut HeaderMap) {
    if has_fields_to_strip(headers) {
        strip_hop_by_hop(headers);
        headers.remove(PROXY_AUTHENTICATE);
    }
}

/// Removes what belongs to one connection. Transfer-Encoding stays: it is `chunked` on
/// both sides or absent, and hyper frames the message by it.
fn strip_hop_by_hop(headers: &mut HeaderMap) {
    strip_named(headers);
    for name in [KEEP_ALIVE, PROXY_CONNECTION, TE, UPGRADE] {
        headers.remove(name);
    }
}

/// Removes `Connection` and the fields it names, except those that the message itself
/// needs: a client must not be able to take them away from the backend.
fn strip_named(headers: &mut HeaderMap) {
    let values: Vec<HeaderValue> = headers.get_all(CONNECTION).iter().cloned().collect();
    headers.remove(CONNECTION);
    for token in values.iter().flat_map(|value| value.as_bytes().split(|byte| *byte == b',')) {
        let Ok(name) = HeaderName::from_bytes(token.trim_ascii()) else { continue };
        if ![HOST, CONTENT_LENGTH, TRANSFER_ENCODING].contains(&name) {
            headers.remove(name);
        }
    }
}

fn mentions_trailers(value: &HeaderValue) -> bool {
    let names = value.as_bytes().split(|byte| *byte == b',');
    names.into_iter().any(|name| name.trim_ascii().eq_ignore_ascii_case(b"trailers"))
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;
    use std::time::Instant;

    use super::*;
    use crate::server::Client;

    fn map(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        fields.iter().map(pair).collect()
    }

    fn client(trusted: bool) -> Session {
        let client = Client::new(Some(([10, 0, 0, 9], 1).into()), None, false, trusted);
        Session::new(Rc::new(client), Instant::now())
    }

    #[test]
    fn a_trusted_proxy_is_believed_and_becomes_part_of_the_chain() {
        let mut headers = map(&[
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-for", "2.2.2.2"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "shop.test"),
            ("x-forwarded-port", "443"),
            ("x_forwarded_for", "3.3.3.3"),
            ("connection", "x-forwarded-proto"),
        ]);
        to_backend(&mut headers, &client(true));
        assert_eq!(headers["x-forwarded-for"], "1.1.1.1, 2.2.2.2, 10.0.0.9");
        assert_eq!(headers["x-forwarded-proto"], "https");
        assert_eq!(headers["x-forwarded-host"], "shop.test");
        assert_eq!((&headers["x-forwarded-port"], headers.len()), (&HeaderValue::from_static("443"), 4));
    }

    #[test]
    fn cookies_in_pieces_become_one() {
        let mut headers = map(&[("cookie", "a=1"), ("cookie", "b=2")]);
        join_cookies(&mut headers);
        assert_eq!(headers.get_all("cookie").iter().count(), 1);
        assert_eq!(headers["cookie"], "a=1; b=2");
    }

    fn sent(fields: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = map(fields);
        to_backend(&mut headers, &client(false));
        headers
    }

    #[test]
    fn fields_of_one_connection_are_not_forwarded() {
        let headers = sent(&[
            ("host", "a"),
            ("connection", "close, X-Mine"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("proxy-connection", "keep-alive"),
            ("proxy-authorization", "Basic eA=="),
            ("upgrade", "h2c"),
            ("http2-settings", "AAA"),
            ("expect", "100-continue"),
            ("accept", "*/*"),
        ]);
        let names: Vec<&str> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names.len(), 4, "{names:?}");
        assert!(
            ["host", "accept", "x-forwarded-for", "x-forwarded-proto"]
                .iter()
                .all(|name| names.contains(name))
        );
    }

    #[test]
    fn a_client_cannot_name_away_what_frames_its_message() {
        let headers = sent(&[
            ("host", "a"),
            ("connection", "host, content-length, transfer-encoding, x-forwarded-for"),
            ("content-length", "3"),
        ]);
        assert_eq!(headers["host"], "a");
        assert_eq!(headers["content-length"], "3");
        assert_eq!(headers["x-forwarded-for"], "10.0.0.9");
    }

    #[test]
    fn what_a_client_says_about_itself_is_replaced() {
        let headers = sent(&[
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil"),
            ("x-forwarded-port", "443"),
            ("x-forwarded-prefix", "/admin"),
            ("x_forwarded_for", "1.1.1.1"),
            ("x-forwarded_proto", "https"),
            ("forwarded", "for=1.1.1.1"),
        ]);
        assert_eq!(headers.len(), 2);
        assert_eq!(headers["x-forwarded-for"], "10.0.0.9");
        assert_eq!(headers["x-forwarded-proto"], "http");
    }

    #[test]
    fn the_wish_for_trailers_is_passed_on() {
        assert_eq!(sent(&[("te", "deflate, Trailers"), ("connection", "te")])["te"], "trailers");
        assert!(!sent(&[("te", "deflate")]).contains_key("te"));
    }

    #[test]
    fn answers_lose_the_fields_of_one_connection_and_keep_the_rest() {
        let mut headers = map(&[
            ("connection", "close"),
            ("keep-alive", "timeout=5"),
            ("transfer-encoding", "chunked"),
            ("trailer", "checksum"),
            ("set-cookie", "a=1"),
        ]);
        to_client(&mut headers);
        assert_eq!(headers.len(), 3);
        assert!(headers.contains_key("trailer") && headers.contains_key("transfer-encoding"));
    }
}
