//! The status document as a table for people.

use std::fmt::Write as _;

use super::status::{BackendStatus, CloneStatus, EngineStatus, Status};
use crate::pool::DEFAULT_POOL;

/// Decisions that are shown.
const DECISIONS: usize = 5;

/// The document in lines.
pub fn table(status: &Status) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_table(&mut out, status);
    out
}

fn write_table(out: &mut String, status: &Status) -> std::fmt::Result {
    let (tier, load, scaling) = (&status.tier, &status.load, &status.scaling);
    writeln!(out, "tier      {} ({}) on {}", tier.name, tier.state, tier.listen.join(", "))?;
    writeln!(out, "flurry    {}, up {}", status.version, seconds(status.uptime_seconds))?;
    writeln!(
        out,
        "load      {:.1} requests/s, {} in flight, {} queued, p50 {}, p95 {}",
        load.requests_per_second,
        load.in_flight,
        load.queued,
        millis(load.p50_seconds),
        millis(load.p95_seconds)
    )?;
    writeln!(out, "requests  {} in all, {} failed", load.requests_total, load.failed_total)?;
    writeln!(
        out,
        "backends  {} ready of {} desired, {} starting, {} retiring",
        scaling.ready, scaling.desired, scaling.starting, scaling.retiring
    )?;
    if let Some(engine) = &status.engine {
        write_engine(out, engine)?;
    }
    let header = ["backend", "address", "state", "in flight", "requests", "failed"].map(str::to_owned);
    write_rows(out, std::iter::once(header).chain(status.backends.iter().map(backend_row)))?;
    if let Some(engine) = &status.engine {
        let header = ["vm", "ip", "state", "pages present", "private", "fork to answer"].map(str::to_owned);
        let vms = std::iter::once(&engine.parent).chain(&engine.clones).map(vm_row);
        write_rows(out, std::iter::once(header).chain(vms))?;
    }
    let newest = status.decisions.len().saturating_sub(DECISIONS);
    for decision in &status.decisions[newest..] {
        let (at, action) = (seconds(decision.at_seconds), &decision.action);
        writeln!(out, "{at:>9}  {action} {} -> {}: {}", decision.from, decision.to, decision.reason)?;
    }
    Ok(())
}

fn write_engine(out: &mut String, engine: &EngineStatus) -> std::fmt::Result {
    writeln!(
        out,
        "engine    {} ({}), {} shells",
        engine.accelerator, engine.accelerator_reason, engine.shells
    )?;
    let ms = |value: Option<f64>| value.map_or("-".to_owned(), |ms| format!("{ms:.0} ms"));
    writeln!(
        out,
        "forks     {} from fork to answer (median), parent pause {}, boot {}",
        ms(engine.fork_to_first_response_ms),
        ms(engine.parent_pause_ms),
        ms(engine.boot_to_first_response_ms)
    )
}

fn backend_row(backend: &BackendStatus) -> [String; 6] {
    let named = !backend.pool.is_empty() && backend.pool != DEFAULT_POOL;
    let pool = if named { format!("{}/", backend.pool) } else { String::new() };
    [
        pool + &backend.id,
        backend.address.clone(),
        backend.state.clone(),
        backend.in_flight.to_string(),
        backend.requests_total.to_string(),
        backend.failed_total.to_string(),
    ]
}

fn vm_row(vm: &CloneStatus) -> [String; 6] {
    let dash = || "-".to_owned();
    [
        if vm.id == 0 { "parent".to_owned() } else { format!("clone-{}", vm.id) },
        vm.ip.clone(),
        vm.state.clone(),
        format!("{}/{}", vm.pages_present, vm.pages_total),
        vm.pages_private.map_or_else(dash, |pages| pages.to_string()),
        vm.fork_to_first_response_ms.map_or_else(dash, |ms| format!("{ms:.0} ms")),
    ]
}

/// Rows in columns as wide as their widest cell, after an empty line.
fn write_rows<const N: usize>(out: &mut String, rows: impl Iterator<Item = [String; N]>) -> std::fmt::Result {
    let rows: Vec<[String; N]> = rows.collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; N] = std::array::from_fn(width);
    writeln!(out)?;
    for row in &rows {
        let cells: Vec<String> =
            row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
        writeln!(out, "{}", cells.join("  ").trim_end())?;
    }
    Ok(())
}

fn seconds(seconds: f64) -> String {
    format!("{seconds:.1} s")
}

fn millis(seconds: Option<f64>) -> String {
    seconds.map_or("-".to_owned(), |seconds| format!("{:.1} ms", seconds * 1e3))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::status::{DecisionStatus, LoadStatus, ScalingStatus, TierStatus};

    #[test]
    fn a_tier_of_fixed_backends_fits_a_screen() {
        let backend = BackendStatus {
            pool: "api".into(),
            id: "127.0.0.1:9001".into(),
            address: "127.0.0.1:9001".into(),
            state: "ready".into(),
            in_flight: 3,
            requests_total: 1234,
            ..BackendStatus::default()
        };
        let status = Status {
            version: "0.1.0".into(),
            uptime_seconds: 12.34,
            tier: TierStatus { name: "shop".into(), state: "serving".into(), listen: vec!["[::]:80".into()] },
            load: LoadStatus {
                requests_per_second: 99.5,
                p50_seconds: Some(0.0021),
                ..LoadStatus::default()
            },
            scaling: ScalingStatus { desired: 1, ready: 1, ..ScalingStatus::default() },
            backends: vec![backend],
            ..Status::default()
        };
        assert_eq!(
            table(&status),
            "tier      shop (serving) on [::]:80\n\
             flurry    0.1.0, up 12.3 s\n\
             load      99.5 requests/s, 0 in flight, 0 queued, p50 2.1 ms, p95 -\n\
             requests  0 in all, 0 failed\n\
             backends  1 ready of 1 desired, 0 starting, 0 retiring\n\
             \n\
             backend             address         state  in flight  requests  failed\n\
             api/127.0.0.1:9001  127.0.0.1:9001  ready  3          1234      0\n"
        );
    }

    #[test]
    fn vms_and_the_newest_decisions_are_shown() {
        let clone =
            CloneStatus { id: 7, ip: "10.117.0.7".into(), state: "ready".into(), ..Default::default() };
        let decision =
            |to| DecisionStatus { to, action: "grow".into(), reason: "why".into(), ..Default::default() };
        let status = Status {
            engine: Some(EngineStatus {
                accelerator: "tcg".into(),
                clones: vec![clone],
                ..Default::default()
            }),
            decisions: (0..9).map(decision).collect(),
            ..Status::default()
        };
        let shown = table(&status);
        assert!(shown.contains("clone-7  10.117.0.7  ready  0/0"), "{shown}");
        assert!(shown.contains("grow 0 -> 8: why") && !shown.contains("-> 3:"), "{shown}");
    }
}
