//! `flurry timeline`: the last quarter of an hour of a running tier as one picture.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{FAILED, WRONG_INPUT};
use crate::admin::{fetch_history, fetch_status};
use crate::config::Config;
use crate::timeline;

/// Draw load, decisions, backends, latency and forks of a running Flurry on one time line.
#[derive(Debug, Args)]
pub struct TimelineArgs {
    /// Where the picture goes; `-` for standard output.
    #[arg(long, value_name = "FILE", default_value = "-")]
    svg: PathBuf,
    /// Address of the admin listener.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9900", conflicts_with = "config")]
    admin: SocketAddr,
    /// Take the address of the admin listener from this configuration.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// Runs the sub-command: 1 if nobody answers or the file cannot be written, 2 for a wrong
/// configuration.
pub fn main(args: &TimelineArgs) -> ExitCode {
    let admin = match args.config.as_deref().map(Config::load).transpose() {
        Ok(config) => config.map_or(args.admin, |config| config.admin),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(WRONG_INPUT);
        }
    };
    match write(args, admin) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flurry timeline: {error}");
            ExitCode::from(FAILED)
        }
    }
}

fn write(args: &TimelineArgs, admin: SocketAddr) -> Result<(), Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (status, history) =
        runtime.block_on(async { tokio::try_join!(fetch_status(admin), fetch_history(admin)) })?;
    let picture = timeline::draw(&status, &history);
    if args.svg.as_os_str() == "-" {
        print!("{picture}");
        return Ok(());
    }
    std::fs::write(&args.svg, picture)
        .map_err(|error| format!("cannot write {}: {error}", args.svg.display()).into())
}
