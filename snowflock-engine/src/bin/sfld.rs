//! `sfld`: owns the virtual machines of its host, and obeys SFMD.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use snowflock_engine::hosts::daemon::{self, config::SfldConfig, sfld};

/// The daemon of one host; SIGTERM ends its VMs and cleans up.
#[derive(Debug, Parser)]
#[command(name = "sfld", version)]
struct Sfld {
    /// The configuration.
    #[arg(short, long, value_name = "FILE", default_value = "/etc/flurry/sfld.yaml")]
    config: PathBuf,
}

fn main() -> ExitCode {
    let arguments = Sfld::parse();
    daemon::main("sfld", async move {
        let config = SfldConfig::load(&arguments.config)?;
        sfld::run(&config).await
    })
}
