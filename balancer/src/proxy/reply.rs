//! Answers of our own: short, plain, and with what the client should do next.

use http::header::{CONNECTION, CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};

use super::body::ResponseBody;

/// Seconds after which a client may try again. Forks take a tenth of it.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// An answer after which the connection goes on.
pub(crate) fn reply(status: StatusCode, text: &'static str) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::own(text));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain"));
    if status == StatusCode::SERVICE_UNAVAILABLE {
        response.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
    }
    response
}

/// An answer after which the connection is closed.
pub(crate) fn last_reply(status: StatusCode, text: &'static str) -> Response<ResponseBody> {
    let mut response = reply(status, text);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}
