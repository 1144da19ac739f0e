//! Active probes: one task per backend, for as long as it is in the pool.
//!
//! A new backend is asked every few milliseconds. Attempts overlap, because one that
//! is lost on its way to a VM that is just waking up would wait for a whole TCP
//! retransmission (1 s). The first good answer counts; its connection is kept for the
//! probes to come.

use std::future::Future;
use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::task::JoinSet;

use super::Pool;
use super::backend::{Backend, State};
use super::health::{HealthSettings, Streak, Verdict, probe_gap};

/// Attempts that may be under way at once.
const MAX_ATTEMPTS: usize = 8;

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

/// A connection over which a probe was answered.
struct Line {
    sender: SendRequest<Empty<Bytes>>,
    driver: tokio::task::JoinHandle<()>,
}

impl Drop for Line {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Probes `backend` until it is gone.
pub(super) async fn run(pool: Pool, backend: Arc<Backend>) {
    let settings = pool.health().clone();
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
        let gap = probe_gap(state.0, state.1.elapsed(), &settings);
        let result = match state.0 {
            State::Probing => eager(&backend, &settings, state.1).await,
            _ => once(&backend, &settings, kept.take()).await,
        };
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
        tokio::select! {
            () = tokio::time::sleep(gap) => {}
            () = backend.probe_asked_for() => {}
        }
    }
}

/// Starts an attempt at every tick until one is answered well.
async fn eager(
    backend: &Arc<Backend>,
    settings: &HealthSettings,
    since: Instant,
) -> Result<Option<Line>, ProbeError> {
    let mut attempts = JoinSet::new();
    loop {
        if attempts.len() < MAX_ATTEMPTS {
            let (backend, settings) = (Arc::clone(backend), settings.clone());
            attempts.spawn(async move { once(&backend, &settings, None).await });
        }
        let tick = tokio::time::sleep(probe_gap(State::Probing, since.elapsed(), settings));
        tokio::pin!(tick);
        loop {
            tokio::select! {
                () = &mut tick => break,
                Some(ended) = attempts.join_next() => {
                    if let Ok(Ok(line)) = ended {
                        return Ok(line);
                    }
                }
            }
        }
        if backend.state() != State::Probing {
            // Drained or removed meanwhile: the run loop takes it from here.
            return Err(ProbeError::Timeout(since.elapsed()));
        }
    }
}

/// One probe, over the kept connection if there is one that still works.
async fn once(
    backend: &Backend,
    settings: &HealthSettings,
    kept: Option<Line>,
) -> Result<Option<Line>, ProbeError> {
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
    let stream = backend.dialer().dial(backend.address()).await.map_err(ProbeError::Connect)?;
    stream.set_nodelay(true).map_err(ProbeError::Connect)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(ProbeError::Exchange)?;
    let driver = tokio::spawn(async move {
        // Its errors reach the sender.
        let _ = connection.await;
    });
    Ok(Line { sender, driver })
}

/// Sends the probe; says whether the connection can be used for the next one.
async fn ask(
    sender: &mut SendRequest<Empty<Bytes>>,
    backend: &Backend,
    settings: &HealthSettings,
) -> Result<bool, ProbeError> {
    let mut request = Request::new(Empty::new());
    // Checked when the configuration was read; a path that is none asks for `/`.
    *request.uri_mut() = settings.path.parse().unwrap_or_default();
    let host = http::HeaderValue::from_str(&backend.address().to_string());
    request.headers_mut().insert(header::HOST, host.unwrap_or(http::HeaderValue::from_static("flurry")));
    request.headers_mut().insert(header::USER_AGENT, http::HeaderValue::from_static("flurry-probe"));
    let answer = sender.send_request(request).await.map_err(ProbeError::Exchange)?;
    let status = answer.status();
    if !(status.is_success() || status.is_redirection()) {
        return Err(ProbeError::Status(status));
    }
    Ok(drained(answer.into_body()).await && sender.ready().await.is_ok())
}

/// Reads the rest of a small answer; a large one costs its connection.
async fn drained(mut body: hyper::body::Incoming) -> bool {
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
