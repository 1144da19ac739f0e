//! Refuses requests that are well framed and still not to be forwarded.
//!
//! What is wrong with the framing never gets here, see [`crate::server::framing`].

use std::task::{Context, Poll};

use futures_util::future::{Either, Ready, ready};
use http::header::{EXPECT, HOST, TRANSFER_ENCODING};
use http::uri::{Authority, Scheme};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use tower::{Layer, Service};

use super::body::ResponseBody;
use super::reply::last_reply;
use super::{connect, upgrade};

/// Longest target of a request in bytes.
const MAX_TARGET: usize = 8 * 1024;

/// Why a request is refused: the status, and a line for whoever reads it.
pub(crate) type Refusal = (StatusCode, &'static str);

/// Looks at the head of a request.
pub(crate) fn screen<B>(request: &Request<B>) -> Result<(), Refusal> {
    if request.method() == Method::CONNECT {
        connect::screen(request)?;
        return host(request);
    }
    target(request)?;
    host(request)?;
    let headers = request.headers();
    if let Some(encoding) = headers.get(TRANSFER_ENCODING) {
        if !encoding.as_bytes().eq_ignore_ascii_case(b"chunked") {
            return Err((StatusCode::NOT_IMPLEMENTED, "this Transfer-Encoding is not supported\n"));
        }
    }
    if let Some(expect) = headers.get(EXPECT) {
        if !expect.as_bytes().eq_ignore_ascii_case(b"100-continue") {
            return Err((StatusCode::EXPECTATION_FAILED, "this Expect is not supported\n"));
        }
    }
    upgrade::screen(request)
}

fn target<B>(request: &Request<B>) -> Result<(), Refusal> {
    let uri = request.uri();
    let length = uri.path().len() + uri.query().map_or(0, |query| query.len() + 1);
    if length > MAX_TARGET {
        return Err((StatusCode::URI_TOO_LONG, "the target of the request is too long\n"));
    }
    let bad = Err((StatusCode::BAD_REQUEST, "the target of the request is malformed\n"));
    match uri.scheme() {
        Some(scheme) if *scheme != Scheme::HTTP && *scheme != Scheme::HTTPS => bad,
        // It becomes the field Host.
        Some(_)
            if uri
                .authority()
                .is_none_or(|it| it.host().is_empty() || !valid_host(it.as_str().as_bytes())) =>
        {
            bad
        }
        Some(_) => Ok(()),
        None if uri.path() == "*" && request.method() != Method::OPTIONS => bad,
        None if uri.path() != "*" && !uri.path().starts_with('/') => bad,
        None if uri.authority().is_some() => bad,
        None => Ok(()),
    }
}

fn host<B>(request: &Request<B>) -> Result<(), Refusal> {
    let mut hosts = request.headers().get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if contradicts(host, request) => {
            Err((StatusCode::BAD_REQUEST, "Host and :authority differ\n"))
        }
        (Some(_), Some(_)) => Err((StatusCode::BAD_REQUEST, "Host is given more than once\n")),
        (Some(host), None) if valid_host(host.as_bytes()) => Ok(()),
        (Some(_), None) => Err((StatusCode::BAD_REQUEST, "Host is malformed\n")),
        (None, _) if request.version() == Version::HTTP_10 => Ok(()),
        (None, _) if request.version() == Version::HTTP_2 && request.uri().authority().is_some() => Ok(()),
        (None, _) => Err((StatusCode::BAD_REQUEST, "Host is missing\n")),
    }
}

/// HTTP/2 can name the host twice; a backend would see one of them.
fn contradicts<B>(host: &HeaderValue, request: &Request<B>) -> bool {
    request.version() == Version::HTTP_2
        && request
            .uri()
            .authority()
            .is_some_and(|it| !it.as_str().as_bytes().eq_ignore_ascii_case(host.as_bytes()))
}

/// A name or address with an optional port. Most hosts are plain, and quickly seen to be.
fn valid_host(host: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    let mut parts = host.splitn(2, |byte| *byte == b':');
    let (name, port) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    if name.iter().all(plain) && port.iter().all(u8::is_ascii_digit) {
        return true;
    }
    !host.contains(&b'@') && Authority::try_from(host).is_ok_and(|it| it.port().is_some() == has_port(host))
}

/// Whether something that should be a port follows the name or the brackets.
fn has_port(host: &[u8]) -> bool {
    let name_ends = host.iter().rposition(|byte| *byte == b']').unwrap_or(0);
    host[name_ends..].contains(&b':')
}

/// The layer that screens.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ScreenLayer;

impl<S> Layer<S> for ScreenLayer {
    type Service = Screen<S>;

    fn layer(&self, inner: S) -> Screen<S> {
        Screen { inner }
    }
}

/// The service that screens, in front of another one.
#[derive(Debug, Clone)]
pub(crate) struct Screen<S> {
    inner: S,
}

impl<S, B> Service<Request<B>> for Screen<S>
where
    S: Service<Request<B>, Response = Response<ResponseBody>>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = Either<Ready<Result<S::Response, S::Error>>, S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        match screen(&request) {
            Ok(()) => Either::Right(self.inner.call(request)),
            Err((status, text)) => Either::Left(ready(Ok(last_reply(status, text)))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(method: &str, target: &str, fields: &[(&'static str, &'static str)]) -> u16 {
        let mut request = Request::builder().method(method).uri(target);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        screen(&request.body(()).unwrap()).err().map_or(200, |(status, _)| status.as_u16())
    }

    #[test]
    fn ordinary_requests_pass() {
        for (method, target, host) in [
            ("GET", "/", "example.org"),
            ("GET", "/a?b=c", "example.org:8080"),
            ("OPTIONS", "*", "[::1]:80"),
            ("GET", "http://example.org/x", "example.org"),
            ("GET", "https://[::1]:8443/x", "[::1]:8443"),
            ("GET", "http://under_score:80/x", "under_score:80"),
            ("BREW", "/pot", "10.0.0.1"),
            ("GET", "/", "under_score"),
        ] {
            assert_eq!(status(method, target, &[("host", host)]), 200, "{method} {target} {host}");
        }
        assert_eq!(status("GET", "/", &[("host", "a"), ("upgrade", "h2c")]), 200);
    }

    #[test]
    fn requests_that_must_not_be_forwarded_are_refused() {
        let host = ("host", "a");
        let long: &'static str = Box::leak(format!("/{}", "x".repeat(MAX_TARGET)).into_boxed_str());
        for (method, target, fields, expected) in [
            ("CONNECT", "a", &[host][..], 400),
            ("CONNECT", "user@a:1", &[host], 400),
            ("CONNECT", "a:1", &[host, ("content-length", "3")], 400),
            ("CONNECT", "a:1", &[host, ("transfer-encoding", "chunked")], 400),
            ("CONNECT", "a:1", &[], 400),
            ("GET", "/", &[], 400),
            ("GET", "/", &[host, ("host", "b")], 400),
            ("GET", "/", &[("host", "a b")], 400),
            ("GET", "/", &[("host", "user@a")], 400),
            ("GET", "/", &[("host", "a/b")], 400),
            ("GET", "/", &[("host", "a:b")], 400),
            ("GET", "http://user@a/", &[host], 400),
            ("GET", "http://user:word@a:1/", &[host], 400),
            ("GET", "https://:80/", &[host], 400),
            ("GET", "*", &[host], 400),
            ("GET", "a:1", &[host], 400),
            ("GET", "ftp://a/", &[host], 400),
            ("GET", long, &[host], 414),
            ("POST", "/", &[host, ("transfer-encoding", "gzip, chunked")], 501),
            ("POST", "/", &[host, ("expect", "wonders")], 417),
        ] {
            assert_eq!(status(method, target, fields), expected, "{method} {target} {fields:?}");
        }
    }

    #[test]
    fn a_target_at_the_limit_passes() {
        let target = format!("/{}", "x".repeat(MAX_TARGET - 1));
        assert_eq!(status("GET", &target, &[("host", "a")]), 200);
    }
}
