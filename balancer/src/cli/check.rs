//! `flurry check`: everything that is wrong with a configuration, at once.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::WRONG_INPUT;
use crate::config::Config;

/// Check a configuration and report every complaint at once.
#[derive(Debug, Args)]
pub struct CheckArgs {
    /// The configuration.
    #[arg(value_name = "FILE", default_value = "flurry.yaml")]
    file: PathBuf,
}

/// Runs the sub-command: complaints on standard output, exit code 2 on any.
pub fn main(args: &CheckArgs) -> ExitCode {
    match Config::load(&args.file) {
        Ok(config) => {
            println!("{}: ok (tier `{}`)", args.file.display(), config.name);
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{error}");
            ExitCode::from(WRONG_INPUT)
        }
    }
}
