//! What runs inside a guest: the agent, and (as `/init` of the initial RAM disk) the first stage of the boot.
//!
//! ```text
//! guest-agent [--port FILE]    the agent; without --port it finds its virtio-serial port itself
//! /init                        the first stage
//! ```

mod agent;
mod hooks;
mod identity;
mod netlink;
mod port;
mod record;
mod stage1;
mod sys;
mod system;
mod vitals;

use std::path::PathBuf;
use std::process::ExitCode;

fn main() -> ExitCode {
    let mut args = std::env::args();
    if args.next().as_deref() == Some("/init") {
        eprintln!("flurry: cannot boot: {}", stage1::run());
        return ExitCode::FAILURE;
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
