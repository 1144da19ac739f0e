//! What runs inside a guest: the agent, and (as `/init` of the initial RAM disk) the first stage of the boot.
//!
//! ```text
//! guest-agent [--port FILE]    the agent; without --port it finds its virtio-serial port itself
//! /init                        the first stage
//! sf ticket|clone|...          SnowFlock's calls for the shell
//! ```

mod agent;
mod api;
mod hooks;
mod identity;
mod netlink;
mod port;
mod record;
mod sf;
mod stage1;
mod sys;
mod system;
mod vitals;

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args();
    let name = args.next().unwrap_or_default();
    if name == "/init" {
        eprintln!("flurry: cannot boot: {}", stage1::run());
        return ExitCode::FAILURE;
    }
    if name.rsplit('/').next() == Some("sf") {
        return sf::main(&args.collect::<Vec<_>>());
    }
    let port = match (args.next().as_deref(), args.next(), args.next()) {
        (None, ..) => None,
        (Some("--port"), Some(path), None) => Some(PathBuf::from(path)),
        _ => {
            eprintln!("usage: guest-agent [--port FILE]");
            return ExitCode::from(2);
        }
    };
    eprintln!("flurry: agent stops: {}", agent::run(port.as_deref()));
    ExitCode::FAILURE
}
