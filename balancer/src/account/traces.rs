//! Traces: which requests are part of one, and the thread that sends their spans to a collector.
//!
//! The thread gathers spans for a second or until there are enough, and sends them by OTLP over
//! HTTP, as JSON. What does not fit into its channel is dropped and counted, and so is what the
//! collector does not take in time: nothing is sent twice.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, HOST};
use http::{HeaderMap, HeaderValue, Request, StatusCode, Uri};
use http_body_util::Full;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

use super::AccountError;
use super::context::{TRACEPARENT, TRACESTATE, Trace};
use super::notes::Notes;
use super::spans;

/// Between two looks at the channel.
const PAUSE: Duration = Duration::from_millis(20);
/// The longest time that spans are gathered.
const GATHER: Duration = Duration::from_secs(1);
/// Requests whose spans are sent at once.
const BATCH: usize = 512;
/// Requests whose spans may wait.
const MAX_WAITING: usize = 4096;

/// Who is believed about the trace of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trust {
    /// Trusted proxies.
    Proxies,
    /// Everyone.
    Everyone,
    /// Nobody: traces begin here.
    Nobody,
}

/// Traces, as they are configured.
#[derive(Debug, Clone, PartialEq)]
pub struct TracingSettings {
    /// Where spans are sent, by OTLP over HTTP; `None` sends none.
    pub endpoint: Option<Uri>,
    /// Share of the requests without a trace that one is begun for, 0 to 1.
    pub sample: f64,
    /// Whose `traceparent` counts.
    pub trust: Trust,
    /// The longest time for one delivery.
    pub timeout: Duration,
    /// What is said of this Flurry: `service.name` and others.
    pub resource: Vec<(String, String)>,
}

/// What became of requests' spans.
#[derive(Debug, Default)]
pub(crate) struct SpanCounts {
    pub(crate) sent: AtomicU64,
    /// Too many were waiting.
    pub(crate) dropped: AtomicU64,
    /// The collector did not take them.
    pub(crate) failed: AtomicU64,
}

enum Message {
    Over(Box<Notes>),
    End(SyncSender<()>),
}

/// Traces, for those whose requests may be part of one.
pub(crate) struct Tracing {
    settings: TracingSettings,
    sender: Option<SyncSender<Message>>,
    counts: Arc<SpanCounts>,
}

impl Tracing {
    /// What there was if it is to be the same, else a new one that goes on counting.
    pub(super) fn follow(
        settings: &TracingSettings,
        old: Option<&Arc<Self>>,
    ) -> Result<Arc<Self>, AccountError> {
        match old {
            Some(old) if old.settings == *settings => Ok(Arc::clone(old)),
            _ => Self::start(settings, old.map(|old| Arc::clone(&old.counts)).unwrap_or_default()),
        }
    }

    fn start(settings: &TracingSettings, counts: Arc<SpanCounts>) -> Result<Arc<Self>, AccountError> {
        let settings = settings.clone();
        let Some(endpoint) = settings.endpoint.clone() else {
            return Ok(Arc::new(Self { settings, sender: None, counts }));
        };
        let (sender, messages) = sync_channel(MAX_WAITING);
        let (timeout, resource) = (settings.timeout, settings.resource.clone());
        let exporter = Exporter { messages, endpoint, timeout, resource, counts: Arc::clone(&counts) };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(AccountError::Thread)?;
        let thread = thread::Builder::new().name("traces".to_owned());
        thread.spawn(move || exporter.run(&runtime)).map_err(AccountError::Thread)?;
        Ok(Arc::new(Self { settings, sender: Some(sender), counts }))
    }

    /// The trace that a request is part of, if any. What it says itself goes if its sender is not
    /// believed, or it is malformed.
    pub(super) fn begin(&self, headers: &mut HeaderMap, from_proxy: bool) -> Option<Trace> {
        let believed = match self.settings.trust {
            Trust::Proxies => from_proxy,
            Trust::Everyone => true,
            Trust::Nobody => false,
        };
        let told = believed.then(|| Trace::told(headers)).flatten();
        if told.is_none() {
            headers.remove(TRACEPARENT);
            headers.remove(TRACESTATE);
        }
        told.or_else(|| Trace::sampled(self.settings.sample))
    }

    /// Takes the account of a request that is part of a trace, if there is room for it.
    pub(super) fn send(&self, notes: &Notes) {
        let (Some(sender), Some(trace)) = (&self.sender, &notes.trace) else { return };
        if trace.is_sampled() && sender.try_send(Message::Over(Box::new(notes.clone()))).is_err() {
            self.counts.dropped.fetch_add(1 + notes.tries.len() as u64, Relaxed);
        }
    }

    /// Waits until what was taken is sent, or for the time that one delivery may take.
    pub(super) fn close(&self) {
        let Some(messages) = &self.sender else { return };
        let (sender, done) = sync_channel(0);
        if !matches!(messages.try_send(Message::End(sender)), Err(TrySendError::Full(_))) {
            // The hang-up is the answer.
            let _ = done.recv_timeout(self.settings.timeout + GATHER);
        }
    }

    pub(super) fn counts(&self) -> &SpanCounts {
        &self.counts
    }
}

/// Why a collector has no spans.
#[derive(Debug, thiserror::Error)]
enum ExportError {
    #[error("cannot connect: {0}")]
    Connect(#[source] std::io::Error),
    #[error("the exchange broke off: {0}")]
    Exchange(#[from] hyper::Error),
    #[error("the request cannot be made: {0}")]
    Request(#[from] http::Error),
    #[error("the collector answered {0}")]
    Answer(StatusCode),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

struct Exporter {
    messages: Receiver<Message>,
    endpoint: Uri,
    timeout: Duration,
    resource: Vec<(String, String)>,
    counts: Arc<SpanCounts>,
}

impl Exporter {
    /// Until nobody can send any more.
    fn run(self, runtime: &tokio::runtime::Runtime) {
        let mut well = true;
        while let Ok(first) = self.messages.recv() {
            let (spans, ends) = self.gather(first);
            if spans.is_empty() {
                continue;
            }
            let count = spans.len() as u64;
            let sent = runtime.block_on(self.deliver(spans));
            let counter = if sent.is_ok() { &self.counts.sent } else { &self.counts.failed };
            counter.fetch_add(count, Relaxed);
            if let (Err(error), true) = (&sent, well) {
                tracing::warn!(endpoint = %self.endpoint, %error, "traces are lost until the collector is well");
            }
            well = sent.is_ok();
            drop(ends);
        }
    }

    /// Spans for one delivery, and who waits for it.
    fn gather(&self, first: Message) -> (Vec<Value>, Vec<SyncSender<()>>) {
        let (mut spans, mut requests, mut ends) = (Vec::new(), 0, Vec::new());
        let until = Instant::now() + GATHER;
        let mut next = Some(first);
        loop {
            match next {
                Some(Message::Over(notes)) => {
                    spans.extend(spans::of(&notes));
                    requests += 1;
                }
                Some(Message::End(done)) => ends.push(done),
                None if !ends.is_empty() || Instant::now() >= until => break,
                None => thread::sleep(PAUSE),
            }
            if requests >= BATCH {
                break;
            }
            next = self.messages.try_recv().ok();
        }
        (spans, ends)
    }

    async fn deliver(&self, spans: Vec<Value>) -> Result<(), ExportError> {
        let body = spans::document(&self.resource, spans).to_string();
        match tokio::time::timeout(self.timeout, self.post(body)).await {
            Ok(sent) => sent,
            Err(_elapsed) => Err(ExportError::Timeout(self.timeout)),
        }
    }

    async fn post(&self, body: String) -> Result<(), ExportError> {
        let host = self.endpoint.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = self.endpoint.port_u16().unwrap_or(80);
        let stream = TcpStream::connect((host, port)).await.map_err(ExportError::Connect)?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let path = self.endpoint.path_and_query().map_or("/", |it| it.as_str());
        let authority = self.endpoint.authority().map_or("", |it| it.as_str());
        let request = Request::post(path).header(HOST, authority);
        let request = request.header(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let request = request.body(Full::new(Bytes::from(body)))?;
        let answer = tokio::select! {
            biased;
            answer = sender.send_request(request) => answer?,
            // It ends before its answer only if it broke, which the answer says.
            Err(error) = connection => return Err(error.into()),
        };
        match answer.status() {
            status if status.is_success() => Ok(()),
            status => Err(ExportError::Answer(status)),
        }
    }
}
