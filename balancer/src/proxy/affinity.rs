//! Which requests belong to the same backend: by a key that they have in common, or by a cookie
//! that sticks to one.

use std::net::IpAddr;
use std::sync::Arc;

use http::header::{COOKIE, SET_COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue, Request};

use crate::pool::{Backend, HashBy, Pool, State, StickySettings, hash};
use crate::server::Session;

const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What a request has in common with others for the same backend. `None` if it has not.
pub(super) fn key<B>(by: &HashBy, request: &Request<B>, session: &Session) -> Option<u64> {
    match by {
        HashBy::Client => client(request.headers(), session).map(|address| hash(&address)),
        HashBy::Path => Some(hash(&request.uri().path())),
        HashBy::Header(name) => request.headers().get(name).map(|value| hash(&value.as_bytes())),
        HashBy::Cookie(name) => cookie(request.headers(), name).map(|value| hash(&value)),
    }
}

/// The address of the client: behind a proxy that is believed, the last one that it names.
pub(super) fn client(headers: &HeaderMap, session: &Session) -> Option<IpAddr> {
    let named = || {
        let last = headers.get_all(FORWARDED_FOR).iter().next_back()?.to_str().ok()?;
        last.rsplit(',').next()?.trim().parse::<IpAddr>().ok()
    };
    let own = || session.client.address.map(|address| address.ip());
    let address = if session.client.trusted { named().or_else(own) } else { own() };
    address.map(|address| address.to_canonical())
}

/// The value of a cookie. A client may send cookies in several fields (RFC 9113 8.2.3).
fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    let pairs = headers.get_all(COOKIE).iter().flat_map(|field| field.as_bytes().split(|byte| *byte == b';'));
    pairs.into_iter().find_map(|pair| {
        let (found, value) = pair.trim_ascii().split_at_checked(name.len())?;
        (found == name.as_bytes()).then_some(value)?.strip_prefix(b"=")
    })
}

/// A client that sticks to a backend, or is to stick to the one it gets now.
pub(super) struct Affinity {
    settings: Arc<StickySettings>,
    /// The ready backend that its cookie names.
    backend: Option<Arc<Backend>>,
    over_tls: bool,
}

impl Affinity {
    /// What a request says. `None` if the pool does not want to know.
    #[inline]
    pub(super) fn of<B>(pool: &Pool, request: &Request<B>, session: &Session) -> Option<Self> {
        pool.sticky().map(|settings| Self::read(settings, pool, request.headers(), session))
    }

    fn read(settings: Arc<StickySettings>, pool: &Pool, headers: &HeaderMap, session: &Session) -> Self {
        let backend = cookie(headers, &settings.cookie).and_then(|token| pool.holder(token));
        let is_https = |scheme: &HeaderValue| scheme.as_bytes().eq_ignore_ascii_case(b"https");
        let proxied = session.client.trusted && headers.get(FORWARDED_PROTO).is_some_and(is_https);
        Self { settings, backend, over_tls: session.client.tls || proxied }
    }

    /// The serial of the backend to try first.
    pub(super) fn prefers(&self) -> Option<u64> {
        self.backend.as_ref().map(|backend| backend.serial())
    }

    /// Tells the client the backend that answers, unless it knows, or its own was only full.
    pub(super) fn tell(&self, headers: &mut HeaderMap, answers: &Backend) {
        if self.backend.as_ref().is_some_and(|own| own.state() == State::Ready) {
            return;
        }
        let Some(field) = answers.sticky_cookie(&self.settings, self.over_tls) else { return };
        if let Ok(field) = HeaderValue::try_from(field) {
            headers.append(SET_COOKIE, field);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_is_found_among_others_and_in_any_field() {
        let mut headers = HeaderMap::new();
        headers.append(COOKIE, HeaderValue::from_static("atx=1; xat=2;at=3 ; b=4"));
        headers.append(COOKIE, HeaderValue::from_static("c=5; empty="));
        assert_eq!(cookie(&headers, "at"), Some(&b"3"[..]));
        assert_eq!(cookie(&headers, "c"), Some(&b"5"[..]));
        assert_eq!(cookie(&headers, "empty"), Some(&b""[..]));
        assert_eq!(cookie(&headers, "t"), None);
    }
}
