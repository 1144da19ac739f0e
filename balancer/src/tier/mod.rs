//! A tier of VMs: the engine behind, the pool in front, the scaler between.
//!
//! ```text
//!   start: image -> engine -> boot -> first answer -> warm -> checkpoint -> pool
//!   run:   samples -> scaler -> decision -> tickets and clones -> pool
//!                                        -> retire, drain, sf_exit
//!   stop:  (the front door has drained) -> all VMs end, nothing is left
//! ```

pub mod bench;
mod control;
mod guest_http;
mod journal;
mod metrics;
mod numbers;
mod observe;
mod processors;
mod queries;
mod record;
mod report;
mod router;
mod scaler_metrics;
mod start;
mod steer;
mod warmth;

use std::future::Future;
use std::io;
use std::time::Duration;

use snowflock_engine::control::{Engine, EngineError, report};
use snowflock_engine::memory::protocol::CheckpointId;
use snowflock_engine::network::Dialer;

use router::TierRouter;

use crate::config::VmTier;
use crate::front::Handles;
use crate::pool::{Dial, Dialing};

/// Why a tier of VMs cannot run.
#[derive(Debug, thiserror::Error)]
pub enum TierError {
    /// The image cannot be used.
    #[error("vm.image: {0}")]
    Image(#[from] flurry_image::ImageError),
    /// A value of the configuration is not usable on this host.
    #[error("{key}: {problem}")]
    Unusable {
        /// The key.
        key: &'static str,
        /// What is wrong and what would be right.
        problem: String,
    },
    /// The engine did not do its part.
    #[error("{what}: {}", report(.source))]
    Engine {
        /// What was tried.
        what: &'static str,
        /// The engine's reason.
        source: EngineError,
    },
    /// There is no way out of the private network, or not the one that was asked for.
    #[error("vm.router: {said}")]
    Router {
        /// What was tried, and the reason.
        said: String,
    },
    /// The parent never answered a request.
    #[error(
        "the guest never answered GET {path} on port {port} with 200 to 399 within vm.boot_deadline \
         ({limit:?}); last: {last}. Its console: {console}"
    )]
    NeverReady {
        /// The path asked for.
        path: String,
        /// The port asked.
        port: u16,
        /// The deadline.
        limit: Duration,
        /// The last failure.
        last: String,
        /// The console's log, which is kept.
        console: String,
    },
    /// A signal came before the tier was up.
    #[error("stopped by a signal before the tier was up")]
    Stopped,
    /// No thread, no timer.
    #[error("cannot start: {0}")]
    System(#[from] io::Error),
    /// A metric has the name of another one.
    #[error("metrics cannot be registered: {0}")]
    Metrics(#[from] prometheus::Error),
}

impl TierError {
    fn engine(what: &'static str) -> impl Fn(EngineError) -> Self {
        move |source| Self::Engine { what, source }
    }
}

/// A running tier of VMs.
pub struct Tier {
    config: VmTier,
    engine: Engine,
    router: Option<TierRouter>,
    handles: Handles,
    checkpoint: CheckpointId,
}

impl Tier {
    /// Boots the parent, warms it, takes the first checkpoint, and lets the parent into the pool.
    ///
    /// # Errors
    /// See [`TierError`]; nothing is left behind then. `stop` ends the start, too.
    pub async fn start(
        name: &str,
        config: VmTier,
        health_path: &str,
        handles: Handles,
        stop: impl Future<Output = ()>,
    ) -> Result<Self, TierError> {
        let engine = start::engine(name, &config).await?;
        // Not ended half-way by a signal: it takes a few seconds and would leave devices behind.
        let (router, parent) = match start::router(name, &config, &engine, &handles).await {
            Ok(router) => (router, Ok(())),
            Err(error) => (None, Err(error)),
        };
        let started = match parent {
            Err(error) => Err(error),
            Ok(()) => tokio::select! {
                started = start::parent(&engine, &config, health_path, &handles) => started,
                () = stop => Err(TierError::Stopped),
            },
        };
        match started {
            Ok(checkpoint) => Ok(Self { config, engine, router, handles, checkpoint }),
            Err(error) => {
                if let Some(router) = router {
                    router.stop().await;
                }
                if let Err(left) = engine.shut_down().await {
                    tracing::warn!(error = report(&left), "not everything was removed");
                }
                Err(error)
            }
        }
    }

    /// Scales until `stop`.
    ///
    /// # Errors
    /// The policy is not usable, or a metric has the name of another one.
    pub async fn run_until(&self, stop: impl Future<Output = ()>) -> Result<(), TierError> {
        let control = control::Control::new(self)?;
        tokio::select! {
            () = control.run() => {}
            () = stop => {}
        }
        Ok(())
    }

    /// Puts the router's rules of a new configuration in force; the rest of it is none of ours.
    ///
    /// # Errors
    /// They were refused, and the former ones are in force.
    pub async fn change_rules(&self, new: Option<&VmTier>) -> Result<(), TierError> {
        let asked = new.and_then(|new| new.vm.router.as_ref());
        match (&self.router, asked) {
            (Some(router), Some(asked)) => router.change(asked).await,
            _ => Ok(()),
        }
    }

    /// Ends all VMs and removes all that was made for them.
    ///
    /// # Errors
    /// Something could not be removed.
    pub async fn stop(self) -> Result<(), TierError> {
        if let Some(router) = self.router {
            router.stop().await;
        }
        self.engine.shut_down().await.map_err(TierError::engine("cannot clean up"))
    }
}

/// Reaches guests in the engine's private network.
struct GuestDialer(Dialer);

impl Dial for GuestDialer {
    fn dial(&self, address: std::net::SocketAddr) -> Dialing<'_> {
        Box::pin(self.0.dial(address))
    }
}
