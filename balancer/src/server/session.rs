//! What is known about one client connection, shared by its guard, its service and its
//! watch: all on one thread.
//!
//!   idle -> (head ->) waiting for the backend -> streaming -> idle
//!
//! A request costs no timer here: phases note when they began, and the connection's
//! one timer looks at them a few times per limit. A limit is therefore kept to a quarter.

use std::cell::{Cell, Ref, RefCell};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::{Duration, Instant};

use http::HeaderValue;

use super::pace::Pace;
use super::tunnel::Tunnel;
use crate::account::{End, Notes};
use crate::proxy::Replay;
use crate::route::Route;

/// Limits on time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Timeouts {
    /// To connect to a backend.
    pub connect: Duration,
    /// From the first byte of a request's head to its last.
    pub request_header: Duration,
    /// From the request (or the last byte of its body) to the head of the answer.
    pub response: Duration,
    /// How long a client may neither send nor take a byte in the middle of a message.
    pub client_stall: Duration,
    /// Bytes a second that a client must take of what waits for it, over `client_stall`; 0 for any.
    pub client_rate: u64,
    /// How long a connection without a request is kept, on both sides.
    pub idle: Duration,
    /// How long a tunnel (WebSocket) is kept without a byte in either direction.
    pub tunnel: Duration,
    /// How long requests may go on after SIGTERM.
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(2),
            request_header: Duration::from_secs(10),
            response: Duration::from_secs(60),
            client_stall: Duration::from_secs(30),
            client_rate: 128,
            idle: Duration::from_secs(60),
            tunnel: Duration::from_secs(3600),
            drain: Duration::from_secs(30),
        }
    }
}

impl Timeouts {
    /// How often a connection looks at its limits.
    pub fn tick(&self) -> Duration {
        let shortest = self.request_header.min(self.response).min(self.client_stall).min(self.idle);
        (shortest / 4).clamp(Duration::from_millis(10), Duration::from_secs(2))
    }
}

/// How long after its last answer a refused client may go on sending.
const LINGER: Duration = Duration::from_secs(1);

/// Where the connection is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    /// No whole head has come.
    Idle,
    /// A request is being forwarded; its answer has not begun.
    Waiting,
    /// The answer is on its way to the client.
    Streaming,
}

/// What the watch has to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finding {
    /// All is well.
    Fine,
    /// No request came for too long: close.
    IdleTooLong,
    /// A head does not get finished: answer 408 and close.
    HeadTooSlow,
    /// The client neither sends nor takes anything: cut.
    ClientStalled,
    /// The exchange has been told that its time is over.
    ExchangeExpired,
}

/// Why an exchange must end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Expired {
    /// The backend did not answer in time.
    Backend,
    /// The client did not send its body in time.
    Client,
}

/// Who is on the other side of a connection, as far as backends are told. A connection that is
/// parked keeps it, so it is small.
#[derive(Debug)]
pub(crate) struct Client {
    /// Its address; over a unix socket it has none.
    pub(crate) address: Option<SocketAddr>,
    /// The address it came to.
    pub(crate) local: Option<SocketAddr>,
    /// Whether it came by TLS.
    pub(crate) tls: bool,
    /// Whether it is a proxy whose own X-Forwarded fields are believed.
    pub(crate) trusted: bool,
    /// The name of the listener it came by.
    pub(crate) listener: Option<Arc<str>>,
}

impl Client {
    pub(crate) fn new(
        address: Option<SocketAddr>,
        local: Option<SocketAddr>,
        tls: bool,
        trusted: bool,
    ) -> Self {
        Self { address, local, tls, trusted, listener: None }
    }

    /// Value of X-Forwarded-For for its requests.
    fn forwarded_for(&self) -> HeaderValue {
        const UNKNOWN: HeaderValue = HeaderValue::from_static("unknown");
        // An IP address in text is always a valid value.
        let as_value = |it: SocketAddr| HeaderValue::from_str(&it.ip().to_canonical().to_string()).ok();
        self.address.and_then(as_value).unwrap_or(UNKNOWN)
    }

    /// Value of X-Forwarded-Proto for its requests.
    pub(crate) fn scheme(&self) -> HeaderValue {
        HeaderValue::from_static(if self.tls { "https" } else { "http" })
    }

    /// Both ends of its connection, if both are known.
    pub(crate) fn ends(&self) -> Option<(SocketAddr, SocketAddr)> {
        self.address.zip(self.local)
    }
}

/// One client connection; of HTTP/2, one stream of it.
pub(crate) struct Session {
    /// Who it is.
    pub(crate) client: Rc<Client>,
    /// Value of X-Forwarded-For for its requests.
    pub(crate) forwarded_for: HeaderValue,
    /// Room for a copy of a request that may have to be sent again.
    pub(crate) replay: RefCell<Replay>,
    phase: Cell<Phase>,
    since: Cell<Instant>,
    in_head: Cell<bool>,
    body_wanted: Cell<bool>,
    body_failed: Cell<bool>,
    write_blocked: Cell<Option<Instant>>,
    /// Bytes given to the kernel, or of a stream to the connection; and those that still wait there.
    given: Cell<u64>,
    waiting: Cell<u64>,
    /// When it was looked at last how much waits.
    measured: Cell<Option<Instant>>,
    pace: Cell<Pace>,
    lingering: Cell<Option<Instant>>,
    expired: Cell<Option<Expired>>,
    /// Of a stream: how many of its connection were given up by the client.
    given_up: Option<Rc<Cell<u32>>>,
    backend_awaited: Cell<bool>,
    had_a_place: Cell<bool>,
    waker: Cell<Option<Waker>>,
    tunnel: Cell<Option<Box<Tunnel>>>,
    route: RefCell<Option<Arc<Route>>>,
    notes: RefCell<Option<Box<Notes>>>,
}

impl Session {
    pub(crate) fn new(client: Rc<Client>, now: Instant) -> Self {
        let forwarded_for = client.forwarded_for();
        Self::of(client, forwarded_for, now)
    }

    fn of(client: Rc<Client>, forwarded_for: HeaderValue, now: Instant) -> Self {
        Self {
            client,
            forwarded_for,
            replay: RefCell::default(),
            phase: Cell::new(Phase::Idle),
            since: Cell::new(now),
            in_head: Cell::new(false),
            body_wanted: Cell::new(false),
            body_failed: Cell::new(false),
            write_blocked: Cell::new(None),
            given: Cell::new(0),
            waiting: Cell::new(0),
            measured: Cell::new(None),
            pace: Cell::default(),
            lingering: Cell::new(None),
            expired: Cell::new(None),
            given_up: None,
            backend_awaited: Cell::new(false),
            had_a_place: Cell::new(false),
            waker: Cell::new(None),
            tunnel: Cell::new(None),
            route: RefCell::default(),
            notes: RefCell::default(),
        }
    }

    /// One stream of an HTTP/2 connection.
    pub(crate) fn of_stream(connection: &Self, given_up: Rc<Cell<u32>>, now: Instant) -> Self {
        let (client, forwarded_for) = (Rc::clone(&connection.client), connection.forwarded_for.clone());
        Self { given_up: Some(given_up), ..Self::of(client, forwarded_for, now) }
    }

    /// The client went away before there was an answer.
    pub(crate) fn is_given_up(&self) {
        if let Some(count) = &self.given_up {
            count.set(count.get().saturating_add(1));
        }
    }

    /// Whether no part of any message is on its way in either direction.
    pub(crate) fn is_quiet(&self) -> bool {
        self.phase.get() == Phase::Idle
            && !self.in_head.get()
            && self.write_blocked.get().is_none()
            && self.lingering.get().is_none()
    }

    /// Since when it is in its phase.
    pub(crate) fn since(&self) -> Instant {
        self.since.get()
    }

    /// The request goes by a route.
    #[inline]
    pub(crate) fn follows(&self, route: &Arc<Route>) {
        self.route.replace(Some(Arc::clone(route)));
    }

    /// The route of the request, once it is known.
    #[inline]
    pub(crate) fn route(&self) -> Ref<'_, Option<Arc<Route>>> {
        self.route.borrow()
    }

    /// The request has a place at a backend.
    #[inline]
    pub(crate) fn has_a_place(&self) {
        self.had_a_place.set(true);
    }

    /// Whether the request had a place at a backend, however it went on.
    pub(crate) fn had_a_place(&self) -> bool {
        self.had_a_place.get()
    }

    /// An account of the request begins.
    pub(crate) fn notes_begin(&self, notes: Notes) {
        self.notes.replace(Some(Box::new(notes)));
    }

    /// Adds to the account of the request, if there is one.
    #[inline]
    pub(crate) fn note(&self, add: impl FnOnce(&mut Notes)) {
        if let Some(notes) = self.notes.borrow_mut().as_deref_mut() {
            add(notes);
        }
    }

    /// The account of a request that is over.
    #[inline]
    pub(crate) fn take_notes(&self) -> Option<Box<Notes>> {
        self.notes.take()
    }

    fn response_limit(&self, limits: &Timeouts) -> Duration {
        let own = self.route.borrow().as_ref().and_then(|route| route.settings.response_timeout);
        own.unwrap_or(limits.response)
    }

    /// The exchange waits; a stream remembers whom to [`wake`](Self::wake).
    #[inline]
    pub(crate) fn waits(&self, waker: &Waker) {
        if self.given_up.is_some() {
            self.waker.set(Some(waker.clone()));
        }
    }

    /// Lets an exchange that waits look again: its time may be over, or its backend gone.
    pub(crate) fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// The answer's body was asked for; `came` says whether a piece was there. Only for
    /// streams, whose client can hold back one answer while it takes others.
    #[inline]
    pub(crate) fn answer_asked_for(&self, came: bool) {
        if self.given_up.is_some() {
            self.backend_awaited.set(!came);
            self.since.set(Instant::now());
        }
    }

    /// The connection becomes a tunnel once the answer is out.
    pub(crate) fn becomes_tunnel(&self, tunnel: Tunnel) {
        self.tunnel.set(Some(Box::new(tunnel)));
    }

    /// What became a tunnel is told of when that ends: gives the account back otherwise.
    pub(crate) fn tell_later(&self, notes: Box<Notes>, end: End) -> Option<(Box<Notes>, End)> {
        match self.tunnel.take() {
            None => Some((notes, end)),
            Some(mut tunnel) => {
                tunnel.account = Some((notes, end));
                self.tunnel.set(Some(tunnel));
                None
            }
        }
    }

    pub(crate) fn take_tunnel(&self) -> Option<Box<Tunnel>> {
        self.tunnel.take()
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// The guard read bytes; `in_head` says whether they end inside of a head.
    #[inline]
    pub(crate) fn bytes_read(&self, in_head: bool) {
        if in_head != self.in_head.get() {
            self.in_head.set(in_head);
            if in_head && self.phase.get() == Phase::Idle {
                self.since.set(Instant::now());
            }
        }
    }

    /// A request begins.
    #[inline]
    pub(crate) fn request_began(&self, now: Instant) {
        self.phase.set(Phase::Waiting);
        self.since.set(now);
        self.body_wanted.set(false);
        self.body_failed.set(false);
        self.backend_awaited.set(false);
        self.had_a_place.set(false);
        self.expired.set(None);
        self.route.replace(None);
    }

    /// Its answer begins.
    #[inline]
    pub(crate) fn answer_began(&self) {
        self.phase.set(Phase::Streaming);
    }

    /// It is over.
    #[inline]
    pub(crate) fn request_ended(&self, now: Instant) {
        self.phase.set(Phase::Idle);
        self.since.set(now);
        self.route.take();
    }

    /// The backend wants more of the request's body than there is.
    pub(crate) fn body_pending(&self) {
        if !self.body_wanted.replace(true) {
            self.since.set(Instant::now());
        }
    }

    /// A piece of the request's body was passed on.
    pub(crate) fn body_moved(&self) {
        self.body_wanted.set(false);
        self.since.set(Instant::now());
    }

    /// The request's body broke off or was malformed.
    pub(crate) fn body_broke(&self) {
        self.body_failed.set(true);
    }

    pub(crate) fn body_failed(&self) -> bool {
        self.body_failed.get()
    }

    /// The client takes no more bytes for now, or takes them again.
    #[inline]
    pub(crate) fn write_blocked(&self, blocked: bool) {
        if blocked {
            if self.write_blocked.get().is_none() {
                self.write_blocked.set(Some(Instant::now()));
            }
        } else {
            self.write_blocked.set(None);
        }
    }

    /// Bytes were given to the kernel, and wait there as far as is known.
    #[inline]
    pub(crate) fn gave(&self, bytes: usize) {
        self.given.set(self.given.get() + bytes as u64);
        self.waiting.set(self.waiting.get() + bytes as u64);
    }

    /// Of a stream: a piece of its answer was given to its connection.
    #[inline]
    pub(crate) fn answer_moved(&self, bytes: usize) {
        if self.given_up.is_some() {
            self.given.set(self.given.get() + bytes as u64);
        }
    }

    /// Whether it is time to look how much waits in the kernel, now that it takes no more.
    pub(crate) fn is_to_be_measured(&self) -> bool {
        /// Between two looks, so that they cost nothing.
        const MOMENT: Duration = Duration::from_millis(100);
        let now = Instant::now();
        let due = self.measured.get().is_none_or(|at| now.saturating_duration_since(at) >= MOMENT);
        if due {
            self.measured.set(Some(now));
        }
        due
    }

    /// So many bytes wait in the kernel for the client to take them.
    pub(crate) fn wait_for_client(&self, bytes: u64) {
        self.waiting.set(bytes);
    }

    /// The last answer is out; what the client still sends is thrown away.
    pub(crate) fn lingers(&self) {
        if self.lingering.get().is_none() {
            self.lingering.set(Some(Instant::now()));
        }
    }

    /// Whether the exchange must end, and whose fault it is.
    #[inline]
    pub(crate) fn expired(&self) -> Option<Expired> {
        self.expired.get()
    }

    /// Looks at the limits.
    pub(crate) fn check(&self, now: Instant, limits: &Timeouts) -> Finding {
        let over = |since: Instant, limit: Duration| now.saturating_duration_since(since) >= limit;
        if self.is_too_slow(now, limits) {
            return Finding::ClientStalled;
        }
        if self.write_blocked.get().is_some_and(|since| over(since, limits.client_stall))
            || self.lingering.get().is_some_and(|since| over(since, LINGER))
        {
            return Finding::ClientStalled;
        }
        let since = self.since.get();
        match self.phase.get() {
            Phase::Idle if self.in_head.get() && over(since, limits.request_header) => Finding::HeadTooSlow,
            Phase::Idle if !self.in_head.get() && over(since, limits.idle) => Finding::IdleTooLong,
            Phase::Waiting if self.body_wanted.get() && over(since, limits.client_stall) => {
                self.expire(Expired::Client)
            }
            Phase::Waiting if !self.body_wanted.get() && over(since, self.response_limit(limits)) => {
                self.expire(Expired::Backend)
            }
            Phase::Streaming if self.holds_back() && over(since, limits.client_stall) => {
                Finding::ClientStalled
            }
            Phase::Idle | Phase::Waiting | Phase::Streaming => Finding::Fine,
        }
    }

    /// Whether the client takes what waits for it too slowly.
    fn is_too_slow(&self, now: Instant, limits: &Timeouts) -> bool {
        let waits = match self.given_up {
            None => self.write_blocked.get().is_some(),
            Some(_) => self.phase.get() == Phase::Streaming && self.holds_back(),
        };
        let mut pace = self.pace.get();
        let taken = self.given.get().saturating_sub(self.waiting.get());
        let look = pace.look(now, waits, taken, limits.client_rate, limits.client_stall);
        self.pace.set(pace);
        if look.moved && self.write_blocked.get().is_some() {
            // The kernel takes nothing more for long after the client has begun to.
            self.write_blocked.set(Some(now));
        }
        look.too_slow
    }

    /// Whether the client of a stream is what its answer waits for.
    fn holds_back(&self) -> bool {
        self.given_up.is_some() && !self.backend_awaited.get()
    }

    fn expire(&self, whose: Expired) -> Finding {
        self.expired.set(Some(whose));
        self.wake();
        Finding::ExchangeExpired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(address: &str) -> Rc<Client> {
        Rc::new(Client::new(Some(address.parse().unwrap()), None, false, false))
    }

    fn session() -> (Session, Instant) {
        let now = Instant::now();
        (Session::new(client("10.0.0.9:1234"), now), now)
    }

    #[test]
    fn an_idle_connection_is_closed_after_its_time_and_not_before() {
        let (session, start) = session();
        let limits = Timeouts::default();
        assert_eq!(session.check(start + Duration::from_secs(59), &limits), Finding::Fine);
        assert_eq!(session.check(start + Duration::from_secs(60), &limits), Finding::IdleTooLong);
    }

    #[test]
    fn a_head_that_dribbles_is_cut_off_whatever_comes_meanwhile() {
        let (session, start) = session();
        let limits = Timeouts::default();
        session.bytes_read(true);
        session.bytes_read(true);
        assert_eq!(session.check(start + Duration::from_secs(9), &limits), Finding::Fine);
        assert_eq!(session.check(start + Duration::from_secs(11), &limits), Finding::HeadTooSlow);
    }

    #[test]
    fn a_backend_that_does_not_answer_expires_and_a_streaming_one_does_not() {
        let (session, start) = session();
        let limits = Timeouts::default();
        session.request_began(start);
        assert_eq!(session.check(start + Duration::from_secs(61), &limits), Finding::ExchangeExpired);
        assert_eq!(session.expired(), Some(Expired::Backend));
        session.request_began(start);
        assert_eq!(session.expired(), None);
        session.answer_began();
        assert_eq!(session.check(start + Duration::from_secs(900), &limits), Finding::Fine);
    }

    #[test]
    fn a_client_that_stops_in_its_body_is_told_apart_from_a_slow_backend() {
        let (session, start) = session();
        let limits = Timeouts::default();
        session.request_began(start);
        session.body_pending();
        assert_eq!(session.check(start + Duration::from_secs(31), &limits), Finding::ExchangeExpired);
        assert_eq!(session.expired(), Some(Expired::Client));
    }

    #[test]
    fn a_client_that_takes_nothing_is_cut() {
        let (session, start) = session();
        let limits = Timeouts::default();
        session.request_began(start);
        session.answer_began();
        session.write_blocked(true);
        assert_eq!(session.check(start + Duration::from_secs(31), &limits), Finding::ClientStalled);
        session.write_blocked(false);
        assert_eq!(session.check(start + Duration::from_secs(31), &limits), Finding::Fine);
    }

    #[test]
    fn an_idle_connection_keeps_no_route() {
        let session = Session::new(client("10.0.0.9:1234"), Instant::now());
        let load = crate::load::RouteLoad::new(1);
        let answer = crate::route::OwnAnswer::Respond { status: http::StatusCode::OK, text: "".into() };
        let action = crate::route::Action::Answer(answer);
        let route = Route::new("a", Default::default(), action, Default::default(), load);
        session.request_began(Instant::now());
        session.follows(&Arc::new(route));
        assert!(session.route().is_some());
        session.request_ended(Instant::now());
        assert!(session.route().is_none());
    }

    #[test]
    fn an_address_mapped_to_ipv6_is_forwarded_as_ipv4() {
        assert_eq!(client("[::ffff:10.1.2.3]:80").forwarded_for(), "10.1.2.3");
        assert_eq!(Client::new(None, None, true, false).forwarded_for(), "unknown");
    }

    #[test]
    fn a_stream_whose_client_holds_it_back_is_told_apart_from_a_slow_backend() {
        let now = Instant::now();
        let connection = Session::new(client("10.0.0.9:1234"), now);
        let session = Session::of_stream(&connection, Rc::default(), now);
        let limits = Timeouts::default();
        session.request_began(now);
        session.answer_began();
        session.answer_asked_for(false);
        assert_eq!(session.check(now + Duration::from_secs(31), &limits), Finding::Fine);
        session.answer_asked_for(true);
        assert_eq!(session.check(now + Duration::from_secs(31), &limits), Finding::ClientStalled);
    }
}
