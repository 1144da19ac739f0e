//! `flurry up`: runs a tier in the foreground until SIGTERM or SIGINT; SIGHUP makes it read
//! its configuration again.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{FAILED, WRONG_INPUT, start_logging};
use crate::config::Config;
use crate::front::{Front, FrontError};
use crate::tier::{Tier, TierError};

/// Run a tier; SIGTERM or Ctrl-C drains it and cleans up.
#[derive(Debug, Args)]
pub struct UpArgs {
    /// The configuration.
    #[arg(short, long, value_name = "FILE", default_value = "flurry.yaml")]
    config: PathBuf,
}

/// Why a tier cannot run.
#[derive(Debug, thiserror::Error)]
enum UpError {
    #[error(transparent)]
    Front(#[from] FrontError),
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
    #[error(transparent)]
    Tier(#[from] TierError),
}

/// Runs the sub-command.
pub fn main(args: &UpArgs) -> ExitCode {
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(WRONG_INPUT);
        }
    };
    start_logging();
    let runtime = match tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("flurry up: cannot start: {error}");
            return ExitCode::from(FAILED);
        }
    };
    match runtime.block_on(up(&config, &args.config)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flurry up: {error}");
            ExitCode::from(FAILED)
        }
    }
}

async fn up(config: &Config, file: &Path) -> Result<(), UpError> {
    let mut signals = Signals::new()?;
    let mut reload = signal(SignalKind::hangup())?;
    let mut front = Front::open(config).await?;
    tracing::info!(listen = ?front.addresses(), admin = %front.admin(), "tier `{}` is up", config.name);
    let tier = match start_tier(config, &front, &mut signals).await {
        Ok(tier) => tier,
        Err(error) => {
            front.close().await;
            return Err(error);
        }
    };
    let stopped = serve(&mut front, tier.as_ref(), file, &mut signals, &mut reload);
    let ran = match &tier {
        None => {
            stopped.await;
            Ok(())
        }
        Some(tier) => tier.run_until(stopped).await,
    };
    // By the configuration in force, which need not be the first one.
    let drain = front.handles().plan.load().timeouts.drain;
    tracing::info!("stopping: requests may go on for {drain:?}; a second signal cuts them");
    tokio::select! {
        stopped = front.close() => match stopped.cut {
            0 => tracing::info!("stopped"),
            cut => tracing::warn!(cut, "stopped; connections that outlasted the deadline were cut"),
        },
        () = signals.stop_asked_for() => tracing::warn!("stopped at once by a second signal"),
    }
    if let Some(tier) = tier {
        tier.stop().await?;
    }
    Ok(ran?)
}

/// Until a signal to stop: reads the configuration again when SIGHUP or the admin listener
/// asks for it.
async fn serve(
    front: &mut Front,
    tier: Option<&Tier>,
    file: &Path,
    signals: &mut Signals,
    reload: &mut Signal,
) {
    let mut asks = front.asks();
    loop {
        let asked = async {
            match &mut asks {
                Some(asks) => asks.recv().await,
                None => std::future::pending().await,
            }
        };
        let answer = tokio::select! {
            () = signals.stop_asked_for() => return,
            _ = reload.recv() => None,
            asked = asked => asked,
        };
        let result = match Config::load(file) {
            Ok(config) => take_over(front, tier, config).await,
            Err(error) => {
                front.reload_failed(&error);
                Err(error.to_string())
            }
        };
        if let Some(answer) = answer {
            // Whoever asked may have gone.
            let _ = answer.send(result);
        }
    }
}

/// The front door first: it says whether the configuration can follow at all.
async fn take_over(front: &mut Front, tier: Option<&Tier>, config: Config) -> Result<u64, String> {
    let vm = config.vm.clone();
    let generation = front.reload(config).map_err(|error| error.to_string())?;
    let Some(tier) = tier else { return Ok(generation) };
    if let Err(error) = tier.change_rules(vm.as_ref()).await {
        front.reload_failed(&error);
        return Err(error.to_string());
    }
    Ok(generation)
}

/// The tier of VMs, if one is configured. A signal ends its start, too.
async fn start_tier(config: &Config, front: &Front, signals: &mut Signals) -> Result<Option<Tier>, UpError> {
    let Some(vm) = &config.vm else { return Ok(None) };
    let (stop, handles) = (signals.stop_asked_for(), front.handles());
    Ok(Some(Tier::start(&config.name, vm.clone(), &config.pool.health.path, handles, stop).await?))
}

/// SIGTERM and SIGINT.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        let terminate = signal(SignalKind::terminate())?;
        Ok(Self { terminate, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn stop_asked_for(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
