//! `flurry status`: what a running Flurry tells about itself.

use std::error::Error;
use std::process::ExitCode;

use clap::Args;

use super::ask::AdminArgs;
use crate::admin::{fetch_status, table};

/// Show tier, load, backends, VMs and the last decisions of a running Flurry.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Print the status document as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    admin: AdminArgs,
}

/// Runs the sub-command.
pub fn main(args: &StatusArgs) -> ExitCode {
    args.admin.ask("status", async |admin| {
        let status = fetch_status(admin).await?;
        let shown = if args.json { serde_json::to_string_pretty(&status)? } else { table(&status) };
        println!("{}", shown.trim_end());
        Ok::<_, Box<dyn Error>>(())
    })
}
