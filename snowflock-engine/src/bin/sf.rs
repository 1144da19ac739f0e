//! `sf`: SnowFlock's calls from a shell.

fn main() -> std::process::ExitCode {
    snowflock_engine::hosts::cli::main()
}
