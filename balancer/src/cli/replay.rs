//! `flurry replay`: arguments, signals and exit code. The work is in
//! [`crate::replay`].

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use tokio::signal::unix::{SignalKind, signal};

use super::{FAILED, WRONG_INPUT};
use crate::replay::client::Target;
use crate::replay::schedule::Arrivals;
use crate::replay::trace::TraceTime;
use crate::replay::{Options, ReplayError, run};

/// The user ended the replay early (128 + SIGINT, as shells do).
const INTERRUPTED: u8 = 130;

/// Play a recorded load curve against a tier, and see what the tier makes of it.
///
/// The window of the trace is squeezed into --duration and scaled so that its
/// busiest second has --peak requests. Requests go out when they are due,
/// whatever became of earlier ones; latency counts from then.
///
/// An option given twice counts as given last.
#[derive(Debug, Args)]
#[command(args_override_self = true)]
pub struct ReplayArgs {
    /// Where the tier listens.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: Target,
    /// Where the tier's admin listener is.
    #[arg(long, value_name = "URL", default_value = "http://127.0.0.1:9900")]
    admin: Target,
    /// CSV of `minute,requests` (HH:MM) or `second,requests`.
    #[arg(long, value_name = "FILE")]
    trace: PathBuf,
    /// Start of the window to play, HH:MM or seconds [default: start of the trace]
    #[arg(long, value_name = "TIME")]
    from: Option<TraceTime>,
    /// End of the window to play [default: end of the trace]
    #[arg(long, value_name = "TIME")]
    to: Option<TraceTime>,
    /// How long the window takes to play.
    #[arg(long, value_name = "TIME", default_value = "75s", value_parser = humantime::parse_duration)]
    duration: Duration,
    /// Requests in the busiest second.
    #[arg(long, value_name = "REQUESTS")]
    peak: f64,
    /// Path to ask for; {n} stands for the number of an item, from 1.
    #[arg(long, default_value = "/")]
    path: String,
    /// How many different items {n} stands for.
    #[arg(long, value_name = "COUNT")]
    items: Option<u32>,
    /// How arrivals are spread at a given rate.
    #[arg(long, value_enum, default_value_t = ArrivalsArg::Poisson)]
    arrivals: ArrivalsArg,
    /// The same seed gives the same requests at the same times.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long to watch the tier shrink after the load; ends early when no clone is left.
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = humantime::parse_duration)]
    settle: Duration,
    /// Folder for summary.json and timeline.svg.
    #[arg(long, value_name = "FOLDER", default_value = "target/replay")]
    out: PathBuf,
    /// End with exit code 1 when any request failed.
    #[arg(long)]
    fail_on_error: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ArrivalsArg {
    /// Like independent clients.
    Poisson,
    /// As far apart as the rate allows.
    Even,
}

impl ReplayArgs {
    fn options(&self) -> Options {
        let arrivals = match self.arrivals {
            ArrivalsArg::Poisson => Arrivals::Poisson,
            ArrivalsArg::Even => Arrivals::Even,
        };
        Options {
            url: self.url.clone(),
            admin: self.admin.clone(),
            trace: self.trace.clone(),
            from: self.from,
            to: self.to,
            duration: self.duration,
            peak: self.peak,
            arrivals,
            seed: self.seed,
            path: self.path.clone(),
            items: self.items,
            settle: self.settle,
            out: self.out.clone(),
        }
    }
}

/// Runs the sub-command and says how it went: 1 if requests failed under `--fail-on-error`.
pub fn main(args: &ReplayArgs) -> ExitCode {
    let options = args.options();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let replayed = match runtime {
        Ok(runtime) => runtime.block_on(async { run(&options, interrupt()).await }),
        Err(error) => {
            eprintln!("flurry replay: cannot start: {error}");
            return ExitCode::from(FAILED);
        }
    };
    match replayed {
        Ok(summary) if summary.interrupted => ExitCode::from(INTERRUPTED),
        Ok(summary) if args.fail_on_error && summary.failed > 0 => ExitCode::from(FAILED),
        Ok(_) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flurry replay: {error}");
            ExitCode::from(exit_code(&error))
        }
    }
}

fn exit_code(error: &ReplayError) -> u8 {
    if error.is_input() { WRONG_INPUT } else { FAILED }
}

/// Ends when the user asks the program to stop.
async fn interrupt() {
    let terminate = async {
        match signal(SignalKind::terminate()) {
            Ok(mut signal) => signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = terminate => {}
        Ok(()) = tokio::signal::ctrl_c() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        replay: ReplayArgs,
    }

    fn parse(args: &[&str]) -> Result<Options, String> {
        let all = ["replay", "--trace", "t.csv", "--peak", "300"].iter().chain(args);
        Program::try_parse_from(all)
            .map(|program| program.replay.options())
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_defaults_are_the_demo_tier() {
        let options = parse(&[]).unwrap();
        assert_eq!(options.url.to_string(), "http://127.0.0.1:8080");
        assert_eq!(options.admin.to_string(), "http://127.0.0.1:9900");
        assert_eq!((options.duration.as_secs(), options.settle.as_secs()), (75, 20));
    }

    #[test]
    fn values_that_cannot_be_are_refused_with_what_would_be_right() {
        for (args, why) in [
            (["--url", "localhost"], "must be http://host:port"),
            (["--from", "noon"], "must be HH:MM"),
            (["--duration", "soon"], "invalid value 'soon'"),
            (["--arrivals", "late"], "possible values: poisson, even"),
        ] {
            let complaint = parse(&args).unwrap_err();
            assert!(complaint.contains(why), "{args:?}: {complaint}");
        }
    }

    #[test]
    fn an_option_given_twice_counts_as_given_last() {
        let options = parse(&["--duration", "10s", "--peak", "20", "--duration", "30s"]).unwrap();
        assert_eq!((options.duration.as_secs(), options.peak), (30, 20.0));
    }

    #[test]
    fn wrong_input_and_a_failed_run_have_different_exit_codes() {
        assert_eq!(exit_code(&ReplayError::Options(vec![])), WRONG_INPUT);
        let why = "refused".to_owned();
        assert_eq!(exit_code(&ReplayError::Unreachable { option: "--url", why }), FAILED);
    }
}
