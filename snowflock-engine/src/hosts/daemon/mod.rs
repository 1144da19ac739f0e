//! The programs `sfmd` and `sfld`: brains joined to sockets, files, clocks and an Engine.
//!
//! Each has one task that owns its brain and takes one event at a time; a connection has a task that reads
//! and one that writes.

use std::future::Future;
use std::io::{self, IsTerminal};
use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tracing_subscriber::EnvFilter;

use crate::control::report;

pub mod config;
pub mod sfld;
pub mod sfmd;

/// Why a daemon ends.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Its configuration is wrong: all complaints, one a line.
    #[error("{0}")]
    Config(String),
    /// Its certificate cannot be used.
    #[error(transparent)]
    Certificate(#[from] super::certificates::CertificateError),
    /// Its certificate is good, but for something else.
    #[error("the certificate is that of {found}, {wanted} is needed")]
    Role {
        /// Whose it is.
        found: super::certificates::Role,
        /// What is needed.
        wanted: &'static str,
    },
    /// The record cannot be used.
    #[error(transparent)]
    Record(#[from] super::master::record::RecordError),
    /// The Engine did not do its part.
    #[error(transparent)]
    Engine(#[from] crate::control::EngineError),
    /// A system call failed.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: String,
        /// The reason.
        source: io::Error,
    },
}

impl DaemonError {
    fn system(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::System { what, source }
    }
}

/// The input was wrong.
const WRONG_INPUT: u8 = 2;

/// Runs a daemon to its end: logs to standard error (RUST_LOG says what), and one line if it fails.
pub fn main(name: &str, run: impl Future<Output = Result<(), DaemonError>>) -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let colours = io::stderr().is_terminal();
    // A log on a full disk must not end the thread that wants to say so.
    let log = tracing_subscriber::fmt().log_internal_errors(false);
    log.with_env_filter(filter).with_writer(io::stderr).with_ansi(colours).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(run),
        Err(error) => Err(DaemonError::System { what: "start".into(), source: error }),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{name}: {}", report(&error));
            let wrong = matches!(
                error,
                DaemonError::Config(_) | DaemonError::Certificate(_) | DaemonError::Role { .. }
            );
            if wrong { ExitCode::from(WRONG_INPUT) } else { ExitCode::FAILURE }
        }
    }
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, DaemonError> {
        let new = |kind| signal(kind).map_err(DaemonError::system("wait for signals"));
        Ok(Self { terminate: new(SignalKind::terminate())?, interrupt: new(SignalKind::interrupt())? })
    }

    async fn stop_asked_for(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
