//! Asks a running Flurry for its status document.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::status::Status;

/// The longest time for a document.
const TIMEOUT: Duration = Duration::from_secs(5);
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
    /// The document is none.
    #[error("{0} answered with no status document: {1}")]
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
    let timed_out = |_| FetchError::Timeout(admin, TIMEOUT);
    let page = tokio::time::timeout(TIMEOUT, fetch(admin)).await.map_err(timed_out)??;
    serde_json::from_slice(&page).map_err(|error| FetchError::Document(admin, error))
}

async fn fetch(admin: SocketAddr) -> Result<Bytes, FetchError> {
    let broke = |error: hyper::Error| FetchError::Exchange(admin, error.into());
    let stream = TcpStream::connect(admin).await.map_err(|error| FetchError::Connect(admin, error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(broke)?;
    let exchange = async {
        let mut request = Request::new(Empty::<Bytes>::new());
        *request.uri_mut() = http::Uri::from_static("/v1/status");
        request.headers_mut().insert(header::HOST, http::HeaderValue::from_static("flurry"));
        let answer = sender.send_request(request).await.map_err(broke)?;
        if answer.status() != StatusCode::OK {
            return Err(FetchError::Answer(admin, answer.status()));
        }
        let body = Limited::new(answer.into_body(), MAX_DOCUMENT).collect().await;
        body.map(|body| body.to_bytes()).map_err(|error| FetchError::Exchange(admin, error))
    };
    tokio::pin!(exchange);
    tokio::select! {
        page = &mut exchange => page,
        // The end of the connection may come before its last bytes were taken.
        _ = connection => exchange.await,
    }
}
