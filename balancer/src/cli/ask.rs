//! Sub-commands that ask a running Flurry: where its admin listener is, and how they end.

use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{FAILED, WRONG_INPUT};
use crate::config::Config;

/// Where the admin listener is.
#[derive(Debug, Args)]
pub(crate) struct AdminArgs {
    /// Address of the admin listener.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9900", conflicts_with = "config")]
    admin: SocketAddr,
    /// Take the address of the admin listener from this configuration.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

impl AdminArgs {
    /// Runs what asks the listener. Says what goes wrong: 1 if asking fails, 2 for a wrong
    /// configuration.
    pub(crate) fn ask<E: Into<Box<dyn Error>>>(
        &self,
        command: &str,
        asks: impl AsyncFnOnce(SocketAddr) -> Result<(), E>,
    ) -> ExitCode {
        let admin = match self.config.as_deref().map(Config::load).transpose() {
            Ok(config) => config.map_or(self.admin, |config| config.admin),
            Err(error) => {
                eprintln!("{error}");
                return ExitCode::from(WRONG_INPUT);
            }
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let asked = runtime.map_err(Into::into).and_then(|it| it.block_on(asks(admin)).map_err(Into::into));
        match asked {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("flurry {command}: {error}");
                ExitCode::from(FAILED)
            }
        }
    }
}
