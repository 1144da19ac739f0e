//! One HTTP exchange over one connection.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;

/// The header in which the demo application tells which clone answers.
const CLONE_HEADER: &str = "x-flurry-clone";

/// An answer, wholly read.
#[derive(Debug, Clone)]
pub struct Answer {
    /// Its status.
    pub status: StatusCode,
    /// Its body.
    pub body: Bytes,
    /// The clone that gave it, as it says itself.
    pub clone: Option<String>,
}

impl Answer {
    /// The body as text.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Errors
    /// It is none, or the status is not 200; the answer in words.
    pub fn json(&self) -> Result<Value, String> {
        let in_words = || format!("{}: {}", self.status, self.text());
        if self.status != StatusCode::OK {
            return Err(in_words());
        }
        serde_json::from_slice(&self.body).map_err(|error| format!("{error}: {}", in_words()))
    }
}

/// A keep-alive connection.
#[derive(Debug)]
pub struct Client {
    sender: SendRequest<Empty<Bytes>>,
    driver: tokio::task::JoinHandle<()>,
}

impl Client {
    /// Speaks HTTP over this connection.
    ///
    /// # Errors
    /// The other end does not.
    pub async fn over(stream: TcpStream) -> Result<Self, String> {
        let (sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| error.to_string())?;
        let driver = tokio::spawn(async move {
            let _ = connection.await;
        });
        Ok(Self { sender, driver })
    }

    /// Asks for a path.
    ///
    /// # Errors
    /// In words: no whole answer within `limit`.
    pub async fn get(&mut self, path: &str, limit: Duration) -> Result<Answer, String> {
        let asked = tokio::time::timeout(limit, self.exchange(path)).await;
        asked.unwrap_or_else(|_| Err(format!("no answer to {path} within {limit:?}")))
    }

    /// Whether another request may go over it.
    #[must_use]
    pub fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    async fn exchange(&mut self, path: &str) -> Result<Answer, String> {
        let broke = |error: hyper::Error| format!("{path}: {error}");
        let request = Request::get(path).header(header::HOST, "localhost").body(Empty::new());
        let request = request.map_err(|error| error.to_string())?;
        self.sender.ready().await.map_err(broke)?;
        let answer = self.sender.send_request(request).await.map_err(broke)?;
        let status = answer.status();
        let clone = answer.headers().get(CLONE_HEADER).and_then(|name| name.to_str().ok());
        let clone = clone.map(str::to_owned);
        let body = answer.into_body().collect().await.map_err(broke)?.to_bytes();
        Ok(Answer { status, body, clone })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

/// Asks an address of this host for a path, over a connection of its own.
///
/// # Errors
/// In words: no connection, no whole answer within `limit`.
pub async fn get(address: SocketAddr, path: &str, limit: Duration) -> Result<Answer, String> {
    let asked = async {
        let stream = TcpStream::connect(address).await.map_err(|error| format!("{address}: {error}"))?;
        Client::over(stream).await?.get(path, limit).await
    };
    let asked = tokio::time::timeout(limit, asked).await;
    asked.unwrap_or_else(|_| Err(format!("no answer from {address} within {limit:?}")))
}
