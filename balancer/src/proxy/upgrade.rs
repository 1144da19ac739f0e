//! Requests that want to become something else than HTTP (WebSocket).
//!
//! The offer is passed on over a connection of its own. If the backend accepts with 101,
//! the answer goes to the client and both connections become a tunnel; anything else is
//! an ordinary answer. An offer of `h2c` is ignored: HTTP/2 without TLS begins with its
//! preface.

use std::rc::Rc;

use http::header::{CONNECTION, TRANSFER_ENCODING, UPGRADE};
use http::{HeaderMap, HeaderName, HeaderValue, Request, Response, StatusCode, Version};
use hyper::body::Incoming;

use super::body::{RequestBody, ResponseBody};
use super::forward::{MAX_TRIES, Next, Trip, prepare};
use super::headers;
use super::reply::{last_reply, reply};
use super::screen::Refusal;
use super::upstream::{AfterUpgrade, Upstream};
use crate::pool::Permit;
use crate::server::{Session, Tunnel};

/// What is offered, without `h2c`.
fn offer(headers: &HeaderMap) -> Option<HeaderValue> {
    let wanted: Vec<&[u8]> = tokens(headers, UPGRADE).filter(|to| !to.eq_ignore_ascii_case(b"h2c")).collect();
    if wanted.is_empty() { None } else { HeaderValue::from_bytes(&wanted.join(&b", "[..])).ok() }
}

fn names_upgrade(headers: &HeaderMap) -> bool {
    tokens(headers, CONNECTION).any(|token| token.eq_ignore_ascii_case(b"upgrade"))
}

/// What the fields of a name list.
fn tokens(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &[u8]> {
    let all = headers.get_all(name).into_iter().flat_map(|it| it.as_bytes().split(|byte| *byte == b','));
    all.map(<[u8]>::trim_ascii).filter(|token| !token.is_empty())
}

/// Whether a request wants to become something else.
pub(super) fn is_wanted<B>(request: &Request<B>) -> bool {
    request.version() == Version::HTTP_11
        && request.headers().contains_key(UPGRADE)
        && names_upgrade(request.headers())
        && offer(request.headers()).is_some()
}

/// Refuses what no server could agree to: several protocols in several fields, and a body,
/// whose end would be the beginning of the tunnel.
pub(super) fn screen<B>(request: &Request<B>) -> Result<(), Refusal> {
    let headers = request.headers();
    if !is_wanted(request) {
        return Ok(());
    }
    if headers.get_all(UPGRADE).iter().count() > 1 {
        return Err((StatusCode::BAD_REQUEST, "Upgrade is given more than once\n"));
    }
    let length = headers.get(http::header::CONTENT_LENGTH);
    if headers.contains_key(TRANSFER_ENCODING) || length.is_some_and(|it| it != "0") {
        return Err((StatusCode::BAD_REQUEST, "an upgrade must not have a body\n"));
    }
    Ok(())
}

/// Passes the offer on, and answers with what the backend makes of it.
pub(super) async fn forward(trip: Trip<'_>, request: Request<Incoming>) -> Response<ResponseBody> {
    let session = Rc::clone(trip.session);
    let wanted = offer(request.headers());
    let mut request = prepare(request, &session, trip.route);
    if let Some(wanted) = wanted {
        request.headers_mut().insert(UPGRADE, wanted);
        request.headers_mut().insert(CONNECTION, HeaderValue::from_static("upgrade"));
    }
    session.replay.borrow_mut().keep(&request);
    let answer = offered(trip, request).await;
    session.replay.borrow_mut().forget();
    answer
}

/// Tries backends until one answers.
async fn offered(mut trip: Trip<'_>, mut request: Request<RequestBody>) -> Response<ResponseBody> {
    for _ in 0..MAX_TRIES {
        let permit = match trip.place(false).await {
            Ok(permit) => permit,
            Err(refused) => return trip.refused(refused),
        };
        if permit.backend().link().http2 {
            return no_upgrade();
        }
        let (ends, limit) = (trip.session.client.ends(), trip.plan.timeouts.connect);
        trip.worker.counters.connects.bump();
        let next = match Upstream::connect(permit.backend(), ends, limit).await {
            Ok(Upstream::Single(upstream)) => {
                permit.count_request();
                trip.session.note(|notes| notes.stamp(request.headers_mut()));
                match upstream.upgrade(request, trip.session, permit.backend()).await {
                    Ok((answer, after)) => return answered(&trip, answer, after, permit),
                    Err(error) => trip.exchange_failed(error, false, permit.backend()),
                }
            }
            Ok(Upstream::Shared(_)) => return no_upgrade(),
            Err(error) => trip.connect_failed(&permit, &error, request),
        };
        match next {
            Next::Again(again) => request = again,
            Next::Answer(answer) => return answer,
        }
    }
    reply(StatusCode::BAD_GATEWAY, "no backend could be reached\n")
}

fn no_upgrade() -> Response<ResponseBody> {
    reply(StatusCode::NOT_IMPLEMENTED, "backends that speak HTTP/2 cannot be upgraded\n")
}

fn answered(
    trip: &Trip<'_>,
    answer: Response<Incoming>,
    after: AfterUpgrade,
    permit: Permit,
) -> Response<ResponseBody> {
    match after {
        AfterUpgrade::Http(upstream) => trip.answered(answer, Upstream::Single(upstream), permit),
        AfterUpgrade::Tunnel(backend, early) => {
            permit.backend().note_answer();
            trip.session.note(|notes| notes.answered(answer.status()));
            accepted(answer, Tunnel { backend, early, permit: Some(permit), account: None }, trip.session)
        }
    }
}

/// Makes the answer that accepts, and leaves the tunnel with the session.
fn accepted(answer: Response<Incoming>, tunnel: Tunnel, session: &Session) -> Response<ResponseBody> {
    let (mut parts, _) = answer.into_parts();
    let protocol = parts.headers.get(UPGRADE).cloned();
    headers::to_client(&mut parts.headers);
    let Some(protocol) = protocol else {
        return last_reply(StatusCode::BAD_GATEWAY, "the backend did not say what it switched to\n");
    };
    parts.headers.insert(UPGRADE, protocol);
    parts.headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    parts.extensions.clear();
    session.becomes_tunnel(tunnel);
    Response::from_parts(parts, ResponseBody::own(""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(fields: &[(&'static str, &'static str)]) -> Request<()> {
        let mut request = Request::builder().uri("/");
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap()
    }

    #[test]
    fn an_upgrade_is_named_twice() {
        let both = [("connection", "keep-alive, Upgrade"), ("upgrade", "websocket")];
        assert!(is_wanted(&request(&both)));
        assert!(!is_wanted(&request(&both[..1])) && !is_wanted(&request(&both[1..])));
        assert!(!is_wanted(&request(&[("connection", "upgrade"), ("upgrade", "h2c")])));
    }

    #[test]
    fn h2c_is_taken_out_of_what_is_offered() {
        for (offered, passed_on) in [
            ("websocket", Some("websocket")),
            ("h2c, websocket", Some("websocket")),
            ("a/1 , H2C,websocket", Some("a/1, websocket")),
            ("h2c , ,h2C", None),
        ] {
            let passed = offer(request(&[("upgrade", offered)]).headers());
            assert_eq!(passed, passed_on.map(HeaderValue::from_static), "{offered}");
        }
        assert!(!is_wanted(&request(&[("connection", "upgrade"), ("upgrade", "h2c, h2c")])));
    }

    #[test]
    fn an_upgrade_with_a_body_is_refused() {
        let both = [("connection", "upgrade"), ("upgrade", "websocket")];
        assert!(screen(&request(&both)).is_ok());
        for extra in [("content-length", "3"), ("transfer-encoding", "chunked"), ("upgrade", "other")] {
            assert!(screen(&request(&[both[0], both[1], extra])).is_err(), "{extra:?}");
        }
    }
}
