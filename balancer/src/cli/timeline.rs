//! `flurry timeline`: the last quarter of an hour of a running tier as one picture.

use std::error::Error;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;

use super::ask::AdminArgs;
use crate::admin::{fetch_history, fetch_status};
use crate::timeline;

/// Draw load, decisions, backends, latency and forks of a running Flurry on one time line.
#[derive(Debug, Args)]
pub struct TimelineArgs {
    /// Where the picture goes; `-` for standard output.
    #[arg(long, value_name = "FILE", default_value = "-")]
    svg: PathBuf,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Runs the sub-command: 1 if nobody answers or the file cannot be written, 2 for a wrong
/// configuration.
pub fn main(args: &TimelineArgs) -> ExitCode {
    args.admin.ask("timeline", async |admin| write(&args.svg, admin).await)
}

async fn write(svg: &Path, admin: SocketAddr) -> Result<(), Box<dyn Error>> {
    let (status, history) = tokio::try_join!(fetch_status(admin), fetch_history(admin))?;
    let picture = timeline::draw(&status, &history);
    if svg.as_os_str() == "-" {
        print!("{picture}");
        return Ok(());
    }
    std::fs::write(svg, picture).map_err(|error| format!("cannot write {}: {error}", svg.display()).into())
}
