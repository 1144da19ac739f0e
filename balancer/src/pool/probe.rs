//! Active probes: one task per backend, for as long as it is in the pool.
//!
//! A new backend is asked again a few milliseconds after each refusal. An attempt that
//! stays silent is joined by another, because one that is lost on its way to a VM that
//! is just waking up would wait for a whole TCP retransmission (1 s); not at once,
//! because each costs a VM whose caches are cold as much as the request that waits for
//! it. The first good answer counts; its connection is kept for the probes to come.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::task::JoinSet;

use super::Pool;
use super::backend::{Backend, State};
use super::health::{HealthSettings, Streak, Verdict, probe_gap};
use crate::net::{Address, Stream};

/// Attempts that may be under way at once.
const MAX_ATTEMPTS: usize = 8;
/// An attempt that is silent for this long gets company.
const PATIENCE: Duration = Duration::from_millis(100);

/// Bytes of a probe's answer that are read before its connection is given up.
const MAX_ANSWER: usize = 1 << 20;

/// Why a probe failed, for the log.
#[derive(Debug, thiserror::Error)]
enum ProbeError {
    #[error("cannot connect: {0}")]
    Connect(#[source] io::Error),
    #[error("no answer: {0}")]
    Exchange(#[source] hyper::Error),
    #[error("answered {0}")]
    Status(StatusCode),
    #[error("no answer within {0:?}")]
    Timeout(Duration),
}

/// What came of a probe: the connection, if it can carry the next one.
type Probed = Result<Option<Line>, ProbeError>;

/// A connection over which a probe was answered.
struct Line {
    sender: Sender,
    driver: tokio::task::JoinHandle<()>,
}

/// What requests are given to.
enum Sender {
    Http1(http1::SendRequest<Empty<Bytes>>),
    Http2(http2::SendRequest<Empty<Bytes>>),
}

impl Sender {
    async fn send(&mut self, request: Request<Empty<Bytes>>) -> hyper::Result<Response<Incoming>> {
        match self {
            Self::Http1(sender) => sender.send_request(request).await,
            Self::Http2(sender) => sender.send_request(request).await,
        }
    }

    fn is_ready(&self) -> bool {
        match self {
            Self::Http1(sender) => sender.is_ready(),
            Self::Http2(sender) => sender.is_ready(),
        }
    }

    async fn ready(&mut self) -> hyper::Result<()> {
        match self {
            Self::Http1(sender) => sender.ready().await,
            Self::Http2(sender) => sender.ready().await,
        }
    }
}

impl Line {
    async fn begin(io: TokioIo<Stream>, http2: bool) -> Result<Self, ProbeError> {
        // Errors of a connection reach its sender.
        if http2 {
            let made = http2::handshake(TokioExecutor::new(), io).await;
            let (sender, connection) = made.map_err(ProbeError::Exchange)?;
            let driver = tokio::spawn(async move { drop(connection.await) });
            return Ok(Self { sender: Sender::Http2(sender), driver });
        }
        let (sender, connection) = http1::handshake(io).await.map_err(ProbeError::Exchange)?;
        let driver = tokio::spawn(async move { drop(connection.await) });
        Ok(Self { sender: Sender::Http1(sender), driver })
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Probes `backend` until it is gone.
pub(super) async fn run(pool: Pool, backend: Arc<Backend>) {
    let mut streak = Streak::default();
    let mut kept: Option<Line> = None;
    let mut state = (backend.state(), Instant::now());
    loop {
        if backend.state() != state.0 {
            state = (backend.state(), Instant::now());
        }
        if state.0 == State::Gone {
            return;
        }
        let settings = pool.settings().health.clone();
        let mut gap = probe_gap(state.0, state.1.elapsed(), &settings);
        let result = match state.0 {
            State::Probing => eager(&backend, &settings, state.1).await,
            _ => Some(once(&backend, &settings, kept.take()).await),
        };
        match result {
            Some(result) => {
                let good = result.is_ok();
                match result {
                    Ok(line) => kept = line,
                    Err(error) => tracing::debug!(backend = %backend.id(), %error, "probe failed"),
                }
                match streak.note(good, backend.state(), &settings) {
                    Verdict::Keep => {}
                    Verdict::Admit => pool.admit(&backend),
                    Verdict::Eject => pool.eject(&backend, "probes failed"),
                }
            }
            // Its first request was answered before a probe was, or it is on its way out.
            None => gap = probe_gap(backend.state(), Duration::ZERO, &settings),
        }
        tokio::select! {
            () = tokio::time::sleep(gap) => {}
            () = backend.probe_asked_for() => {}
        }
    }
}

/// Attempts until one is answered well; `None` if there is nothing to find out any more.
async fn eager(backend: &Arc<Backend>, settings: &HealthSettings, since: Instant) -> Option<Probed> {
    let mut attempts = JoinSet::new();
    while backend.state() == State::Probing {
        if backend.in_flight() > 0 && since.elapsed() < PATIENCE {
            // Its first request is the probe.
            tokio::time::sleep(probe_gap(State::Probing, since.elapsed(), settings)).await;
            continue;
        }
        if attempts.len() < MAX_ATTEMPTS {
            let (backend, settings) = (Arc::clone(backend), settings.clone());
            attempts.spawn(async move { once(&backend, &settings, None).await });
        }
        match tokio::time::timeout(PATIENCE, attempts.join_next()).await {
            Ok(Some(Ok(Ok(line)))) => return Some(Ok(line)),
            Ok(_) => tokio::time::sleep(probe_gap(State::Probing, since.elapsed(), settings)).await,
            Err(_silent) => {}
        }
    }
    None
}

/// One probe, over the kept connection if there is one that still works.
async fn once(backend: &Backend, settings: &HealthSettings, kept: Option<Line>) -> Probed {
    within(settings.timeout, async {
        if let Some(mut line) = kept.filter(|line| line.sender.is_ready()) {
            if let Ok(reusable) = ask(&mut line.sender, backend, settings).await {
                return Ok(reusable.then_some(line));
            }
        }
        let mut line = connect(backend).await?;
        let reusable = ask(&mut line.sender, backend, settings).await?;
        Ok(reusable.then_some(line))
    })
    .await
}

async fn within<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, ProbeError>>,
) -> Result<T, ProbeError> {
    tokio::time::timeout(limit, work).await.unwrap_or(Err(ProbeError::Timeout(limit)))
}

async fn connect(backend: &Backend) -> Result<Line, ProbeError> {
    let raw = backend.dial().await.map_err(ProbeError::Connect)?;
    let stream = backend.link().set_up(raw, None).await.map_err(ProbeError::Connect)?;
    Line::begin(TokioIo::new(stream), backend.link().http2).await
}

/// What a backend is called in a probe.
fn authority(backend: &Backend) -> String {
    match (&backend.link().tls, backend.address()) {
        (Some(tls), _) => tls.name.to_str().into_owned(),
        (None, Address::Tcp(address)) => address.to_string(),
        (None, Address::Unix(_)) => "localhost".to_owned(),
    }
}

/// What a probe asks for; over HTTP/2 with scheme and authority.
/// The path was checked when the configuration was read; one that is none asks for `/`.
fn target(backend: &Backend, path: &str) -> Uri {
    let whole = match (backend.link().http2, backend.link().tls.is_some()) {
        (false, _) => path.to_owned(),
        (true, false) => format!("http://{}{path}", authority(backend)),
        (true, true) => format!("https://{}{path}", authority(backend)),
    };
    whole.parse().unwrap_or_default()
}

/// Sends the probe; says whether the connection can be used for the next one.
async fn ask(sender: &mut Sender, backend: &Backend, settings: &HealthSettings) -> Result<bool, ProbeError> {
    let mut request = Request::new(Empty::new());
    *request.uri_mut() = target(backend, &settings.path);
    if !backend.link().http2 {
        let host = HeaderValue::from_str(&authority(backend));
        request.headers_mut().insert(header::HOST, host.unwrap_or(HeaderValue::from_static("flurry")));
    }
    request.headers_mut().insert(header::USER_AGENT, HeaderValue::from_static("flurry-probe"));
    let answer = sender.send(request).await.map_err(ProbeError::Exchange)?;
    let status = answer.status();
    if !(status.is_success() || status.is_redirection()) {
        return Err(ProbeError::Status(status));
    }
    Ok(drained(answer.into_body()).await && sender.ready().await.is_ok())
}

/// Reads the rest of a small answer; a large one costs its connection.
async fn drained(mut body: Incoming) -> bool {
    let mut left = MAX_ANSWER;
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else { return false };
        left = match left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) {
            Some(left) => left,
            None => return false,
        };
    }
    true
}
