//! `flurry policy`: expectations and journals. The work is in [`crate::policy`].

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use super::{FAILED, WRONG_INPUT};
use crate::policy::{self, Outcome, PolicyError};

/// Check a scaling policy against what you expect of it, or play a journal to it.
#[derive(Debug, Args)]
pub struct PolicyArgs {
    #[command(subcommand)]
    command: PolicyCommand,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// Run a file of expectations; exit code 1 if one is missed.
    Test {
        /// The file; `deploy/examples/policy/expectations.yaml` shows what stands in it.
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Play a journal (`scaling.journal`) again; exit code 1 if a decision differs.
    Replay {
        /// The configuration whose policy decides; its image need not exist.
        #[arg(short, long, value_name = "FILE", default_value = "flurry.yaml")]
        config: PathBuf,
        /// The journal.
        #[arg(value_name = "JOURNAL")]
        journal: PathBuf,
        /// Print JSON instead of lines.
        #[arg(long)]
        json: bool,
    },
}

/// Runs the sub-command.
pub fn main(args: &PolicyArgs) -> ExitCode {
    let ran = match &args.command {
        PolicyCommand::Test { file } => policy::test(file).map(|outcomes| show(&outcomes)),
        PolicyCommand::Replay { config, journal, json } => {
            policy::play(config, journal).map(|replayed| differences(&replayed, *json))
        }
    };
    match ran {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(FAILED),
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(if matches!(error, PolicyError::Unreadable { .. }) { FAILED } else { WRONG_INPUT })
        }
    }
}

/// Prints the outcomes and says whether all passed.
fn show(outcomes: &[Outcome]) -> bool {
    for outcome in outcomes {
        println!("{}  {}", if outcome.missed.is_empty() { "ok    " } else { "MISSED" }, outcome.name);
        for missed in &outcome.missed {
            println!("        {}\n        the decision then: {}", missed.what, missed.decision);
        }
    }
    let missed = outcomes.iter().filter(|outcome| !outcome.missed.is_empty()).count();
    println!("{} passed, {missed} missed", outcomes.len() - missed);
    missed == 0
}

/// Prints the differences and says whether there are none.
fn differences(replayed: &scaler::journal::Replayed, json: bool) -> bool {
    match serde_json::to_string_pretty(replayed) {
        Ok(text) if json => println!("{text}"),
        _ => {
            for difference in &replayed.differences {
                println!("line {}, {:.1} s", difference.line, difference.at_seconds);
                println!("  then: {}\n  now:  {}", difference.then, difference.now);
            }
            if replayed.not_compared > 0 {
                println!("{} after gaps of the journal were not compared", replayed.not_compared);
            }
            println!("{} decisions, {} differ", replayed.decisions, replayed.differences.len());
        }
    }
    replayed.differences.is_empty()
}
