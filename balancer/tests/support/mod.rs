//! Backends, clients and a front door for tests with real sockets on loopback.

#![allow(
    dead_code,
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    reason = "each test program uses a part of it"
)]

use std::convert::Infallible;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use balancer::config::Config;
use balancer::front::Front;
use balancer::pool::{BackendId, BackendSpec, Initial, Tcp};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::{JoinHandle, JoinSet};

pub const SECOND: Duration = Duration::from_secs(1);

/// Opens a front door on free ports; `extra` is more YAML.
pub async fn front(backends: &[SocketAddr], extra: &str) -> Front {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("flurry.yaml");
    let list: Vec<String> = backends.iter().map(|it| format!("'{it}'")).collect();
    let backends =
        if list.is_empty() { "['127.0.0.1:1']".to_owned() } else { format!("[{}]", list.join(", ")) };
    let text =
        format!("listen: ['127.0.0.1:0']\nadmin: 127.0.0.1:0\nworkers: 2\nbackends: {backends}\n{extra}\n");
    std::fs::write(&file, text).unwrap();
    let mut config = Config::load(&file).unwrap_or_else(|error| panic!("{error}"));
    if list.is_empty() {
        config.pool.backends.clear();
    }
    Front::open(&config).await.unwrap_or_else(|error| panic!("{error}"))
}

/// A folder with a whole configuration and the files it names.
pub struct Site {
    pub folder: tempfile::TempDir,
}

impl Site {
    pub fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    pub fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.folder.path().join(name), content).unwrap();
    }

    /// Makes a certificate of its own for a name: `NAME.pem` and `NAME.key`.
    pub fn certificate(&self, name: &str) {
        let made = rcgen::generate_simple_self_signed(vec![name.to_owned()]).unwrap();
        self.write(&format!("{name}.pem"), made.cert.pem());
        self.write(&format!("{name}.key"), made.signing_key.serialize_pem());
    }

    pub fn config(&self, text: &str) -> Config {
        self.write("flurry.yaml", format!("admin: 127.0.0.1:0\nworkers: 2\n{text}\n"));
        Config::load(&self.folder.path().join("flurry.yaml")).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Opens a front door and waits until a backend is ready.
    pub async fn open(&self, text: &str) -> Front {
        let front = Front::open(&self.config(text)).await.unwrap_or_else(|error| panic!("{error}"));
        let pool = front.handles().pool;
        eventually("a backend is ready", || !pool.snapshot().ready.is_empty()).await;
        front
    }
}

/// Opens a front door and waits until all backends are ready.
pub async fn ready_front(backends: &[SocketAddr], extra: &str) -> Front {
    let front = front(backends, extra).await;
    let pool = front.handles().pool;
    for backend in backends {
        let id = BackendId::from(backend.to_string());
        tokio::time::timeout(5 * SECOND, pool.wait_ready(&id)).await.expect("ready in time").unwrap();
    }
    front
}

pub fn spec(address: SocketAddr) -> BackendSpec {
    let id = BackendId::from(address.to_string());
    BackendSpec { id, address: address.into(), dialer: Arc::new(Tcp), initial: Initial::Probing }
}

pub async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..1000 {
        if holds() {
            return;
        }
        tokio::time::sleep(SECOND / 200).await;
    }
    panic!("not within five seconds: {what}");
}

/// A backend that is a real HTTP server; it is gone, connections and all, when dropped.
pub struct Backend {
    pub address: SocketAddr,
    /// Requests other than probes.
    pub requests: Arc<AtomicU64>,
    /// Connections other than those that only carried probes.
    pub connections: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl Drop for Backend {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Backend {
    /// Serves requests with `answer`; probes are answered for it.
    pub async fn serve<F, A>(answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
        A: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        Self::serve_at(SocketAddr::from(([127, 0, 0, 1], 0)), answer).await
    }

    pub async fn serve_at<F, A>(address: SocketAddr, answer: F) -> Self
    where
        F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
        A: Future<Output = Response<Full<Bytes>>> + Send + 'static,
    {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (requests, connections) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
        let counts = (Arc::clone(&requests), Arc::clone(&connections));
        let task = tokio::spawn(async move {
            let mut open = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                stream.set_nodelay(true).unwrap();
                open.spawn(serve_one(stream, counts.0.clone(), counts.1.clone(), answer.clone()));
            }
        });
        Self { address, requests, connections, task }
    }

    /// Answers everything with 200 and `text`.
    pub async fn text(text: &'static str) -> Self {
        Self::serve(move |_| async move { ok(text) }).await
    }

    pub fn count(&self) -> u64 {
        self.requests.load(SeqCst)
    }
}

/// A backend that gives each answer once it is let.
pub async fn gated(text: &'static str) -> (Backend, Arc<Semaphore>) {
    let gate = Arc::new(Semaphore::new(0));
    let opened = Arc::clone(&gate);
    let backend = Backend::serve(move |_| {
        let gate = Arc::clone(&opened);
        async move {
            gate.acquire().await.unwrap().forget();
            ok(text)
        }
    })
    .await;
    (backend, gate)
}

async fn serve_one<F, A>(stream: TcpStream, requests: Arc<AtomicU64>, connections: Arc<AtomicU64>, answer: F)
where
    F: Fn(Request<Incoming>) -> A + Clone + Send + 'static,
    A: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let counted = Arc::new(AtomicU64::new(0));
    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
        let probe = request.headers().get("user-agent").is_some_and(|it| it == "flurry-probe");
        if !probe {
            requests.fetch_add(1, SeqCst);
            if counted.swap(1, SeqCst) == 0 {
                connections.fetch_add(1, SeqCst);
            }
        }
        let answer = (!probe).then(|| answer(request));
        async move {
            Ok::<_, Infallible>(match answer {
                Some(answer) => answer.await,
                None => ok("probed"),
            })
        }
    });
    let _ = hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
}

pub fn ok(text: &'static str) -> Response<Full<Bytes>> {
    Response::new(Full::new(Bytes::from_static(text.as_bytes())))
}

/// A backend made of raw bytes: `answer` gets each connection's stream and the first head.
/// Probes are answered for it.
pub async fn raw_backend<F, A>(answer: F) -> SocketAddr
where
    F: Fn(TcpStream, String) -> A + Clone + Send + 'static,
    A: Future<Output = ()> + Send + 'static,
{
    listener(move |mut stream| {
        let answer = answer.clone();
        async move {
            while let Some(head) = read_head(&mut stream).await {
                if !head.contains("flurry-probe") {
                    return answer(stream, head).await;
                }
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").await;
            }
        }
    })
    .await
}

/// Listens for whatever comes; `serve` gets each connection.
pub async fn listener<F, A>(serve: F) -> SocketAddr
where
    F: Fn(TcpStream) -> A + Send + 'static,
    A: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(serve(stream));
        }
    });
    address
}

/// Reads to the end of a head; `None` at the end of the stream.
pub async fn read_head(stream: &mut TcpStream) -> Option<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

/// A client that sends exactly the bytes it is told to.
pub struct Wire(pub TcpStream);

impl Wire {
    pub async fn connect(front: &Front) -> Self {
        let stream = TcpStream::connect(front.listen()[0]).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self(stream)
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).await.unwrap();
    }

    pub async fn get(&mut self, path: &str) -> (String, String) {
        self.send(format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")).await;
        self.answer().await
    }

    pub async fn head(&mut self) -> String {
        let head = tokio::time::timeout(10 * SECOND, read_head(&mut self.0)).await;
        head.expect("an answer in time").expect("an answer before the end")
    }

    /// One answer: its head, and as much body as Content-Length says.
    pub async fn answer(&mut self) -> (String, String) {
        let head = self.head().await;
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
        let mut body = vec![0; length.map_or(0, |length| length.parse().unwrap())];
        tokio::time::timeout(10 * SECOND, self.0.read_exact(&mut body)).await.expect("in time").unwrap();
        (head, String::from_utf8(body).unwrap())
    }

    /// Everything until the connection ends, which it must do in time.
    pub async fn rest(&mut self) -> String {
        let mut rest = Vec::new();
        let read = tokio::time::timeout(10 * SECOND, self.0.read_to_end(&mut rest)).await;
        let _ = read.expect("the connection ends in time");
        String::from_utf8_lossy(&rest).into_owned()
    }
}

/// What became of a load.
#[derive(Debug, Default, Clone)]
pub struct Outcome {
    pub answered: u64,
    pub failures: Vec<String>,
}

/// A number of clients that send one request after the other until they are stopped.
pub struct Load {
    stop: tokio::sync::watch::Sender<bool>,
    clients: JoinSet<Outcome>,
}

impl Load {
    pub fn start(target: SocketAddr, clients: usize) -> Self {
        let stop = tokio::sync::watch::Sender::new(false);
        let mut set = JoinSet::new();
        for _ in 0..clients {
            set.spawn(client(target, stop.subscribe()));
        }
        Self { stop, clients: set }
    }

    pub async fn stop(self) -> Outcome {
        self.stop.send_replace(true);
        self.ended().await
    }

    pub async fn ended(mut self) -> Outcome {
        let mut all = Outcome::default();
        while let Some(outcome) = self.clients.join_next().await {
            let outcome = outcome.unwrap();
            all.answered += outcome.answered;
            all.failures.extend(outcome.failures);
        }
        all
    }
}

/// One client. It connects anew when it was told to; refused connections end it.
async fn client(target: SocketAddr, stop: tokio::sync::watch::Receiver<bool>) -> Outcome {
    let mut outcome = Outcome::default();
    'connect: while !*stop.borrow() {
        let Ok(stream) = TcpStream::connect(target).await else { break };
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.unwrap();
        tokio::spawn(connection);
        while !*stop.borrow() {
            if sender.ready().await.is_err() {
                continue 'connect;
            }
            let request = Request::get("/").header("host", "a").body(Empty::<Bytes>::new()).unwrap();
            let answer = match sender.send_request(request).await {
                Ok(answer) => answer,
                Err(error) => {
                    outcome.failures.push(format!("no answer: {error:?}"));
                    continue 'connect;
                }
            };
            let (status, last) = (answer.status(), answer.headers().get("connection").is_some());
            match answer.into_body().collect().await {
                Ok(body) if status == StatusCode::OK => {
                    outcome.answered += 1;
                    drop(body);
                }
                Ok(_) => outcome.failures.push(format!("answered {status}")),
                Err(error) => outcome.failures.push(format!("cut off: {error:?}")),
            }
            if last {
                continue 'connect;
            }
        }
    }
    outcome
}
