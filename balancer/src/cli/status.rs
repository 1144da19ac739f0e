//! `flurry status`: what a running Flurry tells about itself.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{FAILED, WRONG_INPUT};
use crate::admin::{fetch_status, table};
use crate::config::Config;

/// Show tier, load, backends, VMs and the last decisions of a running Flurry.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Print the status document as JSON.
    #[arg(long)]
    json: bool,
    /// Address of the admin listener.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9900", conflicts_with = "config")]
    admin: SocketAddr,
    /// Take the address of the admin listener from this configuration.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs the sub-command.
pub fn main(args: &StatusArgs) -> ExitCode {
    let admin = match args.config.as_deref().map(Config::load).transpose() {
        Ok(config) => config.map_or(args.admin, |config| config.admin),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(WRONG_INPUT);
        }
    };
    match show(admin, args.json) {
        Ok(shown) => {
            println!("{}", shown.trim_end());
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("flurry status: {error}");
            ExitCode::from(FAILED)
        }
    }
}

fn show(admin: SocketAddr, json: bool) -> Result<String, Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(fetch_status(admin))?;
    Ok(if json { serde_json::to_string_pretty(&status)? } else { table(&status) })
}
