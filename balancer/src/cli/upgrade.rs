//! `flurry upgrade`: a running Flurry hands over to the program as it is on disk now.

use std::process::ExitCode;

use clap::Args;

use super::ask::AdminArgs;
use crate::admin::{FetchError, ask_for_upgrade};

/// Replace a running Flurry by the program as it is on disk now, without a refused connection.
///
/// The new process has the arguments of the old one and reads its configuration anew. If it cannot run,
/// the old one goes on, and this says why. The same as SIGUSR2. Not for tiers of VMs.
#[derive(Debug, Args)]
pub struct UpgradeArgs {
    #[command(flatten)]
    admin: AdminArgs,
}

/// Runs the sub-command.
pub fn main(args: &UpgradeArgs) -> ExitCode {
    args.admin.ask("upgrade", async |admin| {
        let process = ask_for_upgrade(admin).await?;
        println!("process {process} serves now; the old one finishes what it has");
        Ok::<_, FetchError>(())
    })
}
