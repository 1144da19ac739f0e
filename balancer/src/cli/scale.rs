//! `flurry scale`: a size by hand, for a time, and back.

use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use scaler::Mode;

use super::ask::AdminArgs;
use crate::admin::{FetchError, send_order};
use crate::front::Order;

/// Hold a running tier at a size, let its policy decide again, or pause it.
///
/// The size is kept within min and max of the policy. Nothing of it outlives `flurry up`.
#[derive(Debug, Args)]
pub struct ScaleArgs {
    /// Backends, the parent included.
    #[arg(value_name = "N", value_parser = clap::value_parser!(u32).range(1..), required_unless_present_any = ["auto", "mode"], conflicts_with_all = ["auto", "mode"])]
    backends: Option<u32>,
    /// How long to hold it [default: until --auto]
    #[arg(long = "for", value_name = "TIME", value_parser = humantime::parse_duration, requires = "backends", conflicts_with_all = ["auto", "mode"])]
    time: Option<Duration>,
    /// Let the policy decide again.
    #[arg(long, conflicts_with = "mode")]
    auto: bool,
    /// Act, only recommend, or do nothing at all.
    #[arg(long, value_enum)]
    mode: Option<ModeArg>,
    #[command(flatten)]
    admin: AdminArgs,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum ModeArg {
    Active,
    Recommend,
    Paused,
}

impl ScaleArgs {
    fn order(&self) -> Order {
        match (self.backends, self.mode) {
            (Some(backends), _) => Order::HoldAt { backends, time: self.time },
            (None, Some(ModeArg::Active)) => Order::Mode(Mode::Active),
            (None, Some(ModeArg::Recommend)) => Order::Mode(Mode::Recommend),
            (None, Some(ModeArg::Paused)) => Order::Mode(Mode::Paused),
            (None, None) => Order::Resume,
        }
    }
}

/// Runs the sub-command.
pub fn main(args: &ScaleArgs) -> ExitCode {
    args.admin.ask("scale", async |admin| {
        let said = send_order(admin, args.order()).await?;
        print!("{said}");
        Ok::<_, FetchError>(())
    })
}
