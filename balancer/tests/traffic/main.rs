//! Who gets a request and who gets none: outliers, weights, cookies, limits, queues. With real
//! backends on loopback, and curl where a browser would be.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests are named as sentences")]

mod balancing;
mod hedging;
mod limits;
mod outliers;
#[path = "../support/mod.rs"]
mod support;

use std::net::SocketAddr;
use std::sync::Arc;

use balancer::front::Front;
use support::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::process::Command;

/// Runs curl; what it printed.
async fn curl(arguments: &[&str]) -> String {
    let curl = Command::new("curl").args(["-sS", "--max-time", "10"]).args(arguments).output().await.unwrap();
    assert!(curl.status.success(), "{}", String::from_utf8_lossy(&curl.stderr));
    String::from_utf8_lossy(&curl.stdout).into_owned()
}

/// The page of metrics.
async fn metrics(front: &Front) -> String {
    let mut stream = TcpStream::connect(front.admin()).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    page
}

/// The value of one series, which must be there.
async fn metric(front: &Front, series: &str) -> f64 {
    let page = metrics(front).await;
    let value = page.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("no {series} in\n{page}")).parse().unwrap()
}

/// A front door over backends that are all ready, with the configuration's own words for them.
async fn open(site: &Site, text: &str, backends: &[SocketAddr]) -> Front {
    let front = site.open(&format!("listen: ['127.0.0.1:0']\n{text}")).await;
    let handles = front.handles();
    let ready = || handles.plan.load().pools().iter().map(|pool| pool.snapshot().ready.len()).sum::<usize>();
    eventually("all backends are ready", || ready() >= backends.len()).await;
    front
}
