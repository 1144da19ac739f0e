//! An account of each request, for those who want to be told: the access log, and traces.
//!
//!   observe begins Notes -> forward adds to them -> the end hands them to a thread of its own
//!
//! Nobody on the data plane waits for who reads an account: channels are bounded, and what does
//! not fit is counted as dropped. Without anybody to tell, nothing is noted.

mod context;
mod exemplars;
mod line;
mod log;
mod notes;
mod spans;
mod stamp;
mod traces;

use std::io;
use std::sync::Arc;
use std::time::Instant;

use http::Request;

use exemplars::Exemplars;
pub(crate) use exemplars::{ByBucket, Exemplar};
pub(crate) use log::{AccessLog, LogCounts};
pub use log::{Destination, LogFormat, LogSettings};
use notes::Head;
pub(crate) use notes::{End, Notes};
pub(crate) use traces::SpanCounts;
use traces::Tracing;
pub use traces::{TracingSettings, Trust};

use crate::server::Client;

/// Who is told, as it is configured.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AccountSettings {
    /// The access log.
    pub log: Option<LogSettings>,
    /// Traces.
    pub tracing: Option<TracingSettings>,
}

/// Why nobody can be told.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The file of the access log cannot be written.
    #[error(
        "access_log.path: cannot open {path}: {source} (give a file in a folder that exists and may be written to)"
    )]
    Log {
        /// The file.
        path: String,
        /// What the system said.
        source: io::Error,
    },
    /// A thread cannot be started.
    #[error("cannot start a thread for accounts of requests: {0}")]
    Thread(#[source] io::Error),
}

/// Who is told of each request.
pub(crate) struct Account {
    log: Option<Arc<AccessLog>>,
    tracing: Option<Arc<Tracing>>,
    exemplars: Exemplars,
}

impl Account {
    /// Gets ready to tell. What has not changed since `old` goes on, with a file opened anew.
    ///
    /// # Errors
    /// [`AccountError`] with the key of the configuration; `old` goes on then.
    pub(crate) fn open(
        settings: &AccountSettings,
        old: Option<&Self>,
    ) -> Result<Option<Arc<Self>>, AccountError> {
        if *settings == AccountSettings::default() {
            return Ok(None);
        }
        let before = old.and_then(|old| old.log.as_ref());
        let log = settings.log.as_ref().map(|it| AccessLog::follow(it, before)).transpose()?;
        let before = old.and_then(|old| old.tracing.as_ref());
        let tracing = settings.tracing.as_ref().map(|it| Tracing::follow(it, before)).transpose()?;
        Ok(Some(Arc::new(Self { log, tracing, exemplars: Exemplars::default() })))
    }

    /// One that tells nobody.
    #[cfg(test)]
    pub(crate) fn to_nobody() -> Self {
        Self { log: None, tracing: None, exemplars: Exemplars::default() }
    }

    /// What there is of the access log, for metrics.
    pub(crate) fn log_counts(&self) -> Option<&LogCounts> {
        self.log.as_deref().map(AccessLog::counts)
    }

    /// What there is of spans, for metrics.
    pub(crate) fn span_counts(&self) -> Option<&SpanCounts> {
        self.tracing.as_deref().map(Tracing::counts)
    }

    /// Begins the account of a request, if anybody is to be told of this one. Fields about traces
    /// that are not believed go.
    pub(crate) fn begin<B>(
        self: Arc<Self>,
        request: &mut Request<B>,
        client: &Client,
        address: Option<std::net::IpAddr>,
        began: Instant,
    ) -> Option<Notes> {
        let begin = |tracing: &Arc<Tracing>| tracing.begin(request.headers_mut(), client.trusted);
        let trace = self.tracing.as_ref().and_then(begin);
        if self.log.is_none() && trace.is_none() {
            return None;
        }
        Some(Notes::new(self, Head::of(request), address, began).part_of(trace, client.tls))
    }

    /// The configuration is in force: files are opened anew, which ends a rotation.
    pub(crate) fn in_force(&self) {
        if let Some(log) = &self.log {
            log.reopen();
        }
    }

    /// The newest traced request of each bucket of latency.
    pub(crate) fn exemplars(&self) -> ByBucket {
        self.exemplars.all()
    }

    /// Takes the account of a request that is over.
    pub(crate) fn take(&self, notes: Box<Notes>) {
        if let Some(exemplar) = notes.exemplar() {
            self.exemplars.note(exemplar);
        }
        if let Some(tracing) = &self.tracing {
            tracing.send(&notes);
        }
        if let Some(log) = &self.log {
            log.send(notes);
        }
    }

    /// Lets everything out that was told, for as long as that takes a moment.
    pub(crate) fn close(&self) {
        if let Some(log) = &self.log {
            log.close();
        }
        if let Some(tracing) = &self.tracing {
            tracing.close();
        }
    }
}
