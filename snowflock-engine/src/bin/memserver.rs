//! memserver: keeps the frozen memory of a parent while the parent goes on.
//!
//! A process of its own, so that its end takes nothing with it; the engine
//! starts it and talks to it over descriptor 3.

fn main() -> std::process::ExitCode {
    snowflock_engine::memory::run_process("memserver")
}
