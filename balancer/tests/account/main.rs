//! Accounts of requests: the access log, traces. With real backends on loopback.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests are named as sentences")]

mod access_log;
#[path = "../support/mod.rs"]
mod support;
mod traces;

use balancer::front::Front;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A page of the admin listener.
async fn admin(front: &Front, path: &str, fields: &str) -> String {
    let mut stream = TcpStream::connect(front.admin()).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{fields}\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    page
}
