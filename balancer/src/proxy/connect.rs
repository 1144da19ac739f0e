//! CONNECT: a tunnel to a host that the client names, where a route allows it.
//!
//! Routes without `connect` are not for it, and whatever is refused is the last answer of its
//! connection: what the client may already have sent for the tunnel must not be read as a request.

use std::io;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONNECTION;
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};

use super::body::ResponseBody;
use super::gate;
use super::reply::last_reply;
use super::screen::Refusal;
use crate::net::{Gathered, Raw, Stream};
use crate::route::{Action, Plan, Route, Seen, TargetPattern};
use crate::server::{Session, Tunnel, Worker};

/// Refuses what is no CONNECT that could be allowed: without a host and a port, or with a body.
pub(super) fn screen<B>(request: &Request<B>) -> Result<(), Refusal> {
    let headers = request.headers();
    if request.version() != Version::HTTP_11 {
        return Err((StatusCode::METHOD_NOT_ALLOWED, "CONNECT is not allowed here\n"));
    }
    if target(request).is_none() || request.uri().scheme().is_some() {
        return Err((StatusCode::BAD_REQUEST, "CONNECT needs a host and a port\n"));
    }
    let length = headers.get(http::header::CONTENT_LENGTH);
    if headers.contains_key(http::header::TRANSFER_ENCODING) || length.is_some_and(|it| it != "0") {
        return Err((StatusCode::BAD_REQUEST, "CONNECT must not have a body\n"));
    }
    Ok(())
}

/// Where it wants to go.
fn target<B>(request: &Request<B>) -> Option<(&str, u16)> {
    let authority = request.uri().authority()?;
    let fine = !authority.as_str().contains('@') && !authority.host().is_empty();
    authority.port_u16().filter(|port| fine && *port != 0).map(|port| (authority.host(), port))
}

/// Answers a CONNECT: with a tunnel, or with why there is none.
pub(super) async fn forward<B>(
    worker: &Rc<Worker>,
    session: &Rc<Session>,
    request: Request<B>,
) -> Response<ResponseBody> {
    let plan = worker.plan();
    let mut answer = match allowed(&plan, session, &request) {
        Some((route, to)) => {
            session.follows(route);
            match gate::refuse(&plan, route, &request, session) {
                Some(refused) => refused,
                None => tunnel(&plan, session, &request, to).await,
            }
        }
        None => last_reply(StatusCode::METHOD_NOT_ALLOWED, "CONNECT is not allowed here\n"),
    };
    if !answer.status().is_success() {
        answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    answer
}

/// The first route for it, with what it allows.
fn allowed<'a, B>(
    plan: &'a Plan,
    session: &Session,
    request: &Request<B>,
) -> Option<(&'a Arc<Route>, &'a [TargetPattern])> {
    let seen = Seen {
        host: request.uri().authority().map_or("", Authority::as_str),
        path: request.uri().path(),
        method: &Method::CONNECT,
        headers: request.headers(),
        listener: session.client.listener.as_deref(),
    };
    plan.routes.iter().find_map(|route| match &route.action {
        Action::Connect(to) if route.matcher.matches(&seen) => Some((route, &**to)),
        Action::Connect(_) | Action::Forward(_) | Action::Answer(_) => None,
    })
}

async fn tunnel<B>(
    plan: &Plan,
    session: &Session,
    request: &Request<B>,
    to: &[TargetPattern],
) -> Response<ResponseBody> {
    let Some((host, port)) = target(request).filter(|(host, port)| to.iter().any(|it| it.fits(host, *port)))
    else {
        return last_reply(StatusCode::FORBIDDEN, "CONNECT may not lead there\n");
    };
    match tokio::time::timeout(plan.timeouts.connect, dial(host, port)).await {
        Ok(Ok(backend)) => {
            session.becomes_tunnel(Tunnel { backend, early: Bytes::new(), permit: None });
            Response::new(ResponseBody::own(""))
        }
        Ok(Err(error)) => {
            tracing::debug!(host, port, %error, "cannot connect a tunnel");
            last_reply(StatusCode::BAD_GATEWAY, "the target of CONNECT cannot be reached\n")
        }
        Err(_elapsed) => {
            last_reply(StatusCode::GATEWAY_TIMEOUT, "the target of CONNECT did not answer in time\n")
        }
    }
}

async fn dial(host: &str, port: u16) -> io::Result<Gathered> {
    let raw = Raw::Tcp(tokio::net::TcpStream::connect((host.trim_matches(['[', ']']), port)).await?);
    raw.set_nodelay()?;
    Ok(Gathered::new(Stream::Plain(raw)))
}
