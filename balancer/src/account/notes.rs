//! What is noted about one request while it lasts.
//!
//! The head is copied into room of its own: whoever keeps a piece of hyper's buffer makes it
//! take a new one for the next request.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::header::{HOST, REFERER, USER_AGENT};
use http::{HeaderMap, HeaderName, Request, StatusCode, Version};

use super::context::{SpanId, TRACEPARENT, Trace};
use super::{Account, Exemplar};
use crate::load::Ending;
use crate::pool::{Backend, BackendId};

/// Bytes of a target that are kept; longer ones are refused.
const MAX_TARGET: usize = 8 * 1024;
/// Bytes of a field that are kept.
const MAX_FIELD: usize = 1024;

/// What is kept of a request's head, in one piece. Nothing of it but this is ever told.
#[derive(Debug, Clone)]
pub(crate) struct Head {
    text: Box<[u8]>,
    /// Where method, host, target and referer end; the rest is the user agent.
    ends: [usize; 4],
    pub(crate) version: Version,
}

impl Head {
    /// Copies what is told of a request.
    pub(crate) fn of<B>(request: &Request<B>) -> Self {
        let field = |name: HeaderName| request.headers().get(name).map_or(&[][..], |it| it.as_bytes());
        let uri = request.uri();
        let host = uri.authority().map_or_else(|| field(HOST), |it| it.as_str().as_bytes());
        let target = uri
            .path_and_query()
            .map_or_else(|| uri.authority().map_or("", |it| it.as_str()), |it| it.as_str());
        let parts = [
            capped(request.method().as_str().as_bytes(), MAX_FIELD),
            capped(host, MAX_FIELD),
            capped(target.as_bytes(), MAX_TARGET),
            capped(field(REFERER), MAX_FIELD),
            capped(field(USER_AGENT), MAX_FIELD),
        ];
        let mut end = 0;
        let ends = [0, 1, 2, 3].map(|part: usize| {
            end += parts[part].len();
            end
        });
        Self { text: parts.concat().into(), ends, version: request.version() }
    }

    pub(crate) fn method(&self) -> &[u8] {
        &self.text[..self.ends[0]]
    }

    pub(crate) fn host(&self) -> &[u8] {
        &self.text[self.ends[0]..self.ends[1]]
    }

    /// Path and query.
    pub(crate) fn target(&self) -> &[u8] {
        &self.text[self.ends[1]..self.ends[2]]
    }

    pub(crate) fn referer(&self) -> &[u8] {
        &self.text[self.ends[2]..self.ends[3]]
    }

    pub(crate) fn user_agent(&self) -> &[u8] {
        &self.text[self.ends[3]..]
    }

    /// Which HTTP it is, as a log has it.
    pub(crate) fn protocol(&self) -> &'static str {
        match self.version {
            Version::HTTP_10 => "HTTP/1.0",
            Version::HTTP_2 => "HTTP/2.0",
            _ => "HTTP/1.1",
        }
    }
}

fn capped(bytes: &[u8], most: usize) -> &[u8] {
    &bytes[..bytes.len().min(most)]
}

/// A path or URL without its query.
pub(super) fn without_query(target: &[u8]) -> &[u8] {
    target.split(|byte| *byte == b'?').next().unwrap_or_default()
}

/// One backend that was tried.
#[derive(Debug, Clone)]
pub(crate) struct Try {
    pub(crate) backend: BackendId,
    /// Whether it is spoken with over TLS.
    pub(crate) secure: bool,
    /// What it is in the trace.
    pub(crate) span: Option<SpanId>,
    pub(crate) began: Instant,
    /// When the head of its answer was here, or it had failed.
    pub(crate) ended: Option<Instant>,
    pub(crate) status: Option<StatusCode>,
    /// Why there was no answer.
    pub(crate) error: Option<&'static str>,
}

/// How a request ended.
#[derive(Debug, Clone)]
pub(crate) struct End {
    pub(crate) at: Instant,
    /// 0 without an answer.
    pub(crate) status: u16,
    pub(crate) ending: Ending,
    pub(crate) route: Option<Arc<str>>,
}

/// The account of one request.
#[derive(Clone)]
pub(crate) struct Notes {
    account: Arc<Account>,
    /// The trace that it is part of.
    pub(crate) trace: Option<Trace>,
    secure: bool,
    pub(crate) head: Head,
    pub(crate) client: Option<IpAddr>,
    pub(crate) time: SystemTime,
    pub(crate) began: Instant,
    /// Bytes of the bodies.
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    /// Time in line for a backend.
    pub(crate) queued: Duration,
    in_line_since: Option<Instant>,
    pub(crate) tries: Vec<Try>,
    /// Why it was not answered by a backend, or not well.
    pub(crate) why: Option<bytes::Bytes>,
    pub(crate) end: Option<End>,
    tunnelled: bool,
}

impl Notes {
    pub(crate) fn new(account: Arc<Account>, head: Head, client: Option<IpAddr>, began: Instant) -> Self {
        let (time, queued) = (SystemTime::now(), Duration::ZERO);
        let (bytes_in, bytes_out, in_line_since, tries, why, end) = (0, 0, None, Vec::new(), None, None);
        let (trace, secure, tunnelled) = (None, false, false);
        Self {
            account,
            trace,
            secure,
            head,
            client,
            time,
            began,
            bytes_in,
            bytes_out,
            queued,
            in_line_since,
            tries,
            why,
            end,
            tunnelled,
        }
    }

    /// The same, of a request that is part of a trace and came by TLS or not.
    pub(super) fn part_of(self, trace: Option<Trace>, secure: bool) -> Self {
        Self { trace, secure, ..self }
    }

    /// How it came.
    pub(super) fn scheme(&self) -> &'static str {
        if self.secure { "https" } else { "http" }
    }

    /// Tells the backend that is tried which trace this is.
    pub(crate) fn stamp(&self, headers: &mut HeaderMap) {
        let step = self.tries.last().and_then(|last| last.span);
        if let Some(value) = self.trace.zip(step).and_then(|(trace, step)| trace.passed_on(step)) {
            headers.insert(TRACEPARENT, value);
        }
    }

    /// It stands in line from now on.
    pub(crate) fn in_line(&mut self) {
        self.in_line_since = Some(Instant::now());
    }

    fn leaves_line(&mut self, now: Instant) {
        if let Some(since) = self.in_line_since.take() {
            self.queued += now.saturating_duration_since(since);
        }
    }

    /// It has a place at a backend.
    pub(crate) fn tries(&mut self, backend: &Backend) {
        let began = Instant::now();
        self.leaves_line(began);
        let (ended, status, error) = (None, None, None);
        let (secure, backend) = (backend.link().tls.is_some(), backend.id().clone());
        let span = self.trace.and_then(|_| SpanId::random());
        self.tries.push(Try { backend, secure, span, began, ended, status, error });
    }

    /// The head of the backend's answer is here.
    pub(crate) fn answered(&mut self, status: StatusCode) {
        if let Some(last) = self.tries.last_mut() {
            (last.ended, last.status) = (Some(Instant::now()), Some(status));
        }
    }

    /// The backend did not answer.
    pub(crate) fn failed(&mut self, error: &'static str) {
        if let Some(last) = self.tries.last_mut() {
            (last.ended, last.error) = (Some(Instant::now()), Some(error));
        }
    }

    /// One of two backends was sooner, or is all that is left: it counts as the last try.
    pub(crate) fn settled(&mut self, winner: &BackendId) {
        let now = Instant::now();
        for lost in self.tries.iter_mut().filter(|it| it.ended.is_none() && it.backend != *winner) {
            (lost.ended, lost.error) = (Some(now), Some("another backend was sooner"));
        }
        if let Some(index) = self.tries.iter().rposition(|it| it.backend == *winner) {
            let winner = self.tries.remove(index);
            self.tries.push(winner);
        }
    }

    /// It became a tunnel, through which so many bytes went each way.
    pub(crate) fn tunnelled(&mut self, from_client: u64, from_backend: u64) {
        self.bytes_in += from_client;
        self.bytes_out += from_backend;
        self.tunnelled = true;
    }

    /// Time at backends until the heads of their answers.
    pub(crate) fn upstream(&self) -> Option<Duration> {
        let end = self.end.as_ref().map_or(self.began, |end| end.at);
        let one = |it: &Try| it.ended.unwrap_or(end).saturating_duration_since(it.began);
        (!self.tries.is_empty()).then(|| self.tries.iter().map(one).sum())
    }

    /// The same as an example of its latency, if its trace can be looked at.
    pub(super) fn exemplar(&self) -> Option<Exemplar> {
        // How long a tunnel lasted is no latency.
        let trace = self.trace.filter(|trace| trace.is_sampled() && !self.tunnelled)?;
        let latency = self.end.as_ref()?.at.saturating_duration_since(self.began);
        Some(Exemplar { trace: trace.id, latency, time: self.time + latency })
    }

    /// What went wrong, in words.
    pub(crate) fn reason(&self) -> Option<&[u8]> {
        let end = self.end.as_ref()?;
        match (end.ending, &self.why) {
            (Ending::CutOff, _) => Some(b"the backend broke off in the middle of its answer"),
            (Ending::Abandoned, _) => Some(b"the client went away"),
            (Ending::Answered, why) => why.as_deref().map(<[u8]>::trim_ascii_end),
        }
    }

    /// It is over: those who want to be told are told.
    pub(crate) fn finish(mut self: Box<Self>, end: End) {
        self.leaves_line(end.at);
        self.end = Some(end);
        let account = Arc::clone(&self.account);
        account.take(self);
    }
}
