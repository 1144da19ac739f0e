//! What is known about one client connection, shared by its guard, its service and its
//! watch: all on one thread.
//!
//!   idle -> (head ->) waiting for the backend -> streaming -> idle
//!
//! A request costs no timer here: phases note when they began, and the connection's
//! one timer looks at them a few times per limit. A limit is therefore kept to a quarter.

use std::cell::{Cell, RefCell};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use http::HeaderValue;

use crate::proxy::Replay;

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
    /// How long a connection without a request is kept, on both sides.
    pub idle: Duration,
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
            idle: Duration::from_secs(60),
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

/// One client connection.
pub(crate) struct Session {
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
    lingering: Cell<Option<Instant>>,
    expired: Cell<Option<Expired>>,
}

impl Session {
    pub(crate) fn new(peer: SocketAddr, now: Instant) -> Self {
        let address = peer.ip().to_canonical().to_string();
        // An IP address in text is always a valid value.
        let forwarded_for =
            HeaderValue::from_str(&address).unwrap_or_else(|_| HeaderValue::from_static("unknown"));
        Self {
            forwarded_for,
            replay: RefCell::default(),
            phase: Cell::new(Phase::Idle),
            since: Cell::new(now),
            in_head: Cell::new(false),
            body_wanted: Cell::new(false),
            body_failed: Cell::new(false),
            write_blocked: Cell::new(None),
            lingering: Cell::new(None),
            expired: Cell::new(None),
        }
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
        self.expired.set(None);
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
            Phase::Waiting if !self.body_wanted.get() && over(since, limits.response) => {
                self.expire(Expired::Backend)
            }
            Phase::Idle | Phase::Waiting | Phase::Streaming => Finding::Fine,
        }
    }

    fn expire(&self, whose: Expired) -> Finding {
        self.expired.set(Some(whose));
        Finding::ExchangeExpired
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn session() -> (Session, Instant) {
        let now = Instant::now();
        (Session::new(SocketAddr::from(([10, 0, 0, 9], 1234)), now), now)
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
    fn an_address_mapped_to_ipv6_is_forwarded_as_ipv4() {
        let session = Session::new("[::ffff:10.1.2.3]:80".parse().unwrap(), Instant::now());
        assert_eq!(session.forwarded_for, "10.1.2.3");
    }
}
