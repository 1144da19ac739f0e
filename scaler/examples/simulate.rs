//! Runs a policy and its rivals over a trace and prints what each would have cost.
//!
//!   cargo run --release -p scaler --example simulate -- trace.csv [policy.yaml]
//!
//! The policy file has a section `scaling`. Clones are taken to answer after 200 ms and
//! cold pods after 10 s; a backend serves four requests at once, 20 ms each, and 95 % are
//! to be answered within 100 ms.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use scaler::simulate::{
    Capacity, Rival, SimParams, SimReport, Trace, simulate, simulate_rival, simulate_rival_at,
};
use scaler::{Policy, yaml};

const CLONE_TIME: Duration = Duration::from_millis(200);

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::from(2)
        }
    }
}

fn run() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let trace = arguments.next().ok_or("usage: simulate trace.csv [policy.yaml]")?;
    let trace = Trace::parse_csv(&std::fs::read_to_string(trace)?)?;
    let text = arguments.next().map(std::fs::read_to_string).transpose()?.unwrap_or_default();
    let policy =
        yaml::read(&text, |root| Some(root.section("scaling", |section| Policy::read(section, CLONE_TIME))))?;
    let params = SimParams {
        clone_time: CLONE_TIME,
        cold_start: Duration::from_secs(10),
        capacity: Capacity { slots: 4, service_time: Duration::from_millis(20) },
        objective: Duration::from_millis(100),
        step: Duration::from_millis(250),
        timeline_every: None,
    };
    let started = Instant::now();
    let ours = simulate(&policy, &trace, &params)?;
    let took = started.elapsed();
    println!(
        "{:10} {:>8} {:>8} {:>9} {:>7} {:>7} {:>7} {:>7} {:>9} {:>5}",
        "", "slo s", "hours", "foresight", "under", "over", "grows", "shrinks", "reversals", "peak"
    );
    row(&ours);
    for rival in [Rival::KPA, Rival::HPA, Rival::Static { backends: ours.peak }] {
        row(&simulate_rival(&rival, &policy, &trace, &params)?);
    }
    println!("at the same hours:");
    for rival in [Rival::KPA, Rival::HPA] {
        row(&simulate_rival_at(ours.clone_hours, &rival, &policy, &trace, &params)?);
    }
    println!("simulated {} s in {took:.0?}", ours.seconds);
    Ok(())
}

fn row(report: &SimReport) {
    println!(
        "{:10} {:8.1} {:8.1} {:9.2} {:7.3} {:7.3} {:7} {:7} {:9} {:5}",
        report.name,
        report.slo_violation_seconds,
        report.clone_hours,
        report.clone_hours / report.foresight_hours,
        report.under_share,
        report.over_share,
        report.grows,
        report.shrinks,
        report.reversals,
        report.peak
    );
}
