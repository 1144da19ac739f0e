//! `flurry top`: what a running tier does, again and again, with the last minutes of its load.

use std::collections::VecDeque;
use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write as _};
use std::net::SocketAddr;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use tokio::time::MissedTickBehavior;

use super::ask::AdminArgs;
use crate::admin::status::Status;
use crate::admin::{FetchError, fetch_status, table};

/// Frames that the curves go back.
const WIDTH: usize = 60;
/// Heights of a curve, lowest first.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

/// Show what a running Flurry does, again and again, until Ctrl-C.
#[derive(Debug, Args)]
pub struct TopArgs {
    #[command(flatten)]
    admin: AdminArgs,
    /// Time between two frames.
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = humantime::parse_duration)]
    every: Duration,
    /// Frames to show [default: until Ctrl-C]
    #[arg(long, value_name = "N")]
    count: Option<u64>,
}

/// Runs the sub-command: 1 if nobody answers at first, 2 for a wrong configuration.
pub fn main(args: &TopArgs) -> ExitCode {
    args.admin.ask("top", async |admin| show(args, admin).await)
}

async fn show(args: &TopArgs, admin: SocketAddr) -> Result<(), Box<dyn Error>> {
    let (mut past, mut out) = (Past::default(), io::stdout());
    // Home and clear; a file or a pipe gets one frame after the other.
    let clear = if out.is_terminal() { "\x1b[H\x1b[2J" } else { "" };
    let mut ticks = tokio::time::interval(args.every.max(Duration::from_millis(100)));
    // After a time without an answer frames do not come in a heap.
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for shown in 0..args.count.unwrap_or(u64::MAX) {
        ticks.tick().await;
        let frame = match fetch_status(admin).await {
            Ok(status) => past.frame(&status),
            Err(error) if shown == 0 => return Err(error.into()),
            Err(error) => past.missed(&error),
        };
        write!(out, "{clear}{frame}")?;
        out.flush()?;
    }
    Ok(())
}

/// The last frames.
#[derive(Debug, Default)]
struct Past {
    requests: VecDeque<f64>,
    ready: VecDeque<f64>,
}

impl Past {
    /// A frame without an answer: the curves stand still until there is one again.
    fn missed(&self, error: &FetchError) -> String {
        let (requests, ready) = (curve(&self.requests), curve(&self.ready));
        format!("requests/s  {requests}\nready       {ready}\n\nno answer: {error}\n\n")
    }

    fn frame(&mut self, status: &Status) -> String {
        push(&mut self.requests, status.load.requests_per_second);
        push(&mut self.ready, f64::from(status.scaling.ready));
        let mut out = String::new();
        // Writing to a string does not fail.
        let _ = writeln!(out, "requests/s  {}", curve(&self.requests));
        let _ = writeln!(out, "ready       {}\n", curve(&self.ready));
        out.push_str(&table(status));
        for line in &status.scaling.scaler.would_change {
            let _ = writeln!(out, "otherwise: {line}");
        }
        out.push('\n');
        out
    }
}

fn push(values: &mut VecDeque<f64>, value: f64) {
    if values.len() == WIDTH {
        values.pop_front();
    }
    values.push_back(value);
}

/// The values as bars from zero to their highest, with that as a number.
fn curve(values: &VecDeque<f64>) -> String {
    let top = values.iter().copied().fold(0.0, f64::max);
    let height = |value: &f64| if top > 0.0 { (value / top * 7.0).round() as usize } else { 0 };
    let bars: String = values.iter().map(|value| BARS[height(value).min(7)]).collect();
    format!("{bars:<WIDTH$}  to {top:.0}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::status::{LoadStatus, ScalerStatus, ScalingStatus};

    #[test]
    fn a_frame_has_curves_the_table_and_what_would_change_the_decision() {
        let mut past = Past::default();
        let status = |requests_per_second: f64, ready: u32| Status {
            load: LoadStatus { requests_per_second, ..LoadStatus::default() },
            scaling: ScalingStatus {
                ready,
                scaler: ScalerStatus { would_change: vec!["a higher max".into()], ..Default::default() },
                ..ScalingStatus::default()
            },
            ..Status::default()
        };
        past.frame(&status(0.0, 1));
        let frame = past.frame(&status(70.0, 4));
        assert!(frame.starts_with("requests/s  ▁█ "), "{frame}");
        assert!(frame.contains("to 70\n") && frame.contains("ready       ▃█"), "{frame}");
        assert!(frame.contains("backends  4 ready") && frame.contains("otherwise: a higher max"), "{frame}");
    }

    #[test]
    fn a_frame_without_an_answer_keeps_the_curves_and_says_why() {
        let mut past = Past::default();
        past.frame(&Status::default());
        let why = FetchError::Timeout(([127, 0, 0, 1], 9900).into(), Duration::from_secs(5));
        let frame = past.missed(&why);
        assert!(frame.contains("no answer: the admin listener at 127.0.0.1:9900 did not answer"), "{frame}");
        assert_eq!(past.ready.len(), 1);
    }

    #[test]
    fn curves_are_bounded_and_a_quiet_tier_is_flat() {
        let mut values = VecDeque::new();
        (0..1000).for_each(|_| push(&mut values, 0.0));
        assert_eq!(values.len(), WIDTH);
        assert!(curve(&values).starts_with("▁▁▁"));
    }
}
