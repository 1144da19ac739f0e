//! Fetches the status document of a tier, several times a second.

use std::time::Duration;

use http::StatusCode;
use tokio::sync::mpsc;
use tokio::time::{Instant, MissedTickBehavior, interval, timeout};

use super::client::{Connection, Endpoint, REACH_TIMEOUT, get_document};
use crate::admin::status::Status;

/// How often the tier is asked.
pub(crate) const SAMPLE_EVERY: Duration = Duration::from_millis(250);
/// Where the status document is.
const STATUS_PATH: &str = "/v1/status";
/// Longest part of a foreign answer that is shown, characters.
const MAX_SHOWN: usize = 80;

/// Asks for the status document over one connection that it keeps.
pub(crate) struct Sampler {
    endpoint: Endpoint,
    connection: Option<Connection>,
}

/// A document and when it was there, or why there is none.
pub(crate) type Sampled = (Instant, Result<Status, String>);

impl Sampler {
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, connection: None }
    }

    /// Asks once.
    ///
    /// # Errors
    /// One sentence that says what was answered instead.
    pub(crate) async fn sample(&mut self) -> Result<Status, String> {
        let request = self.endpoint.get(STATUS_PATH)?;
        let idle = self.connection.take().filter(|connection| connection.is_fresh(Instant::now()));
        let exchange = get_document(&self.endpoint, request, idle);
        let limit = REACH_TIMEOUT.as_secs();
        let answer =
            timeout(REACH_TIMEOUT, exchange).await.map_err(|_| format!("no answer within {limit} s"))?;
        let (status, body, connection) = answer.map_err(|(_, why)| why)?;
        self.connection = connection;
        read(status, &body)
    }

    /// Asks for ever, and hands every answer to `to` until that is closed.
    pub(crate) async fn run(mut self, to: mpsc::Sender<Sampled>) {
        let mut tick = interval(SAMPLE_EVERY);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let sampled = self.sample().await;
            if to.send((Instant::now(), sampled)).await.is_err() {
                return;
            }
        }
    }
}

fn read(status: StatusCode, body: &[u8]) -> Result<Status, String> {
    if status != StatusCode::OK {
        return Err(format!("{STATUS_PATH} answered {status} instead of the status document"));
    }
    let shown = || String::from_utf8_lossy(body).chars().take(MAX_SHOWN).collect::<String>();
    let document: Status = serde_json::from_slice(body)
        .map_err(|error| format!("{STATUS_PATH} is no status document ({error}): {:?}", shown()))?;
    // Every field has a default, so that old and new programs understand each
    // other; a document without a version comes from something else.
    if document.version.is_empty() {
        return Err(format!("{STATUS_PATH} is no status document (no version): {:?}", shown()));
    }
    Ok(document)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_document_is_read_and_unknown_fields_are_let_pass() {
        let body = br#"{"version":"0.1.0","uptime_seconds":3.5,"tier":{"name":"demo"},"new":1}"#;
        let document = read(StatusCode::OK, body).unwrap();
        assert_eq!((document.uptime_seconds, document.tier.name.as_str()), (3.5, "demo"));
    }

    #[test]
    fn whatever_else_answers_is_named() {
        for (status, body, why) in [
            (StatusCode::NOT_FOUND, "no", "answered 404 Not Found"),
            (StatusCode::OK, "<html>hello", "is no status document (expected value"),
            (StatusCode::OK, "{}", "(no version)"),
        ] {
            let complaint = read(status, body.as_bytes()).unwrap_err();
            assert!(complaint.contains(why), "{complaint}");
        }
    }
}
