//! `flurry scale`: a size by hand, for a time, and back.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};
use scaler::Mode;

use super::{FAILED, WRONG_INPUT};
use crate::admin::send_order;
use crate::config::Config;
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
    /// Address of the admin listener.
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:9900", conflicts_with = "config")]
    admin: SocketAddr,
    /// Take the address of the admin listener from this configuration.
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
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
    let admin = match args.config.as_deref().map(Config::load).transpose() {
        Ok(config) => config.map_or(args.admin, |config| config.admin),
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(WRONG_INPUT);
        }
    };
    match send(admin, args.order()) {
        Ok(said) => {
            print!("{said}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("flurry scale: {error}");
            ExitCode::from(FAILED)
        }
    }
}

fn send(admin: SocketAddr, order: Order) -> Result<String, Box<dyn std::error::Error>> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    Ok(runtime.block_on(send_order(admin, order))?)
}
