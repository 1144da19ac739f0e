//! A tier and an admin listener in one thread, well or ill behaved.

use std::collections::BTreeSet;
use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use balancer::admin::status::{CloneStatus, DecisionStatus, EngineStatus, ScalingStatus, Status};
use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

/// How the tier treats requests.
#[derive(Clone, Copy)]
pub(crate) enum Behaviour {
    /// Answers at once.
    Well,
    /// Answers 503.
    ServerError,
    /// Announces more than it sends, then closes.
    CutOff,
    /// Answers nothing before that much time has passed since its start.
    StallFor(Duration),
}

#[derive(Default)]
struct Counts {
    requests: AtomicU64,
    connections: AtomicU64,
    paths: Mutex<BTreeSet<String>>,
}

/// Lives until the test process ends.
pub(crate) struct Tier {
    pub(crate) url: String,
    pub(crate) admin: String,
    counts: Arc<Counts>,
}

/// The URL of an address where nobody listens.
pub(crate) fn nobody() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("http://{}", listener.local_addr().unwrap())
}

impl Tier {
    pub(crate) fn start(behaviour: Behaviour) -> Self {
        let (tier, url) = listener();
        let (admin, admin_url) = listener();
        let counts = Arc::new(Counts::default());
        let counted = counts.clone();
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                tokio::join!(serve_tier(tier, behaviour, counted), serve_admin(admin));
            });
        });
        Self { url, admin: admin_url, counts }
    }

    pub(crate) fn requests(&self) -> u64 {
        self.counts.requests.load(Ordering::SeqCst)
    }

    pub(crate) fn connections(&self) -> u64 {
        self.counts.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn paths_asked(&self) -> Vec<String> {
        self.counts.paths.lock().unwrap().iter().cloned().collect()
    }
}

fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
    listener.set_nonblocking(true).unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    (listener, url)
}

async fn serve_tier(listener: TcpListener, behaviour: Behaviour, counts: Arc<Counts>) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let start = tokio::time::Instant::now();
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let counts = counts.clone();
        if let Behaviour::CutOff = behaviour {
            tokio::spawn(cut_off(stream, counts));
            continue;
        }
        counts.connections.fetch_add(1, Ordering::SeqCst);
        let answer = move |request: Request<Incoming>| {
            counts.requests.fetch_add(1, Ordering::SeqCst);
            counts.paths.lock().unwrap().insert(request.uri().path().to_owned());
            async move {
                if let Behaviour::StallFor(time) = behaviour {
                    tokio::time::sleep_until(start + time).await;
                }
                let status = if matches!(behaviour, Behaviour::ServerError) { 503 } else { 200 };
                let response = Response::builder().status(status);
                let response = response.header("X-Cache", "HIT").header("X-Flurry-Clone", "parent");
                Ok::<_, Infallible>(response.body(Full::new(Bytes::from_static(b"hello"))).unwrap())
            }
        };
        let connection = hyper::server::conn::http1::Builder::new();
        tokio::spawn(connection.serve_connection(TokioIo::new(stream), service_fn(answer)));
    }
}

async fn cut_off(mut stream: tokio::net::TcpStream, counts: Arc<Counts>) {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut buffer = [0; 4096];
    if stream.read(&mut buffer).await.unwrap_or(0) > 0 {
        counts.requests.fetch_add(1, Ordering::SeqCst);
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf").await;
    }
}

/// One decision and one clone after 1 s; the clone is gone after 4 s.
async fn serve_admin(listener: TcpListener) {
    let listener = tokio::net::TcpListener::from_std(listener).unwrap();
    let first_asked = Arc::new(Mutex::new(None));
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        let first_asked = first_asked.clone();
        let answer = move |_: Request<Incoming>| {
            let age = first_asked.lock().unwrap().get_or_insert_with(Instant::now).elapsed();
            let body = serde_json::to_vec(&status(age.as_secs_f64())).unwrap();
            async move { Ok::<_, Infallible>(Response::new(Full::new(Bytes::from(body)))) }
        };
        let connection = hyper::server::conn::http1::Builder::new();
        tokio::spawn(connection.serve_connection(TokioIo::new(stream), service_fn(answer)));
    }
}

fn status(age: f64) -> Status {
    let grown = (1.0..4.0).contains(&age);
    let clone = CloneStatus {
        id: 7,
        state: if grown { "ready" } else { "gone" }.into(),
        fork_to_first_response_ms: Some(180.0),
        ..CloneStatus::default()
    };
    let decision = |at_seconds, action: &str, from, to| DecisionStatus {
        at_seconds,
        action: action.into(),
        from,
        to,
        reason: "for the test".into(),
    };
    let mut decisions =
        vec![decision(0.0, "hold", 1, 1), decision(1.0, "grow", 1, 2), decision(4.0, "shrink", 2, 1)];
    decisions.retain(|decision| decision.at_seconds <= age);
    let ready = if grown { 2 } else { 1 };
    Status {
        version: "0.1.0".into(),
        uptime_seconds: age,
        scaling: ScalingStatus { desired: ready, ready, ..ScalingStatus::default() },
        engine: Some(EngineStatus {
            accelerator: "tcg".into(),
            clones: if age >= 1.0 { vec![clone] } else { Vec::new() },
            boot_to_first_response_ms: Some(9_000.0),
            ..EngineStatus::default()
        }),
        decisions,
        ..Status::default()
    }
}
