//! Every protocol on either side, with real peers: curl, h2load, a WebSocket client, a
//! client shaped like those of gRPC.

#![allow(missing_docs, clippy::unwrap_used, reason = "tests are named as sentences")]

mod connect;
mod grpc;
mod http2;
mod sockets;
#[path = "../support/mod.rs"]
mod support;
mod tls;
mod upstream_http2;
mod websocket;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use tokio::process::Command;

/// Answers with what the backend saw.
async fn echo(request: Request<Incoming>) -> Response<Full<Bytes>> {
    let mut seen = format!("{} {}\n", request.method(), request.uri());
    for (name, value) in request.headers() {
        seen += &format!("{name}: {}\n", value.to_str().unwrap());
    }
    Response::new(Full::new(seen.into()))
}

/// Runs curl; what it printed, or its exit code.
async fn curl(arguments: &[&str]) -> Result<String, i32> {
    let output =
        Command::new("curl").args(["-sS", "--max-time", "10"]).args(arguments).output().await.unwrap();
    match output.status.success() {
        true => Ok(String::from_utf8_lossy(&output.stdout).into_owned()),
        false => Err(output.status.code().unwrap_or(-1)),
    }
}
