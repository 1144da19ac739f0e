//! `flurry simulate`: arguments and exit code. The work is in [`crate::simulate`].

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;
use scaler::Policy;

use super::{FAILED, WRONG_INPUT};
use crate::admin::fetch_status;
use crate::simulate::{Contender, Options, draw, run, table};

/// Run a policy over a recorded load, without any VM, and compare it with others.
///
/// Decisions are made by the very code that `flurry up` decides with, four times
/// a second, on a model of a tier: requests queue before all workers of all
/// backends (M/M/c), and clones serve once their clone time is over.
#[derive(Debug, Args)]
pub struct SimulateArgs {
    /// The configuration; its image need not exist.
    #[arg(short, long, value_name = "FILE", default_value = "flurry.yaml")]
    config: PathBuf,
    /// CSV of requests per minute or second: `minute,requests`, `second,requests` or `time,rps`.
    #[arg(long, value_name = "FILE")]
    load: PathBuf,
    /// Print JSON instead of a table.
    #[arg(long)]
    json: bool,
    /// Draw load, backends and latency.
    #[arg(long, value_name = "FILE")]
    plot: Option<PathBuf>,
    /// Models of others on the same load: Kubernetes' HPA, Knative's KPA, a fixed number.
    #[arg(long, value_enum, value_delimiter = ',', value_name = "WHOM")]
    compare: Vec<Contender>,
    /// From asking for a clone to its first answer [default: 250ms]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    clone_time: Option<Duration>,
    /// What each further clone of one order adds to that: they share the host.
    #[arg(long, value_name = "TIME", default_value = "0s", value_parser = humantime::parse_duration)]
    clone_time_each: Duration,
    /// Time at the beginning of the trace's clock, e.g. 2026-01-13T00:00:00Z, for schedules and forecasts.
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_rfc3339)]
    starts: Option<SystemTime>,
    /// Take the clone time that a running Flurry has measured, from its admin listener.
    #[arg(long, value_name = "ADDRESS", conflicts_with = "clone_time")]
    measured_by: Option<SocketAddr>,
    /// From asking for a pod to its first answer, for those compared with.
    #[arg(long, value_name = "TIME", default_value = "10s", value_parser = humantime::parse_duration)]
    cold_start: Duration,
    /// Requests that one backend serves at once [default: scaling.target_concurrency, rounded up]
    #[arg(long, value_name = "N")]
    capacity: Option<u32>,
    /// Mean time of one request.
    #[arg(long, value_name = "TIME", default_value = "20ms", value_parser = humantime::parse_duration)]
    service_time: Duration,
    /// Latency that 95 % of requests should stay under [default: five times the service time]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    objective: Option<Duration>,
    /// Scale the load so that its busiest interval has so many requests per second.
    #[arg(long, value_name = "REQUESTS")]
    peak: Option<f64>,
}

/// Runs the sub-command: 2 for wrong input, 1 if the picture cannot be written.
pub fn main(args: &SimulateArgs) -> ExitCode {
    let clone_time = match args.measured_by.map(measured).transpose() {
        Ok(measured) => measured.or(args.clone_time).unwrap_or(Policy::ASSUMED_CLONE_TIME),
        Err(why) => {
            eprintln!("flurry simulate: --measured-by: {why}");
            return ExitCode::from(FAILED);
        }
    };
    let outcome = match run(&options(args, clone_time)) {
        Ok(outcome) => outcome,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(WRONG_INPUT);
        }
    };
    match serde_json::to_string_pretty(&outcome) {
        Ok(text) if args.json => println!("{text}"),
        _ => print!("{}", table(&outcome)),
    }
    let Some(file) = &args.plot else { return ExitCode::SUCCESS };
    match std::fs::write(file, draw(&outcome)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flurry simulate: --plot: cannot write {}: {error}", file.display());
            ExitCode::from(FAILED)
        }
    }
}

fn options(args: &SimulateArgs, clone_time: Duration) -> Options {
    Options {
        config: args.config.clone(),
        load: args.load.clone(),
        compare: args.compare.clone(),
        clone_time,
        clone_time_each: args.clone_time_each,
        starts: args.starts.and_then(|starts| starts.duration_since(UNIX_EPOCH).ok()),
        cold_start: args.cold_start,
        capacity: args.capacity,
        service_time: args.service_time,
        objective: args.objective,
        peak: args.peak,
    }
}

/// The median time from a fork to the first answer of a running tier.
fn measured(admin: SocketAddr) -> Result<Duration, Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let status = runtime.block_on(fetch_status(admin))?;
    let median = status.engine.and_then(|engine| engine.fork_to_first_response_ms);
    Ok(Duration::from_secs_f64(median.ok_or("no clone has been timed yet")? / 1e3))
}
