//! The outcome of a simulation as a table for people.

use std::fmt::Write as _;

use scaler::simulate::SimReport;
use scaler::yaml::show_duration;

use super::Outcome;

const HEADER: [&str; 11] = [
    "",
    "violated",
    "of the time",
    "clone-hours",
    "x foresight",
    "under",
    "over",
    "changes",
    "reversals",
    "most",
    "worst p95",
];

/// The outcome in lines, with what each column means.
pub fn table(outcome: &Outcome) -> String {
    let mut out = String::new();
    // Writing to a string does not fail.
    let _ = write_table(&mut out, outcome);
    out
}

fn write_table(out: &mut String, outcome: &Outcome) -> std::fmt::Result {
    let (assumed, ours) = (&outcome.assumed, &outcome.reports[0]);
    let each = assumed.clone_time_each;
    let each = if each.is_zero() {
        String::new()
    } else {
        format!(" (each further one {} later)", show_duration(each))
    };
    writeln!(
        out,
        "{}: {}; a backend serves {} at once, {} each; clones answer after {}{each}, cold starts after {}; \
         95 % of requests within {}",
        outcome.trace,
        clock(ours.seconds),
        assumed.capacity,
        show_duration(assumed.service_time),
        show_duration(assumed.clone_time),
        show_duration(assumed.cold_start),
        show_duration(assumed.objective),
    )?;
    if !outcome.left_out.is_empty() {
        writeln!(out, "left out, for nothing simulates it: {}", outcome.left_out.join(", "))?;
    }
    let mut rows = vec![HEADER.map(str::to_owned)];
    rows.extend(outcome.reports.iter().map(|report| row(&report.name, report)));
    let same = outcome.at_the_same_hours.iter();
    rows.extend(same.map(|report| row(&format!("{}, same hours", report.name), report)));
    write_rows(out, &rows)?;
    writeln!(
        out,
        "\nviolated: time in which more than 5 % of requests missed the objective. under, over: backends \
         missing or too many,\nrelative to need, mean over time. x foresight: clone-hours over those of \
         the fewest that meet the objective.\nreversals: changes of direction within five minutes. \
         Simulated in {} ms.",
        outcome.took.as_millis()
    )
}

fn row(name: &str, report: &SimReport) -> [String; 11] {
    let share = |share: f64| format!("{:.1}%", share * 100.0);
    [
        name.to_owned(),
        clock(report.slo_violation_seconds),
        share(report.slo_violation_seconds / report.seconds),
        format!("{:.2}", report.clone_hours),
        format!("{:.2}", report.clone_hours / report.foresight_hours),
        share(report.under_share),
        share(report.over_share),
        (report.grows + report.shrinks).to_string(),
        report.reversals.to_string(),
        report.peak.to_string(),
        latency(report.worst_latency_seconds),
    ]
}

fn write_rows(out: &mut String, rows: &[[String; 11]]) -> std::fmt::Result {
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 11] = std::array::from_fn(width);
    for row in rows {
        write!(out, "\n{:<width$}", row[0], width = widths[0])?;
        for (cell, width) in row.iter().zip(widths).skip(1) {
            write!(out, "  {cell:>width$}")?;
        }
    }
    writeln!(out)
}

/// Seconds to people: `12.5s`, `3m20s`, `24h`.
fn clock(seconds: f64) -> String {
    if seconds < 60.0 {
        return format!("{}s", (seconds * 10.0).round() / 10.0);
    }
    show_duration(std::time::Duration::from_secs(seconds.round() as u64))
}

/// A latency; without end where the load exceeded every backend for good.
fn latency(seconds: f64) -> String {
    match seconds {
        s if !s.is_finite() => "endless".to_owned(),
        s if s < 1.0 => format!("{:.0} ms", s * 1e3),
        s => format!("{s:.1} s"),
    }
}
