//! The sub-commands of `flurry`.

mod ask;
pub mod bench;
pub mod check;
pub mod image;
pub mod policy;
pub mod replay;
pub mod scale;
pub mod simulate;
pub mod status;
pub mod timeline;
pub mod top;
pub mod up;
pub mod upgrade;

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// The world was not as needed.
pub(crate) const FAILED: u8 = 1;
/// The user's input is wrong.
pub(crate) const WRONG_INPUT: u8 = 2;

/// Logs to standard error, from `info` up unless RUST_LOG says otherwise.
pub(crate) fn start_logging() {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let started = tracing_subscriber::fmt()
        // A log on a full disk must not end the thread that wants to say so.
        .log_internal_errors(false)
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .try_init();
    if started.is_err() {
        tracing::debug!("logging was started before");
    }
}
