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
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

pub use client::{FetchError, ask_for_upgrade, fetch_history, fetch_status, send_order};
pub use meter::Meter;
pub use table::table;

use crate::front::Handles;

/// Connections that are served at once; the others wait.
const MAX_CONNECTIONS: usize = 64;
/// The longest time for the head of a request.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);

/// Serves the admin listener until the task is cancelled. Once it is closed, connections end with
/// their next answer.
pub(crate) async fn serve(listener: TcpListener, handles: Handles, mut closed: watch::Receiver<bool>) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { return };
        let accepted = tokio::select! {
            biased;
            () = end_of(&mut closed) => break,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _peer)) => {
                let (handles, closed) = (handles.clone(), closed.clone());
                connections.spawn(async move {
                    serve_one(stream, handles, closed).await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "the admin listener cannot accept for now");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
    drop(listener);
    connections.join_all().await;
}

/// Until the listener is closed, or its owner gone.
async fn end_of(closed: &mut watch::Receiver<bool>) {
    let _ = closed.wait_for(|closed| *closed).await;
}

async fn serve_one(stream: TcpStream, handles: Handles, mut closed: watch::Receiver<bool>) {
    let service = service_fn(move |request| {
        let handles = handles.clone();
        async move { Ok::<_, std::convert::Infallible>(routes::answer(request, handles).await) }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let served = tokio::select! {
        served = &mut connection => served,
        () = end_of(&mut closed) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = served {
        tracing::debug!(%error, "admin connection ended");
    }
}
