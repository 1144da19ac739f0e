//! The agent inside a guest, and (as `/init` of the initial RAM disk) the first stage of its boot.

mod stage1;
mod sys;

use std::process::ExitCode;

fn main() -> ExitCode {
    if std::env::args().next().as_deref() == Some("/init") {
        eprintln!("flurry: cannot boot: {}", stage1::run());
    }
    ExitCode::FAILURE
}
