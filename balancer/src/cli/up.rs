//! `flurry up`: runs a tier in the foreground until SIGTERM or SIGINT; SIGHUP makes it read
//! its configuration again, SIGUSR2 hand over to the program as it is on disk now.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;

use super::{FAILED, WRONG_INPUT, start_logging};
use crate::config::Config;
use crate::front::{Front, FrontError, ReloadAsked, UpgradeAsked};
use crate::hot_restart::{HandOverError, Predecessor, notify};
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
    #[error(
        "vm: a tier of VMs cannot take over from a running process (stop that one first, then start this one)"
    )]
    TakesNoVms,
    #[error("cannot start: {0}")]
    System(#[from] std::io::Error),
    #[error(transparent)]
    Tier(#[from] TierError),
}

/// Runs the sub-command.
pub fn main(args: &UpArgs) -> ExitCode {
    let mut predecessor = match Predecessor::meet() {
        Ok(predecessor) => predecessor,
        Err(error) => {
            eprintln!("flurry up: {error}");
            return ExitCode::from(FAILED);
        }
    };
    let config = match Config::load(&args.config) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("{error}");
            goes_on(predecessor.as_ref(), &error);
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
    match runtime.block_on(up(&config, &args.config, &mut predecessor)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("flurry up: {error}");
            goes_on(predecessor.as_ref(), &error);
            ExitCode::from(FAILED)
        }
    }
}

fn goes_on(predecessor: Option<&Predecessor>, why: &dyn std::fmt::Display) {
    if let Some(predecessor) = predecessor {
        predecessor.goes_on(why);
    }
}

async fn up(config: &Config, file: &Path, predecessor: &mut Option<Predecessor>) -> Result<(), UpError> {
    let mut signals = Signals::new()?;
    let mut front = open(config, predecessor).await?;
    let mut wishes = Wishes::new(&mut front)?;
    tracing::info!(listen = ?front.addresses(), admin = %front.admin(), "tier `{}` is up", config.name);
    let tier = match start_tier(config, &front, &mut signals).await {
        Ok(tier) => tier,
        Err(error) => {
            front.close().await;
            return Err(error);
        }
    };
    notify("READY=1");
    let stopped = serve(&mut front, tier.as_ref(), file, &mut signals, &mut wishes);
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

/// Opens the front door, where somebody else stood in it if there was somebody.
async fn open(config: &Config, predecessor: &mut Option<Predecessor>) -> Result<Front, UpError> {
    let Some(before) = predecessor.as_mut() else { return Ok(Front::open(config).await?) };
    if config.vm.is_some() {
        return Err(UpError::TakesNoVms);
    }
    let front = Front::open_with(config, before.inherited()).await?;
    before.is_replaced();
    *predecessor = None;
    Ok(front)
}

/// What somebody wants of a running process, other than its end.
struct Wishes {
    hangup: Signal,
    user2: Signal,
    reloads: Option<mpsc::Receiver<ReloadAsked>>,
    upgrades: Option<mpsc::Receiver<UpgradeAsked>>,
}

/// One of them, with who asked if an answer is wanted.
enum Wish {
    Reload(Option<ReloadAsked>),
    Upgrade(Option<UpgradeAsked>),
}

impl Wishes {
    fn new(front: &mut Front) -> std::io::Result<Self> {
        let (hangup, user2) = (signal(SignalKind::hangup())?, signal(SignalKind::user_defined2())?);
        Ok(Self { hangup, user2, reloads: front.asks(), upgrades: front.upgrade_asks() })
    }

    async fn next(&mut self) -> Wish {
        let Self { hangup, user2, reloads, upgrades } = self;
        tokio::select! {
            _ = hangup.recv() => Wish::Reload(None),
            _ = user2.recv() => Wish::Upgrade(None),
            asked = asked(reloads) => Wish::Reload(asked),
            asked = asked(upgrades) => Wish::Upgrade(asked),
        }
    }
}

async fn asked<T>(asks: &mut Option<mpsc::Receiver<T>>) -> Option<T> {
    match asks {
        Some(asks) => asks.recv().await,
        None => std::future::pending().await,
    }
}

/// Until a signal to stop, or until another process serves: does what is asked for meanwhile.
async fn serve(
    front: &mut Front,
    tier: Option<&Tier>,
    file: &Path,
    signals: &mut Signals,
    wishes: &mut Wishes,
) {
    loop {
        let wish = tokio::select! {
            () = signals.stop_asked_for() => return,
            wish = wishes.next() => wish,
        };
        match wish {
            Wish::Reload(asked) => {
                let result = reload(front, tier, file).await;
                // Whoever asked may have gone.
                let _ = asked.map(|asked| asked.send(result));
            }
            Wish::Upgrade(asked) => {
                let result = tokio::select! {
                    () = signals.stop_asked_for() => return,
                    result = upgrade(front, tier.is_some()) => result,
                };
                let replaced = result.is_ok();
                let _ = asked.map(|asked| asked.send(result));
                if replaced {
                    return;
                }
            }
        }
    }
}

async fn reload(front: &mut Front, tier: Option<&Tier>, file: &Path) -> Result<u64, String> {
    match Config::load(file) {
        Ok(config) => take_over(front, tier, config).await,
        Err(error) => {
            front.reload_failed(&error);
            Err(error.to_string())
        }
    }
}

/// Hands over to a new program, or goes on and says why.
async fn upgrade(front: &mut Front, has_vms: bool) -> Result<u32, String> {
    const HAS_VMS: &str = "vm: the VMs of this tier belong to this process and would end with it, so that \
                           no other one can take over (drain and restart, or reload for a new configuration)";
    let result = match has_vms {
        true => Err(HandOverError::Kept(HAS_VMS)),
        false => front.hand_over().await,
    };
    let result = result.map_err(|error| error.to_string());
    front.note_upgrade(result.as_ref().map(|_| ()).map_err(String::clone));
    match &result {
        Ok(process) => {
            notify(&format!("MAINPID={process}"));
            tracing::info!(process, "a new program serves; this one finishes what it has");
        }
        Err(error) => tracing::error!("no new program takes over, this one goes on:\n{error}"),
    }
    result
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
