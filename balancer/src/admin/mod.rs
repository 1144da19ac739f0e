//! The admin listener: what Flurry tells about itself, where it is told to read its
//! configuration again, and where the scaler gets orders.

mod account_meter;
mod balance_meter;
mod client;
pub(crate) mod families;
mod meter;
mod open_metrics;
mod page;
mod routes;
pub mod status;
mod table;

use std::sync::Arc;
use std::time::Duration;

use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

pub use client::{FetchError, fetch_history, fetch_status, send_order};
pub use meter::Meter;
pub use table::table;

use crate::front::Handles;

/// Connections that are served at once; the others wait.
const MAX_CONNECTIONS: usize = 64;
/// The longest time for the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves the admin listener until the task is cancelled.
pub(crate) async fn serve(listener: TcpListener, handles: Handles) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        match listener.accept().await {
            Ok((stream, _peer)) => {
                let handles = handles.clone();
                connections.spawn(async move {
                    serve_one(stream, handles).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the admin listener cannot accept for now");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn serve_one(stream: TcpStream, handles: Handles) {
    let service = service_fn(move |request| {
        let handles = handles.clone();
        async move { Ok::<_, std::convert::Infallible>(routes::answer(request, handles).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "admin connection ended");
    }
}
