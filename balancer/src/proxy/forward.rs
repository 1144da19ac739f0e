//! The way of one request: a place at a backend, a connection, an answer; and if that
//! fails, what can be done about it.
//!
//!   take a place -> take or make a connection -> exchange -> stream the answer
//!         ^                  |                      |
//!         +-- never sent ----+---- idempotent ------+       otherwise: 502, 503, 504

use std::future::{Future, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;
use std::time::Instant;

use http::uri::{Authority, PathAndQuery, Scheme};
use http::{HeaderValue, Method, Request, Response, StatusCode, Uri, Version, header};
use hyper::body::{Body, Incoming};

use super::affinity::{self, Affinity};
use super::body::{RequestBody, ResponseBody};
use super::connect;
use super::gate;
use super::headers;
use super::hedge;
use super::reply::{last_reply, reply};
use super::retry::may_repeat;
use super::upgrade;
use super::upstream::{ConnectError, ExchangeError, Upstream};
use crate::account::Notes;
use crate::pool::{Backend, Permit, Pool, Priority, Refused, State, Wish, is_local};
use crate::route::{Action, OwnAnswer, Plan, Route, Seen, Template};
use crate::server::{Expired, Session, Worker};

/// The first request of a new backend does not wait for a second try of TCP, which comes after 1 s: it
/// goes back into the line, and the probes take over.
const FIRST_CONNECT: Duration = Duration::from_millis(500);

/// Backends that one request may try. Each connect failure ejects one, so this is only
/// reached where backends fail and return all the time.
pub(super) const MAX_TRIES: u32 = 16;

/// Answers a request: with a backend's answer, or with why there is none.
pub(crate) async fn forward(
    worker: Rc<Worker>,
    session: Rc<Session>,
    request: Request<Incoming>,
) -> Response<ResponseBody> {
    if request.method() == Method::CONNECT {
        return Box::pin(connect::forward(&worker, &session, request)).await;
    }
    let (plan, route) = routed(&worker, &session, &request);
    let mut answer = match (gate::refuse(&plan, &route, &request, &session), &route.action) {
        (Some(refused), _) => refused,
        (None, Action::Forward(pool)) => {
            to_backends(Trip::new(&worker, &session, &plan, &route, pool), request).await
        }
        (None, Action::Connect(_)) => reply(StatusCode::NOT_FOUND, "this is for CONNECT alone\n"),
        (None, Action::Answer(OwnAnswer::Redirect { status, to })) => redirect(&request, *status, to),
        (None, Action::Answer(OwnAnswer::Respond { status, text })) => respond(*status, text),
    };
    if !route.is_plain {
        route.settings.response_headers.apply(answer.headers_mut());
    }
    answer
}

async fn to_backends(mut trip: Trip<'_>, request: Request<Incoming>) -> Response<ResponseBody> {
    let (worker, session, route) = (trip.worker, trip.session, trip.route);
    if route.is_scaled {
        worker.counters.scaled.arrived.bump();
    }
    gate::earn(worker, route);
    let pool = trip.pool;
    trip.key = pool.hash_by().and_then(|by| affinity::key(&by, &request, session));
    trip.affinity = Affinity::of(pool, &request, session);
    trip.priority = gate::priority(pool, route, &request);
    if upgrade::is_wanted(&request) {
        // Boxed, as everything rare: the future of each request is moved a few times, and
        // has room for all that may happen to it.
        return Box::pin(upgrade::forward(trip, request)).await;
    }
    let request = prepare(request, session, route);
    session.replay.borrow_mut().keep(&request);
    let answer = trip.run(request).await;
    session.replay.borrow_mut().forget();
    answer
}

/// The plan and the route that the request follows until its end.
fn routed(worker: &Worker, session: &Session, request: &Request<Incoming>) -> (Arc<Plan>, Arc<Route>) {
    let plan = worker.plan();
    let route = Arc::clone(plan.route(|| Seen {
        host: host_of(request),
        path: request.uri().path(),
        method: request.method(),
        headers: request.headers(),
        listener: session.client.listener.as_deref(),
    }));
    session.follows(&route);
    (plan, route)
}

/// The host that is asked for: of an absolute target, or of HTTP/2's `:authority`, else
/// the field `Host`.
fn host_of<B>(request: &Request<B>) -> &str {
    let named = || request.headers().get(header::HOST).and_then(|host| host.to_str().ok());
    request.uri().authority().map(Authority::as_str).or_else(named).unwrap_or_default()
}

fn redirect(request: &Request<Incoming>, status: StatusCode, to: &Template) -> Response<ResponseBody> {
    let path = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    let target = to.fill(host_of(request), path).and_then(|target| HeaderValue::try_from(target).ok());
    let Some(target) = target else {
        return reply(StatusCode::BAD_REQUEST, "there is no redirect for this request\n");
    };
    let mut answer = reply(status, "");
    answer.headers_mut().insert(header::LOCATION, target);
    answer
}

fn respond(status: StatusCode, text: &str) -> Response<ResponseBody> {
    reply(status, "").map(|_| ResponseBody::configured(text))
}

/// Turns a client's request into a backend's, in place.
pub(super) fn prepare(
    request: Request<Incoming>,
    session: &Rc<Session>,
    route: &Route,
) -> Request<RequestBody> {
    let (mut parts, body) = request.into_parts();
    if parts.version == Version::HTTP_2 {
        headers::join_cookies(&mut parts.headers);
    }
    if parts.uri.scheme().is_some() {
        to_origin_form(&mut parts);
    }
    headers::to_backend(&mut parts.headers, session);
    if !route.is_plain {
        route.settings.rewrite.apply(&mut parts);
        route.settings.request_headers.apply(&mut parts.headers);
    }
    parts.version = Version::HTTP_11;
    parts.extensions.clear();
    let body = match body.is_end_stream() {
        true => RequestBody::Empty,
        false => RequestBody::Client(body, Rc::clone(session)),
    };
    Request::from_parts(parts, body)
}

/// The host of an absolute target replaces Host (RFC 9112 3.2.2).
fn to_origin_form(parts: &mut http::request::Parts) {
    let authority = parts.uri.authority().and_then(|it| HeaderValue::from_str(it.as_str()).ok());
    if let Some(host) = authority {
        parts.headers.insert(header::HOST, host);
    }
    let path = parts.uri.path_and_query().cloned();
    parts.uri = path.map(Uri::from).unwrap_or_default();
}

/// HTTP/2 has no Host: scheme and authority are part of the target.
fn to_absolute_form(request: &mut Request<RequestBody>, backend: &Backend) {
    let scheme = if backend.link().tls.is_some() { Scheme::HTTPS } else { Scheme::HTTP };
    let host = request.headers_mut().remove(header::HOST);
    let authority = host.and_then(|host| Authority::try_from(host.as_bytes()).ok());
    let Some(authority) = authority.or(request.uri().authority().cloned()) else { return };
    let mut parts = std::mem::take(request.uri_mut()).into_parts();
    (parts.scheme, parts.authority) = (Some(scheme), Some(authority));
    // Scheme, authority and path each were valid: so is the whole.
    *request.uri_mut() = Uri::from_parts(parts).unwrap_or_default();
    request.headers_mut().remove(header::TRANSFER_ENCODING);
}

fn broke_off() -> Response<ResponseBody> {
    last_reply(StatusCode::BAD_GATEWAY, "the backend broke off without an answer\n")
}

/// What to do after a try that failed.
pub(super) enum Next {
    Again(Request<RequestBody>),
    Answer(Response<ResponseBody>),
}

/// One request on its way, over one backend or several.
pub(super) struct Trip<'a> {
    pub(super) worker: &'a Rc<Worker>,
    pub(super) session: &'a Rc<Session>,
    pub(super) plan: &'a Plan,
    pub(super) route: &'a Route,
    pub(super) pool: &'a Pool,
    /// The backend that failed last.
    avoid: Option<u64>,
    /// What it has in common with requests for the same backend.
    key: Option<u64>,
    /// The backend that its client sticks to.
    affinity: Option<Affinity>,
    /// Where it stands if there is a line.
    priority: Priority,
    /// Whether only a new connection will do.
    fresh: bool,
    /// Whether it stood in line, so that the backend had less than the whole time for it.
    queued: bool,
}

impl<'a> Trip<'a> {
    fn new(
        worker: &'a Rc<Worker>,
        session: &'a Rc<Session>,
        plan: &'a Plan,
        route: &'a Route,
        pool: &'a Pool,
    ) -> Self {
        let (avoid, key, affinity, priority) = (None, None, None, Priority::default());
        let (fresh, queued) = (false, false);
        Self { worker, session, plan, route, pool, avoid, key, affinity, priority, fresh, queued }
    }

    async fn run(mut self, mut request: Request<RequestBody>) -> Response<ResponseBody> {
        for _ in 0..MAX_TRIES {
            let permit = match self.place(may_repeat(&request)).await {
                Ok(permit) => permit,
                Err(refused) => return self.refused(refused),
            };
            let mut upstream = match self.connection(&permit).await {
                Ok(upstream) => upstream,
                Err(error) => match self.connect_failed(&permit, &error, request) {
                    Next::Again(same) => {
                        request = same;
                        continue;
                    }
                    Next::Answer(answer) => return answer,
                },
            };
            permit.count_request();
            self.ready_for(&mut request, permit.backend());
            let sent = self.pool.clock();
            if permit.is_trial() {
                match Box::pin(self.trial(request, &mut upstream, &permit)).await {
                    Ok(answer) => {
                        self.pool.answered_after(permit.backend(), answer.status(), sent);
                        return self.answered(answer, upstream, permit);
                    }
                    Err(Next::Again(again)) => request = again,
                    Err(Next::Answer(answer)) => return answer,
                }
                continue;
            }
            if let Some(after) = hedge::delay(self.route, &request) {
                match Box::pin(self.hedged(after, request, upstream, permit)).await {
                    Ok(answer) => return answer,
                    Err(Next::Again(again)) => request = again,
                    Err(Next::Answer(answer)) => return answer,
                }
                continue;
            }
            match upstream.exchange(request, self.session, permit.backend()).await {
                Ok(answer) => {
                    self.pool.answered_after(permit.backend(), answer.status(), sent);
                    return self.answered(answer, upstream, permit);
                }
                Err(error) => {
                    self.discard_if_dead(&error, &upstream, permit.backend());
                    match self.exchange_failed(error, upstream.was_idle(), permit.backend()) {
                        Next::Again(again) => request = again,
                        Next::Answer(answer) => return answer,
                    }
                }
            }
        }
        reply(StatusCode::BAD_GATEWAY, "no backend could be reached\n")
    }

    /// Makes a request one for this backend.
    #[inline]
    pub(super) fn ready_for(&self, request: &mut Request<RequestBody>, backend: &Backend) {
        self.session.note(|notes| notes.stamp(request.headers_mut()));
        if backend.link().http2 {
            to_absolute_form(request, backend);
        }
    }

    /// An exchange that brought nothing in time: it may be the connection that is dead, and nobody else
    /// shall wait for it.
    pub(super) fn discard_if_dead(&self, error: &ExchangeError, upstream: &Upstream, backend: &Backend) {
        if let (ExchangeError::Expired(Expired::Backend), Upstream::Shared(shared)) = (error, upstream) {
            self.worker.idle.borrow_mut().discard(backend.serial(), shared);
        }
    }

    /// A place at another backend than the first one, now or not at all. A client that sticks to a
    /// backend stays there.
    pub(super) fn place_beside(&self, first: u64) -> Option<Permit> {
        if self.affinity.is_some() {
            return None;
        }
        let wish = Wish { avoid: Some(first), ..self.wish(false) };
        let permit = self.pool.take_now(&mut self.worker.rng.borrow_mut(), wish)?;
        (permit.backend().serial() != first).then_some(permit)
    }

    /// The request that stands for the first probe of a new backend. Unless it is answered well within the
    /// time of a probe, it goes back into the line and probes take over. That costs no budget: we chose to
    /// send it where nobody had answered yet.
    async fn trial(
        &mut self,
        request: Request<RequestBody>,
        upstream: &mut Upstream,
        permit: &Permit,
    ) -> Result<Response<Incoming>, Next> {
        let backend = permit.backend();
        let exchange = upstream.exchange(request, self.session, backend);
        match tokio::time::timeout(self.pool.probe_timeout(), exchange).await {
            Ok(Ok(answer)) if !answer.status().is_server_error() => return Ok(answer),
            Ok(Err(error @ ExchangeError::Expired(_))) => {
                return Err(self.exchange_failed(error, false, backend));
            }
            Ok(Ok(_) | Err(_)) | Err(_) => {}
        }
        tracing::debug!(backend = %backend.id(), "its first request was not answered well");
        self.session.note(|notes| notes.failed("not answered well in place of a probe"));
        (self.avoid, self.fresh) = (Some(backend.serial()), true);
        self.worker.counters.retries.bump();
        // Only what may be repeated is sent ahead, and of that there is a copy.
        let copy = self.session.replay.borrow().request();
        Err(copy.map_or_else(|| Next::Answer(broke_off()), Next::Again))
    }

    /// A place at a backend: at once if there is one, else in line. A request that may be repeated may be
    /// the first of a new backend.
    pub(super) async fn place(&mut self, may_be_first: bool) -> Result<Permit, Refused> {
        let wish = self.wish(may_be_first);
        let taken = self.pool.take_now(&mut self.worker.rng.borrow_mut(), wish);
        let permit = match taken {
            Some(permit) => permit,
            None => {
                self.worker.counters.queued.bump();
                self.queued = true;
                self.session.note(Notes::in_line);
                self.in_line(wish).await?
            }
        };
        self.session.has_a_place();
        self.session.note(|notes| notes.tries(permit.backend()));
        Ok(permit)
    }

    fn wish(&self, may_be_first: bool) -> Wish {
        let prefer = self.affinity.as_ref().and_then(Affinity::prefers);
        let patience = self.route.traffic.queue_timeout;
        Wish { avoid: self.avoid, key: self.key, prefer, may_be_first, priority: self.priority, patience }
    }

    /// Stands in line until the time for an answer is over.
    async fn in_line(&self, wish: Wish) -> Result<Permit, Refused> {
        let mut called = Box::pin(self.pool.take_in_line(wish));
        poll_fn(|cx| {
            if self.session.expired().is_some() {
                return Poll::Ready(Err(Refused::TimedOut));
            }
            self.session.waits(cx.waker());
            called.as_mut().poll(cx)
        })
        .await
    }

    pub(super) async fn connection(&self, permit: &Permit) -> Result<Upstream, ConnectError> {
        let (backend, link) = (permit.backend(), permit.backend().link());
        if !self.fresh {
            let mut idle = self.worker.idle.borrow_mut();
            let taken = match link.http2 {
                true => idle.take_shared(backend.serial()),
                false => idle.take(backend.serial()),
            };
            if let Some(upstream) = taken {
                return Ok(upstream);
            }
        }
        self.worker.counters.connects.bump();
        let ends = self.session.client.ends();
        let limit = self.plan.timeouts.connect;
        let limit = if backend.state() == State::Probing { limit.min(FIRST_CONNECT) } else { limit };
        let connecting = Box::pin(Upstream::connect(backend, ends, limit));
        let upstream = connecting.await?;
        if let Upstream::Shared(shared) = &upstream {
            if link.is_shared() {
                self.worker.idle.borrow_mut().share(backend.serial(), shared);
            }
        }
        Ok(upstream)
    }

    pub(super) fn answered(
        &self,
        answer: Response<Incoming>,
        upstream: Upstream,
        permit: Permit,
    ) -> Response<ResponseBody> {
        self.pool.answered(permit.backend(), answer.status());
        self.session.note(|notes| notes.answered(answer.status()));
        if answer.status().is_informational() {
            // Only 101 gets here, and nobody asked for it.
            return last_reply(StatusCode::BAD_GATEWAY, "the backend switched protocols unasked\n");
        }
        let (mut parts, body) = answer.into_parts();
        headers::to_client(&mut parts.headers);
        parts.version = Version::HTTP_11;
        parts.extensions.clear();
        if let Some(affinity) = &self.affinity {
            affinity.tell(&mut parts.headers, permit.backend());
        }
        let (worker, session) = (Rc::clone(self.worker), Rc::clone(self.session));
        let body = ResponseBody::backend(body, upstream, permit, worker, session);
        Response::from_parts(parts, body)
    }

    pub(super) fn refused(&self, refused: Refused) -> Response<ResponseBody> {
        let counters = &self.worker.counters;
        let (counter, text) = match refused {
            Refused::QueueFull => (&counters.queue_full, "too many requests are waiting for a backend\n"),
            Refused::TimedOut => (&counters.queue_timeout, "no backend became free in time\n"),
            Refused::Displaced => {
                (&counters.queue_full, "more important requests are waiting for a backend\n")
            }
        };
        counter.bump();
        reply(StatusCode::SERVICE_UNAVAILABLE, text)
    }

    pub(super) fn connect_failed(
        &mut self,
        permit: &Permit,
        error: &ConnectError,
        request: Request<RequestBody>,
    ) -> Next {
        self.worker.counters.connect_failures.bump();
        let backend = permit.backend();
        tracing::debug!(backend = %backend.id(), %error, "connect failed");
        self.session.note(|notes| notes.failed("no connection"));
        if matches!(error, ConnectError::Io(error) if is_local(error)) {
            tracing::warn!(%error, "this host cannot make connections for now");
            return Next::Answer(reply(StatusCode::SERVICE_UNAVAILABLE, "out of connections\n"));
        }
        self.pool.exchange_failed(backend);
        self.pool.eject(backend, "connect failed");
        self.avoid = Some(backend.serial());
        self.worker.counters.retries.bump();
        Next::Again(request)
    }

    pub(super) fn exchange_failed(
        &mut self,
        error: ExchangeError,
        stale: bool,
        backend: &Arc<Backend>,
    ) -> Next {
        let worker = self.worker;
        self.session.note(|notes| notes.failed(error.word()));
        match error {
            ExchangeError::NotSent(request) => {
                worker.counters.retries.bump();
                self.leave(backend, stale);
                Next::Again(*request)
            }
            _ if self.session.body_failed() => {
                Next::Answer(last_reply(StatusCode::BAD_REQUEST, "the body of the request is malformed\n"))
            }
            ExchangeError::Expired(Expired::Client) => Next::Answer(last_reply(
                StatusCode::REQUEST_TIMEOUT,
                "the body of the request did not come\n",
            )),
            ExchangeError::Expired(Expired::Backend) => {
                if !self.queued {
                    self.pool.exchange_failed(backend);
                }
                Next::Answer(last_reply(StatusCode::GATEWAY_TIMEOUT, "the backend did not answer in time\n"))
            }
            ExchangeError::Broken(error) => {
                tracing::debug!(backend = %backend.id(), %error, stale, "exchange failed");
                self.again_or_502(backend, stale)
            }
            ExchangeError::Cut => self.again_or_502(backend, false),
        }
    }

    /// Sent, and no answer: again if that is safe and within the budget. A connection that
    /// was closed while idle says nothing about its backend, and costs no budget.
    fn again_or_502(&mut self, backend: &Arc<Backend>, stale: bool) -> Next {
        let copy = self.session.replay.borrow().request();
        let first_stale = stale && !self.fresh;
        self.leave(backend, stale);
        let Some(request) = copy else { return Next::Answer(broke_off()) };
        if !first_stale && !gate::may_retry(self.worker, self.route, Instant::now()) {
            self.worker.counters.retries_denied.bump();
            return Next::Answer(broke_off());
        }
        self.worker.counters.retries.bump();
        Next::Again(request)
    }

    /// The next try goes over a new connection, and to another backend if this one failed.
    fn leave(&mut self, backend: &Arc<Backend>, stale: bool) {
        self.fresh = true;
        if stale {
            self.worker.idle.borrow_mut().forget(backend.serial());
        } else {
            self.pool.exchange_failed(backend);
            self.avoid = Some(backend.serial());
        }
    }
}
