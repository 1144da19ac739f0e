//! Asks SFMD: for `sf`, and for a balancer. Requests survive a lost connection and a restart of SFMD.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use tokio::time::{Instant, sleep, timeout_at};

use super::certificates::Credentials;
use super::ids::Unique;
use super::link::{Link, LinkError, connect};
use super::message::{Answer, Ask, LONGEST_DEADLINE_MS, Reply, Request};

/// Between two tries to reach SFMD.
const PAUSE: Duration = Duration::from_millis(200);
/// An answer at the deadline is on its way for so long, at most.
const GRACE: Duration = Duration::from_secs(1);

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// SFMD cannot be talked to.
    #[error("sfmd cannot be asked")]
    Link(#[from] LinkError),
    /// No request can be named.
    #[error("no randomness for the name of a request")]
    Random(#[from] io::Error),
    /// Time is over.
    #[error("no answer from sfmd within {0:?}")]
    Late(Duration),
}

/// A client with one request at a time.
#[derive(Debug)]
pub struct Client {
    to: SocketAddr,
    config: Arc<ClientConfig>,
    link: Option<Link>,
}

impl Client {
    /// A client of the SFMD at this address. Connects when it is asked something.
    ///
    /// # Errors
    /// The certificate cannot be used.
    pub fn new(
        to: SocketAddr,
        credentials: &Credentials,
    ) -> Result<Self, super::certificates::CertificateError> {
        Ok(Self { to, config: credentials.client()?, link: None })
    }

    /// Asks, again and again over new connections if need be, until there is an answer or time is over.
    /// However often it is sent, the request is done once.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn ask(&mut self, ask: Ask, limit: Duration) -> Result<Answer, AskError> {
        self.ask_as(Unique::fresh()?, ask, limit).await
    }

    /// The same with a name of the caller's choice, for a request that is to survive the caller.
    ///
    /// # Errors
    /// See [`AskError`].
    pub async fn ask_as(&mut self, id: Unique, ask: Ask, limit: Duration) -> Result<Answer, AskError> {
        let until = Instant::now() + limit;
        loop {
            let left = until.saturating_duration_since(Instant::now()).as_millis();
            let deadline_ms = u32::try_from(left).unwrap_or(u32::MAX).min(LONGEST_DEADLINE_MS);
            let request = Request { id, deadline_ms, ask: ask.clone() };
            match timeout_at(until + GRACE, self.exchange(&request)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) if error.is_passing() && Instant::now() + PAUSE < until => {
                    tracing::debug!(%error, "asking again");
                    self.link = None;
                    sleep(PAUSE).await;
                }
                Ok(Err(error)) => {
                    self.link = None;
                    return Err(error.into());
                }
                Err(_) => {
                    self.link = None;
                    return Err(AskError::Late(limit));
                }
            }
        }
    }

    /// Sends a request and waits for its answer; answers to earlier requests that were given up are skipped.
    async fn exchange(&mut self, request: &Request) -> Result<Answer, LinkError> {
        let mut link = match self.link.take() {
            Some(link) => link,
            None => connect(self.to, Arc::clone(&self.config)).await?,
        };
        link.sender.send(request).await?;
        loop {
            match link.receiver.receive::<Reply>().await? {
                Some(reply) if reply.id == request.id => {
                    self.link = Some(link);
                    return Ok(reply.answer);
                }
                Some(_) => {}
                None => {
                    let source = io::ErrorKind::ConnectionAborted.into();
                    return Err(LinkError::Lost { peer: format!("sfmd at {}", self.to), source });
                }
            }
        }
    }
}
