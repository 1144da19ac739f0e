//! CONNECT: a tunnel to a host that the client names, where a route allows it.
//!
//! Routes without `connect` are not for it, and whatever is refused is the last answer of its
//! connection: what the client may already have sent for the tunnel must not be read as a request.

use std::io;
use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;

use bytes::Bytes;
use http::header::CONNECTION;
use http::uri::Authority;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use ipnet::IpNet;
use nix::ifaddrs::getifaddrs;
use nix::sys::socket::SockaddrStorage;

use super::body::ResponseBody;
use super::gate;
use super::reply::last_reply;
use super::screen::Refusal;
use crate::net::{Gathered, Raw, Stream};
use crate::route::{Action, Plan, Route, Seen, Targets, may_dial};
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
) -> Option<(&'a Arc<Route>, &'a Targets)> {
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
    targets: &Targets,
) -> Response<ResponseBody> {
    let named = target(request).filter(|(host, port)| targets.to.iter().any(|it| it.fits(host, *port)));
    let Some((host, port)) = named else { return forbidden() };
    match tokio::time::timeout(plan.timeouts.connect, dial(host, port, &targets.networks)).await {
        Ok(Ok(backend)) => {
            session.becomes_tunnel(Tunnel { backend, early: Bytes::new(), permit: None, account: None });
            Response::new(ResponseBody::own(""))
        }
        Ok(Err(error)) if error.kind() == io::ErrorKind::PermissionDenied => {
            tracing::debug!(host, port, %error, "a tunnel is not allowed");
            forbidden()
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

fn forbidden() -> Response<ResponseBody> {
    last_reply(StatusCode::FORBIDDEN, "CONNECT may not lead there\n")
}

/// Connects to the first address of a host that may be dialled and answers. What is looked at is what
/// is dialled: the name is not asked for again.
async fn dial(host: &str, port: u16, allowed: &[IpNet]) -> io::Result<Gathered> {
    let own = own_networks()?;
    let found = tokio::net::lookup_host((host.trim_matches(['[', ']']), port)).await?;
    let mut last = io::Error::new(io::ErrorKind::PermissionDenied, "it has no address that may be dialled");
    for address in found.filter(|address| may_dial(address.ip(), allowed, &own)) {
        match tokio::net::TcpStream::connect(address).await {
            Ok(stream) => {
                let raw = Raw::Tcp(stream);
                raw.set_nodelay()?;
                return Ok(Gathered::new(Stream::Plain(raw)));
            }
            // Not «forbidden», whatever a filter of packets says.
            Err(error) => last = io::Error::new(io::ErrorKind::NotConnected, error),
        }
    }
    Err(last)
}

/// The networks that this host has addresses in.
fn own_networks() -> io::Result<Vec<IpNet>> {
    let ip = |address: SockaddrStorage| {
        let v4 = address.as_sockaddr_in().map(|it| IpAddr::V4(it.ip()));
        v4.or_else(|| address.as_sockaddr_in6().map(|it| IpAddr::V6(it.ip())))
    };
    let networks = getifaddrs()?.filter_map(|interface| {
        let address = interface.address.and_then(ip)?;
        let mask = interface.netmask.and_then(ip);
        mask.and_then(|mask| IpNet::with_netmask(address, mask).ok()).or(Some(address.into()))
    });
    Ok(networks.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_hosts_own_networks_have_its_loopback_among_them() {
        let own = own_networks().unwrap();
        assert!(own.iter().any(|net| net.contains(&IpAddr::from([127, 0, 0, 1]))), "{own:?}");
    }

    #[tokio::test]
    async fn a_name_that_leads_to_this_host_is_not_dialled_unless_its_network_is_allowed() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        for host in ["localhost", "127.0.0.1", "[::ffff:127.0.0.1]"] {
            let refused = dial(host, port, &[]).await.err().map(|error| error.kind());
            assert_eq!(refused, Some(io::ErrorKind::PermissionDenied), "{host}");
        }
        assert!(dial("localhost", port, &["127.0.0.0/8".parse().unwrap()]).await.is_ok());
    }
}
