//! `flurry`: the front-door program.

use std::process::ExitCode;

use balancer::cli;
use clap::{Parser, Subcommand};

/// An elastic web tier that forks running VMs under load.
#[derive(Debug, Parser)]
#[command(name = "flurry", version)]
struct Flurry {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Play a recorded load curve against a tier.
    Replay(cli::replay::ReplayArgs),
}

fn main() -> ExitCode {
    match Flurry::parse().command {
        Command::Replay(args) => cli::replay::main(&args),
    }
}
