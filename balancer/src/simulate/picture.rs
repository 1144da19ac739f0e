//! A simulation as one picture: load, backends of each contender, latency.

use scaler::simulate::{Moment, SimReport};
use scaler::yaml::show_duration;

use super::Outcome;
use crate::picture::{
    Axis, LEFT, Node, Panel, RIGHT, STYLE, WIDTH, area, label, line, path, rect, steps, time_step,
};

const HEIGHT: f64 = 760.0;
/// Where the panels start and how high they are.
const LOAD: (f64, f64) = (110.0, 130.0);
const BACKENDS: (f64, f64) = (300.0, 180.0);
const LATENCY: (f64, f64) = (540.0, 150.0);
/// About how many labels a time axis has.
const TIME_LABELS: f64 = 12.0;
/// Latencies beyond this are drawn at it, milliseconds: a backlog without end has no height.
const HIGHEST_MS: f64 = 100_000.0;
/// Classes of the lines, one for each contender.
const LINES: [&str; 4] = ["ours", "second", "third", "fourth"];
/// Their colours, for light and dark readers.
const COLOURS: &str = "
.ours{stroke:#0969da;stroke-width:1.8}
.second{stroke:#bf3989;stroke-width:1.2}
.third{stroke:#8250df;stroke-width:1.2}
.fourth{stroke:#8c959f;stroke-width:1.2}
@media (prefers-color-scheme:dark){
.ours{stroke:#4493f8}
.second{stroke:#f778ba}
.third{stroke:#ab7df8}
.fourth{stroke:#6e7681}
}
";

/// Draws the outcome.
pub fn draw(outcome: &Outcome) -> String {
    let span = outcome.reports[0].seconds.max(1.0);
    let start = outcome.reports[0].timeline.first().map_or(0.0, |moment| moment.at.as_secs_f64());
    let time = Time { start, span };
    let what = format!("Simulation of a scaling policy over {}", outcome.trace);
    let nodes = vec![
        rect("ground", 0.0, 0.0, WIDTH, HEIGHT),
        header(outcome),
        load(&time, &outcome.reports[0]),
        backends(&time, &outcome.reports),
        latency(&time, outcome),
        clock(&time),
    ];
    Node::document(WIDTH, HEIGHT, &what, &format!("{STYLE}{COLOURS}"), nodes)
}

struct Time {
    start: f64,
    span: f64,
}

impl Time {
    fn x(&self, seconds: f64) -> f64 {
        LEFT + (seconds / self.span).clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }

    fn of(&self, moment: &Moment) -> f64 {
        moment.at.as_secs_f64() - self.start
    }
}

fn header(outcome: &Outcome) -> Node {
    let assumed = &outcome.assumed;
    let subtitle = format!(
        "{}; clones answer after {}, cold starts after {}; a backend serves {} at once, {} each",
        outcome.trace,
        show_duration(assumed.clone_time),
        show_duration(assumed.cold_start),
        assumed.capacity,
        show_duration(assumed.service_time)
    );
    Node::group("header")
        .child(label("title", LEFT, 42.0, "A scaling policy over a recorded load, simulated"))
        .child(label("subtitle", LEFT, 66.0, &subtitle))
}

fn load(time: &Time, report: &SimReport) -> Node {
    let top = report.timeline.iter().map(|moment| moment.requests_per_second).fold(1.0, f64::max);
    let panel = Panel::new(LOAD, Axis::linear(top, 4.0));
    let points: Vec<_> = report
        .timeline
        .iter()
        .map(|moment| (time.x(time.of(moment)), panel.y(moment.requests_per_second)))
        .collect();
    Node::group("load")
        .child(
            panel.frame("Load, requests per second", &[("offered", "offered")], |value| format!("{value}")),
        )
        .child(area("offered", &points, panel.bottom()))
}

fn backends(time: &Time, reports: &[SimReport]) -> Node {
    let most = reports.iter().map(|report| report.peak).max().unwrap_or(1);
    let panel = Panel::new(BACKENDS, Axis::count(most));
    let curve = |report: &SimReport, value: fn(&Moment) -> u32| {
        let values: Vec<_> = report.timeline.iter().map(|moment| (time.of(moment), value(moment))).collect();
        let corners = steps(&values, time.span).into_iter();
        corners.map(|(at, n)| (time.x(at), panel.y(n))).collect::<Vec<_>>()
    };
    let needed = curve(&reports[0], |moment| moment.needed);
    let ready = reports.iter().zip(LINES);
    let ready = ready.map(|(report, class)| path(class, &curve(report, |moment| moment.ready)));
    let mut legend = vec![("ready", "needed")];
    legend.extend(names(reports));
    Node::group("backends")
        .child(panel.frame("Backends that serve", &legend, |value| format!("{value}")))
        .child(area("ready", &needed, panel.bottom()))
        .children(ready)
}

fn latency(time: &Time, outcome: &Outcome) -> Node {
    let ms = |moment: &Moment| (moment.latency_seconds * 1e3).min(HIGHEST_MS);
    let all = || outcome.reports.iter().flat_map(|report| &report.timeline).map(ms);
    let panel = Panel::new(LATENCY, Axis::decades(all().fold(f64::MAX, f64::min), all().fold(1.0, f64::max)));
    let curves = outcome.reports.iter().zip(LINES).map(|(report, class)| {
        let points: Vec<_> =
            report.timeline.iter().map(|moment| (time.x(time.of(moment)), panel.y(ms(moment)))).collect();
        path(class, &points)
    });
    let objective = panel.y(outcome.assumed.objective.as_secs_f64() * 1e3);
    let mut legend = names(&outcome.reports);
    legend.push(("desired", "objective"));
    Node::group("latency")
        .child(panel.frame("Latency, 95th percentile, ms", &legend, |value| format!("{value}")))
        .children(curves)
        .child(line("desired", (LEFT, objective), (WIDTH - RIGHT, objective)))
}

/// Each contender with the class of its line.
fn names(reports: &[SimReport]) -> Vec<(&'static str, &str)> {
    LINES.into_iter().zip(reports).map(|(class, report)| (class, report.name.as_str())).collect()
}

fn clock(time: &Time) -> Node {
    let bottom = LATENCY.0 + LATENCY.1;
    let step = time_step(time.span, TIME_LABELS);
    let marks = (0..=(time.span / step).floor() as u32).flat_map(|k| {
        let seconds = f64::from(k) * step;
        let x = time.x(seconds);
        let text = if time.span >= 7200.0 {
            format!("{:02}:{:02}", seconds as u64 / 3600, seconds as u64 / 60 % 60)
        } else {
            format!("{seconds} s")
        };
        [line("tick", (x, bottom), (x, bottom + 5.0)), label("seconds", x, bottom + 20.0, &text)]
    });
    Node::group("clock").children(marks)
}
