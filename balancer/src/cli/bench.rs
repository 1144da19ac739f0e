//! `flurry bench`: figures of this machine, beside their goals.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{FAILED, WRONG_INPUT, start_logging};
use crate::simulate;
use crate::tier::bench::{self, BenchError, Measurement, Options};

/// Measure what forking costs on this machine.
#[derive(Debug, Args)]
pub struct BenchArgs {
    #[command(subcommand)]
    command: BenchCommand,
}

#[derive(Debug, Subcommand)]
enum BenchCommand {
    /// Fork real VMs and measure pause, descriptor, time to the first answer, pages and memory.
    Fork(ForkArgs),
    /// Simulate a recorded day and a leap against Knative's autoscaler; time decisions.
    Scaler(ScalerArgs),
}

#[derive(Debug, Args)]
struct ScalerArgs {
    /// The recorded day, CSV.
    #[arg(long, value_name = "FILE", default_value = "deploy/traces/wc98-0630.csv")]
    trace: PathBuf,
    /// Share of what a backend serves at once that the policy aims at, above 0, at most 1.
    #[arg(long, value_name = "SHARE", default_value_t = simulate::UTILISATION, value_parser = share)]
    utilisation: f64,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct ForkArgs {
    /// The image of the demo guest.
    #[arg(long, value_name = "DIR", default_value = "target/images/demo")]
    image: PathBuf,
    /// Memory of each VM in MiB.
    #[arg(long, value_name = "N", default_value_t = 256)]
    memory_mib: u32,
    /// Clones made at once in the last part; 0 leaves it out.
    #[arg(long, value_name = "N", default_value_t = 8)]
    clones: u32,
    /// Checkpoints, each with a first clone.
    #[arg(long, value_name = "N", default_value_t = 5)]
    rounds: u32,
    /// Clones after the first one of each checkpoint.
    #[arg(long, value_name = "N", default_value_t = 3)]
    siblings: u32,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
}

/// Runs the sub-command.
pub fn main(args: &BenchArgs) -> ExitCode {
    match &args.command {
        BenchCommand::Fork(args) => fork(args),
        BenchCommand::Scaler(args) => scaler(args),
    }
}

fn scaler(args: &ScalerArgs) -> ExitCode {
    match simulate::bench_of(&args.trace, args.utilisation) {
        Ok(measured) => show(&measured, args.json),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(WRONG_INPUT)
        }
    }
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok().filter(|share| *share > 0.0 && *share <= 1.0);
    share.ok_or_else(|| "a number above 0 and at most 1 is needed, 0.78 for example".to_owned())
}

fn fork(args: &ForkArgs) -> ExitCode {
    start_logging();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("flurry bench: cannot start: {error}");
            return ExitCode::from(FAILED);
        }
    };
    let options = Options {
        image: args.image.clone(),
        memory_mib: args.memory_mib,
        clones: args.clones,
        rounds: args.rounds,
        siblings: args.siblings,
    };
    match runtime.block_on(bench::fork(&options)) {
        Ok(measured) => show(&measured, args.json),
        Err(error) => {
            eprintln!("flurry bench fork: {error}");
            ExitCode::from(if matches!(error, BenchError::Config(_)) { WRONG_INPUT } else { FAILED })
        }
    }
}

fn show(measured: &[Measurement], json: bool) -> ExitCode {
    match serde_json::to_string_pretty(measured) {
        Ok(text) if json => println!("{text}"),
        _ => print!("{}", bench::table(measured)),
    }
    ExitCode::SUCCESS
}
