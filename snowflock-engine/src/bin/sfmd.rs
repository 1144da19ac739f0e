//! `sfmd`: grants tickets, places clones on hosts, and publishes the view of all of them.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use snowflock_engine::control::report;
use snowflock_engine::hosts::certificates::{Role, make};
use snowflock_engine::hosts::daemon::{self, config::SfmdConfig, sfmd};
use snowflock_engine::hosts::ids::Name;

/// The master of all hosts; SIGTERM stops it, and hosts and clones go on.
#[derive(Debug, Parser)]
#[command(name = "sfmd", version)]
struct Sfmd {
    /// The configuration.
    #[arg(short, long, value_name = "FILE", default_value = "/etc/flurry/sfmd.yaml")]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Make an authority, if the folder has none, and certificates of it.
    Certificates {
        /// Where to.
        #[arg(long, value_name = "FOLDER", default_value = "/etc/flurry/certificates")]
        folder: PathBuf,
        /// One for sfmd.
        #[arg(long)]
        sfmd: bool,
        /// One for this host; may be repeated.
        #[arg(long = "host", value_name = "NAME")]
        hosts: Vec<Name>,
        /// One for this operator or balancer; may be repeated.
        #[arg(long = "operator", value_name = "NAME")]
        operators: Vec<Name>,
        /// How long they are valid.
        #[arg(long, default_value_t = 365)]
        days: u32,
    },
}

fn main() -> ExitCode {
    let arguments = Sfmd::parse();
    let Some(Command::Certificates { folder, sfmd, hosts, operators, days }) = arguments.command else {
        return daemon::main("sfmd", async move { sfmd::run(&SfmdConfig::load(&arguments.config)?).await });
    };
    let master = sfmd.then_some(Role::Master);
    let roles: Vec<Role> = master
        .into_iter()
        .chain(hosts.into_iter().map(Role::Host))
        .chain(operators.into_iter().map(Role::Operator))
        .collect();
    match make(&folder, &roles, days) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sfmd: {}", report(&error));
            ExitCode::FAILURE
        }
    }
}
