//! Requests of our own: the first probes of a parent, its warming, and the requests
//! of a benchmark.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::client::conn::http1::SendRequest;
use hyper::{Request, StatusCode, header};
use hyper_util::rt::TokioIo;

use crate::pool::Dial;

type Sender = SendRequest<Empty<Bytes>>;

/// A keep-alive connection to one server, renewed when it breaks.
pub(super) struct GuestClient {
    dialer: Arc<dyn Dial>,
    address: SocketAddr,
    connection: Option<Sender>,
}

impl GuestClient {
    pub(super) fn new(dialer: Arc<dyn Dial>, address: SocketAddr) -> Self {
        Self { dialer, address, connection: None }
    }

    /// Asks for a path and reads the whole answer.
    ///
    /// # Errors
    /// What went wrong, in words: no connection, no answer within `limit`, a cut answer.
    pub(super) async fn get(&mut self, path: &str, limit: Duration) -> Result<StatusCode, String> {
        let result = tokio::time::timeout(limit, self.exchange(path)).await;
        let result = result.unwrap_or_else(|_| Err(format!("no answer within {limit:?}")));
        if result.is_err() {
            self.connection = None;
        }
        result
    }

    async fn exchange(&mut self, path: &str) -> Result<StatusCode, String> {
        let mut sender = match self.connection.take() {
            Some(sender) if !sender.is_closed() => sender,
            _ => self.connect().await?,
        };
        let request = Request::get(path)
            .header(header::HOST, self.address.to_string())
            .header(header::USER_AGENT, "flurry")
            .body(Empty::new())
            .map_err(|error| error.to_string())?;
        sender.ready().await.map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(|error| error.to_string())?;
        let status = response.status();
        response.into_body().collect().await.map_err(|error| error.to_string())?;
        self.connection = Some(sender);
        Ok(status)
    }

    async fn connect(&self) -> Result<Sender, String> {
        let stream = self.dialer.dial(self.address).await.map_err(|error| error.to_string())?;
        stream.set_nodelay(true).map_err(|error| error.to_string())?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(|error| error.to_string())?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection of ours to a guest broke");
            }
        });
        Ok(sender)
    }
}
