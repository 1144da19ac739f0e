//! The player's HTTP client: keep-alive connections and one exchange on them.
//!
//! It has no pool: [`super::player`] owns the idle connections and hands one to
//! each exchange, which hands it back. Nothing is retried once a byte may have
//! been written: a request that a tier cuts off is a failed request.
//!
//! ```text
//! url -> Target --resolve--> Endpoint --connect--> Connection --get--> Answer
//! ```

use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, StatusCode, Uri, header};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::Instant;

/// How long tier and admin listener may take to accept a first connection.
pub const REACH_TIMEOUT: Duration = Duration::from_secs(5);
/// The largest body of a document that is kept, bytes.
const MAX_DOCUMENT_BYTES: usize = 8 * 1024 * 1024;
/// Idle connections older than this are dropped rather than used: servers
/// commonly close after 5 s or more, and a request that races with that close
/// would count as failed.
const MAX_IDLE: Duration = Duration::from_secs(4);

/// An `http://host:port` with an optional base path, as the user gave it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    host: String,
    port: u16,
    base: String,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |why: &str| format!("must be http://host:port, {why}, got {text:?}");
        let uri: Uri = text.parse().map_err(|_| wrong("without blanks"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(wrong("for the player speaks plain HTTP only")),
            _ => return Err(wrong("with its scheme")),
        }
        if uri.query().is_some() {
            return Err(wrong("without a query (use --path)"));
        }
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(|| wrong("with a host"))?;
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let base = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { host, port: uri.port_u16().unwrap_or(80), base })
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "http://{}{}", self.authority(), self.base)
    }
}

impl Target {
    /// `host:port`, with brackets around an IPv6 address.
    fn authority(&self) -> String {
        let Self { host, port, .. } = self;
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// Finds an address of the target that accepts connections.
    ///
    /// # Errors
    /// One sentence: what was tried, and why nothing answered in time.
    pub async fn resolve(&self) -> Result<Endpoint, String> {
        let attempt = async {
            let mut last = "the name has no address".to_owned();
            let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
            for address in found.map_err(|e| e.to_string())? {
                match TcpStream::connect(address).await {
                    Ok(_) => return Ok(address),
                    Err(error) => last = error.to_string(),
                }
            }
            Err(last)
        };
        let limit = REACH_TIMEOUT.as_secs();
        let found = tokio::time::timeout(REACH_TIMEOUT, attempt).await;
        let address = found.unwrap_or_else(|_| Err(format!("no answer within {limit} s")));
        let address = address.map_err(|why| format!("cannot reach {self}: {why}"))?;
        Ok(Endpoint { address, authority: self.authority().into(), base: self.base.as_str().into() })
    }
}

/// A target whose address is known to accept connections.
#[derive(Debug, Clone)]
pub struct Endpoint {
    address: SocketAddr,
    authority: Arc<str>,
    base: Arc<str>,
}

impl Endpoint {
    /// A GET of `path` below the base path.
    ///
    /// # Errors
    /// When the path is no path; says what would be right.
    pub fn get(&self, path: &str) -> Result<Request<Empty<Bytes>>, String> {
        let uri: Result<Uri, _> = format!("{}{path}", self.base).parse();
        let uri = uri.ok().filter(|uri| uri.path().starts_with('/') && uri.authority().is_none());
        let uri = uri.ok_or_else(|| format!("--path: must be a path such as /item/{{n}}, got {path:?}"))?;
        let mut request = Request::new(Empty::new());
        *request.uri_mut() = uri;
        let host = self.authority.parse().map_err(|_| format!("{:?} is no host name", self.authority))?;
        request.headers_mut().insert(header::HOST, host);
        let agent = header::HeaderValue::from_static(concat!("flurry-replay/", env!("CARGO_PKG_VERSION")));
        request.headers_mut().insert(header::USER_AGENT, agent);
        Ok(request)
    }
}

/// Why a request failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Failure {
    /// No connection could be made.
    Connect,
    /// The connection ended, or spoke no HTTP, before the response was whole.
    CutOff,
    /// No whole response in time.
    Timeout,
    /// A response with status 500 or above.
    ServerError,
    /// Too many requests were outstanding: the player never sent it.
    ShedByPlayer,
}

impl Failure {
    /// The words for a person.
    pub fn words(self) -> &'static str {
        match self {
            Self::Connect => "no connection",
            Self::CutOff => "cut off",
            Self::Timeout => "timeout",
            Self::ServerError => "status 5xx",
            Self::ShedByPlayer => "shed by player",
        }
    }
}

/// A response, read to its last byte.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) headers: HeaderMap,
    /// When the last byte was there.
    pub(crate) done: Instant,
}

/// What went wrong with an exchange.
pub(crate) type Broken = (Failure, String);

/// One keep-alive connection, idle.
pub(crate) struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    idle_since: Instant,
}

impl Connection {
    pub(crate) async fn open(endpoint: &Endpoint) -> Result<Self, Broken> {
        let broken = |error: &dyn std::fmt::Display| (Failure::Connect, error.to_string());
        let stream = TcpStream::connect(endpoint.address).await.map_err(|e| broken(&e))?;
        stream.set_nodelay(true).map_err(|e| broken(&e))?;
        let (sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| broken(&e))?;
        // Ends by itself when the sender is dropped or the peer closes.
        tokio::spawn(driver);
        Ok(Self { sender, idle_since: Instant::now() })
    }

    /// Whether a request may be sent on it now.
    pub(crate) fn is_fresh(&self, now: Instant) -> bool {
        self.sender.is_ready() && now.saturating_duration_since(self.idle_since) < MAX_IDLE
    }
}

/// Sends a GET on `idle`, or on a new connection, and reads the answer.
///
/// Hands the connection back when it can be used again. A request that never
/// left because its connection had just closed goes out on a new one.
pub(crate) async fn get(
    endpoint: &Endpoint,
    request: Request<Empty<Bytes>>,
    idle: Option<Connection>,
) -> Result<(Answer, Option<Connection>), Broken> {
    let (answer, body, mut connection) = send(endpoint, request, idle).await?;
    let done = drain(body).await?;
    connection.idle_since = done;
    let reusable = connection.sender.ready().await.is_ok();
    Ok((Answer { done, ..answer }, reusable.then_some(connection)))
}

/// Sends a GET on `idle` or a new connection and returns the body too.
pub(crate) async fn get_document(
    endpoint: &Endpoint,
    request: Request<Empty<Bytes>>,
    idle: Option<Connection>,
) -> Result<(StatusCode, Bytes, Option<Connection>), Broken> {
    let (answer, body, mut connection) = send(endpoint, request, idle).await?;
    let body = http_body_util::Limited::new(body, MAX_DOCUMENT_BYTES).collect().await;
    let body = body.map_err(|error| (Failure::CutOff, error.to_string()))?.to_bytes();
    let reusable = connection.sender.ready().await.is_ok();
    Ok((answer.status, body, reusable.then_some(connection)))
}

async fn send(
    endpoint: &Endpoint,
    mut request: Request<Empty<Bytes>>,
    idle: Option<Connection>,
) -> Result<(Answer, Incoming, Connection), Broken> {
    let mut next = idle;
    loop {
        let reused = next.is_some();
        let mut connection = match next.take() {
            Some(connection) => connection,
            None => Connection::open(endpoint).await?,
        };
        match connection.sender.try_send_request(request).await {
            Ok(response) => {
                let (head, body) = response.into_parts();
                let answer = Answer { status: head.status, headers: head.headers, done: Instant::now() };
                return Ok((answer, body, connection));
            }
            Err(mut error) => match error.take_message().filter(|_| reused) {
                Some(unsent) => request = unsent,
                None => return Err((Failure::CutOff, reason(error.error()))),
            },
        }
    }
}

async fn drain(mut body: Incoming) -> Result<Instant, Broken> {
    while let Some(frame) = body.frame().await {
        frame.map_err(|error| (Failure::CutOff, reason(&error)))?;
    }
    Ok(Instant::now())
}

/// The error and its sources in one line.
fn reason(error: &hyper::Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        text.push_str(": ");
        text.push_str(&inner.to_string());
        source = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_plain_http_with_host_and_port() {
        let target: Target = "http://127.0.0.1:8080".parse().unwrap();
        assert_eq!(target.to_string(), "http://127.0.0.1:8080");
        let target: Target = "http://[::1]:80/shop/".parse().unwrap();
        assert_eq!(target.to_string(), "http://[::1]:80/shop");
    }

    #[test]
    fn every_other_url_is_refused_with_what_would_be_right() {
        for (text, why) in [
            ("https://a:1", "plain HTTP only"),
            ("127.0.0.1:8080", "must be http://host:port"),
            ("localhost", "with its scheme"),
            ("http://a b", "without blanks"),
            ("http://a/?q=1", "--path"),
        ] {
            let complaint = text.parse::<Target>().unwrap_err();
            assert!(complaint.contains(why), "{text}: {complaint}");
        }
    }

    #[tokio::test]
    async fn a_request_goes_below_the_base_path_and_names_its_host() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let target: Target = format!("http://{address}/shop").parse().unwrap();
        let endpoint = target.resolve().await.unwrap();
        let request = endpoint.get("/item/7").unwrap();
        assert_eq!(request.uri(), "/shop/item/7");
        assert_eq!(request.headers()[header::HOST], address.to_string());
        assert!(endpoint.get("/a b").unwrap_err().contains("--path: must be a path"));
    }

    #[tokio::test]
    async fn a_target_that_refuses_is_named_with_the_reason() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target: Target = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        drop(listener);
        let complaint = target.resolve().await.unwrap_err();
        assert!(complaint.starts_with(&format!("cannot reach {target}: ")), "{complaint}");
        assert!(complaint.contains("refused"), "{complaint}");
    }

    #[tokio::test]
    async fn an_idle_connection_that_the_server_closed_costs_no_request() {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let target: Target = format!("http://{}", listener.local_addr().unwrap()).parse().unwrap();
        let server = tokio::spawn(async move {
            let mut accepted = 0;
            while accepted < 3 {
                let (mut stream, _) = listener.accept().await.unwrap();
                accepted += 1;
                let mut buffer = [0; 1024];
                if stream.read(&mut buffer).await.unwrap() > 0 {
                    stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").await.unwrap();
                }
            }
        });
        let endpoint = target.resolve().await.unwrap();
        let (_, connection) = get(&endpoint, endpoint.get("/").unwrap(), None).await.unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
        let (answer, _) = get(&endpoint, endpoint.get("/").unwrap(), connection).await.unwrap();
        assert_eq!(answer.status, StatusCode::OK);
        server.await.unwrap();
    }
}
