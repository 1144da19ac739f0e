//! A guest of the driver made of plain memory, for tests.
//!
//! The driver starts it; see `hypervisor::plain`.

fn main() -> std::process::ExitCode {
    snowflock_engine::hypervisor::plain::run_guest()
}
