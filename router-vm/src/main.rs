//! The program of the router VM: process 1 of a kernel with nothing else.

fn main() -> std::process::ExitCode {
    if std::process::id() != 1 {
        eprintln!("flurry-router is process 1 of a router VM and does nothing elsewhere");
        return std::process::ExitCode::FAILURE;
    }
    eprintln!("flurry-router: {}", router_vm::inside::run());
    eprintln!("flurry-router: cannot cut the power: {}", router_vm::inside::give_up());
    std::process::ExitCode::FAILURE
}
