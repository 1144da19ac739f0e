//! `flurry`: the front-door program.

use std::process::ExitCode;

use balancer::cli;
use clap::{Parser, Subcommand};
use mimalloc::MiMalloc;

/// hyper allocates a few times per request; glibc's allocator took 5 % of the proxy's time.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// An elastic web tier that forks running VMs under load.
#[derive(Debug, Parser)]
#[command(name = "flurry", version)]
struct Flurry {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a tier; SIGTERM or Ctrl-C drains it and cleans up.
    Up(cli::up::UpArgs),
    /// Check a configuration and report every complaint at once.
    Check(cli::check::CheckArgs),
    /// Show what a running tier does.
    Status(cli::status::StatusArgs),
    /// Show what a running tier does, again and again.
    Top(cli::top::TopArgs),
    /// Draw what a running tier did, as SVG.
    Timeline(cli::timeline::TimelineArgs),
    /// Measure what forking costs on this machine.
    Bench(cli::bench::BenchArgs),
    /// Make guest images, and see what is in one.
    Image(cli::image::ImageArgs),
    /// Check a scaling policy, or play a journal to it.
    Policy(cli::policy::PolicyArgs),
    /// Play a recorded load curve against a tier.
    Replay(cli::replay::ReplayArgs),
    /// Hold a running tier at a size, or let its policy decide again.
    Scale(cli::scale::ScaleArgs),
    /// Hand over to the program as it is on disk now, without a refused connection.
    Upgrade(cli::upgrade::UpgradeArgs),
    /// Run a policy over a recorded load, without any VM.
    Simulate(cli::simulate::SimulateArgs),
}

fn main() -> ExitCode {
    match Flurry::parse().command {
        Command::Up(args) => cli::up::main(&args),
        Command::Check(args) => cli::check::main(&args),
        Command::Status(args) => cli::status::main(&args),
        Command::Top(args) => cli::top::main(&args),
        Command::Timeline(args) => cli::timeline::main(&args),
        Command::Bench(args) => cli::bench::main(&args),
        Command::Image(args) => cli::image::main(args),
        Command::Policy(args) => cli::policy::main(&args),
        Command::Replay(args) => cli::replay::main(&args),
        Command::Scale(args) => cli::scale::main(&args),
        Command::Upgrade(args) => cli::upgrade::main(&args),
        Command::Simulate(args) => cli::simulate::main(&args),
    }
}
