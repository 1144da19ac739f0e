//! Asks a running Flurry for its documents, and takes orders to it.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;

use super::status::{History, Status};
use crate::front::Order;

/// The longest time for a document.
const TIMEOUT: Duration = Duration::from_secs(5);
/// The longest time for a new program to start; the old one gives up before.
const UPGRADE_TIMEOUT: Duration = Duration::from_secs(45);
/// The largest document that is read, in bytes.
const MAX_DOCUMENT: usize = 16 << 20;

/// Why there is no document.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nobody listens there.
    #[error("no admin listener at {0}: {1} (is `flurry up` running, with this admin address?)")]
    Connect(SocketAddr, #[source] std::io::Error),
    /// The exchange broke.
    #[error("the admin listener at {0} did not answer: {1}")]
    Exchange(SocketAddr, #[source] Box<dyn std::error::Error + Send + Sync>),
    /// Something else listens there.
    #[error("{0} answered {1}: it is no admin listener of Flurry")]
    Answer(SocketAddr, StatusCode),
    /// An order was not taken.
    #[error("{0}")]
    Refused(String),
    /// The document is none.
    #[error("{0} answered with no document of that kind: {1}")]
    Document(SocketAddr, #[source] serde_json::Error),
    /// It takes too long.
    #[error("the admin listener at {0} did not answer within {1:?}")]
    Timeout(SocketAddr, Duration),
}

/// Fetches the status document.
///
/// # Errors
/// [`FetchError`], always with the address.
pub async fn fetch_status(admin: SocketAddr) -> Result<Status, FetchError> {
    fetch(admin, "/v1/status").await
}

/// Fetches what was in the last quarter of an hour.
///
/// # Errors
/// [`FetchError`], always with the address.
pub async fn fetch_history(admin: SocketAddr) -> Result<History, FetchError> {
    fetch(admin, "/v1/history").await
}

async fn fetch<D: DeserializeOwned>(admin: SocketAddr, path: &'static str) -> Result<D, FetchError> {
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = http::Uri::from_static(path);
    let (status, page) = ask(admin, request).await?;
    if status != StatusCode::OK {
        return Err(FetchError::Answer(admin, status));
    }
    serde_json::from_slice(&page).map_err(|error| FetchError::Document(admin, error))
}

/// Sends an order to the scaler; returns what the listener says.
///
/// # Errors
/// [`FetchError`], always with the address.
pub async fn send_order(admin: SocketAddr, order: Order) -> Result<String, FetchError> {
    let request = Request::post(format!("/v1/scaling?{}", order.query()))
        .body(Empty::<Bytes>::new())
        .map_err(|error| FetchError::Exchange(admin, error.into()))?;
    let (status, page) = ask(admin, request).await?;
    let said = String::from_utf8_lossy(&page).into_owned();
    match status {
        StatusCode::ACCEPTED => Ok(said),
        StatusCode::CONFLICT | StatusCode::BAD_REQUEST => Err(FetchError::Refused(said.trim().to_owned())),
        other => Err(FetchError::Answer(admin, other)),
    }
}

/// Asks for a new program to take over; returns its process ID.
///
/// # Errors
/// [`FetchError`]; the old one goes on then.
pub async fn ask_for_upgrade(admin: SocketAddr) -> Result<u32, FetchError> {
    #[derive(serde::Deserialize)]
    struct Successor {
        pid: u32,
    }
    #[derive(serde::Deserialize)]
    struct Complaints {
        complaints: Vec<String>,
    }
    let request = Request::post("/v1/upgrade")
        .body(Empty::<Bytes>::new())
        .map_err(|error| FetchError::Exchange(admin, error.into()))?;
    let no_document = |error| FetchError::Document(admin, error);
    match ask_within(UPGRADE_TIMEOUT, admin, request).await? {
        (StatusCode::OK, page) => {
            serde_json::from_slice::<Successor>(&page).map(|it| it.pid).map_err(no_document)
        }
        (StatusCode::CONFLICT, page) => {
            let refused: Complaints = serde_json::from_slice(&page).map_err(no_document)?;
            Err(FetchError::Refused(refused.complaints.join("\n")))
        }
        (other, _) => Err(FetchError::Answer(admin, other)),
    }
}

async fn ask(admin: SocketAddr, request: Request<Empty<Bytes>>) -> Result<(StatusCode, Bytes), FetchError> {
    ask_within(TIMEOUT, admin, request).await
}

async fn ask_within(
    limit: Duration,
    admin: SocketAddr,
    request: Request<Empty<Bytes>>,
) -> Result<(StatusCode, Bytes), FetchError> {
    let timed_out = |_| FetchError::Timeout(admin, limit);
    tokio::time::timeout(limit, exchange(admin, request)).await.map_err(timed_out)?
}

async fn exchange(
    admin: SocketAddr,
    mut request: Request<Empty<Bytes>>,
) -> Result<(StatusCode, Bytes), FetchError> {
    let broke = |error: hyper::Error| FetchError::Exchange(admin, error.into());
    let stream = TcpStream::connect(admin).await.map_err(|error| FetchError::Connect(admin, error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broke)?;
    // An address in text is always a valid value.
    if let Ok(host) = http::HeaderValue::try_from(admin.to_string()) {
        request.headers_mut().insert(header::HOST, host);
    }
    let exchange = async {
        let answer = sender.send_request(request).await.map_err(broke)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), MAX_DOCUMENT).collect().await;
        let body = body.map_err(|error| FetchError::Exchange(admin, error))?;
        Ok((status, body.to_bytes()))
    };
    tokio::pin!(exchange);
    tokio::select! {
        page = &mut exchange => page,
        // The end of the connection may come before its last bytes were taken.
        _ = connection => exchange.await,
    }
}
