//! The panels of the picture, each from what was recorded to one group.

use super::super::player::Played;
use super::super::recorder::Second;
use super::super::summary::Summary;
use super::super::view::duration;
use super::super::watch::{Birth, Mark};
use super::{BACKENDS, BIRTHS, DECISIONS, LATENCY, LOAD, Time};
use crate::picture::{
    Axis, LABEL_HEIGHT, LEFT, Node, Panel, Room, area, decision_marks, label, line, path, rect, steps,
};

/// Seconds are put together so that a curve has at most this many points.
const MAX_POINTS: usize = 300;
/// Width that a label needs to be readable, pixels.
const LABEL_WIDTH: f64 = 44.0;

/// Some seconds of a replay put together.
struct Bin {
    /// Middle of the bin, seconds.
    at: f64,
    /// Width, seconds.
    width: f64,
    offered: f64,
    served: f64,
    failed: u32,
    p50_ms: Option<f64>,
    p95_ms: Option<f64>,
}

fn bins(played: &Played) -> Vec<Bin> {
    let seconds = whole_seconds(played);
    let per_bin = seconds.len().div_ceil(MAX_POINTS).max(1);
    let bin = |(k, chunk): (usize, &[Second])| {
        let (from, width) = (k * per_bin, chunk.len() as f64);
        let latencies = played.recorder.latencies_between(from, from + chunk.len());
        Bin {
            at: from as f64 + width / 2.0,
            width,
            offered: chunk.iter().map(|s| f64::from(s.offered)).sum::<f64>() / width,
            served: chunk.iter().map(|s| f64::from(s.served)).sum::<f64>() / width,
            failed: chunk.iter().map(|s| s.failed).sum(),
            p50_ms: latencies.quantile_ms(0.50),
            p95_ms: latencies.quantile_ms(0.95),
        }
    };
    seconds.chunks(per_bin).enumerate().map(bin).collect()
}

/// Without a last second that was cut short: its rate would look like a fall.
/// One with a failure stays, for no failure may go unseen.
fn whole_seconds(played: &Played) -> &[Second] {
    let seconds = &played.recorder.seconds;
    let whole = usize::try_from(played.elapsed.as_secs()).unwrap_or(usize::MAX).min(seconds.len());
    let (kept, cut) = seconds.split_at(whole);
    if kept.is_empty() || cut.iter().any(|second| second.failed > 0) { seconds } else { kept }
}

/// Offered and served requests per second; failures as bars from the bottom.
pub(super) fn load(time: &Time, played: &Played) -> Node {
    let bins = bins(played);
    let top = bins.iter().map(|bin| bin.offered.max(bin.served)).fold(1.0, f64::max);
    let panel = Panel::new(LOAD, Axis::linear(top, 4.0));
    let curve = |value: fn(&Bin) -> f64| {
        bins.iter().map(|bin| (time.x(bin.at), panel.y(value(bin)))).collect::<Vec<_>>()
    };
    let failures = bins.iter().filter(|bin| bin.failed > 0).map(|bin| {
        let rate = f64::from(bin.failed) / bin.width;
        let (x, width) = (time.x(bin.at - bin.width / 2.0), time.x(bin.width) - time.x(0.0));
        // A single failure among thousands must be seen as well.
        let height = (panel.bottom() - panel.y(rate)).max(4.0);
        rect("failed", x, panel.bottom() - height, width.max(2.0), height)
            .title(&format!("{} failed at {:.0} s", bin.failed, bin.at))
    });
    let legend: &[(&str, &str)] = &[("offered", "offered"), ("served", "served"), ("failed", "failed")];
    let legend = if played.recorder.failed() > 0 { legend } else { &legend[..2] };
    Node::group("load")
        .child(panel.frame("Load, requests per second", legend, |value| format!("{value}")))
        .child(area("offered", &curve(|bin| bin.offered), panel.bottom()))
        .child(path("served", &curve(|bin| bin.served)))
        .children(failures)
}

/// Backends desired and ready, as steps.
pub(super) fn backends(time: &Time, played: &Played) -> Node {
    let samples = &played.watch.samples;
    let top = samples.iter().map(|sample| sample.ready.max(sample.desired)).max().unwrap_or(1);
    let panel = Panel::new(BACKENDS, Axis::count(top));
    let of = |value: fn(&super::super::watch::Sample) -> u32| {
        let values: Vec<(f64, u32)> = samples.iter().map(|sample| (sample.at, value(sample))).collect();
        steps(&values, time.span).into_iter().map(|(at, n)| (time.x(at), panel.y(n))).collect::<Vec<_>>()
    };
    let (ready, desired) = (of(|sample| sample.ready), of(|sample| sample.desired));
    let legend = [("desired", "desired"), ("ready", "ready"), ("grow", "grow"), ("shrink", "shrink")];
    Node::group("backends")
        .child(panel.frame("Backends", &legend, |value| format!("{value}")))
        .child(area("ready", &ready, panel.bottom()))
        .child(path("ready-edge", &ready))
        .child(path("desired", &desired))
}

/// When the scaler decided what.
pub(super) fn decisions(time: &Time, played: &Played) -> Node {
    let made = played.watch.decisions.iter().map(|Mark { at, decision }| (time.x(*at), *at, decision));
    decision_marks(DECISIONS, made)
}

/// One mark per clone: when it was born, and how long it took to answer.
pub(super) fn births(time: &Time, played: &Played, summary: &Summary) -> Node {
    let births = &played.watch.births;
    let top = births.iter().filter_map(|birth| birth.first_response_ms).fold(0.0, f64::max);
    let panel = Panel::new(BIRTHS, Axis::linear(if top > 0.0 { top * 1.15 } else { 100.0 }, 3.0));
    let point = |birth: &Birth| (time.x(birth.at), panel.y(birth.first_response_ms.unwrap_or(0.0)));
    let mut taken = Room::default();
    births.iter().map(point).for_each(|(x, y)| taken.occupy(x, y + 4.0, 8.0, 8.0));
    let marks: Vec<Node> =
        births.iter().flat_map(|birth| birth_mark(point(birth), panel.bottom(), birth, &mut taken)).collect();
    Node::group("births")
        .child(panel.frame("Clones born, fork to first response", &[("birth", "clone")], duration_label))
        .children(birth_note(played, summary, &panel))
        .children(marks)
}

/// What the panel says in words: the comparison with a boot, or why it is empty.
fn birth_note(played: &Played, summary: &Summary, panel: &Panel) -> Option<Node> {
    let inside = |words| Some(label("note", LEFT + 10.0, panel.top + panel.height / 2.0, words));
    match (&played.watch.engine, played.watch.births.len()) {
        (None, _) => return inside("fixed backends: no clones"),
        (Some(_), 0) => return inside("no clone was born"),
        _ => {}
    }
    let (boot, fork) = summary.boot_to_first_response_ms.zip(summary.fork_to_first_response_ms)?;
    let words = format!(
        "median {}; a boot takes {}, {:.0} times as long",
        duration(fork),
        duration(boot),
        boot / fork
    );
    Some(label("note", LEFT + 270.0, panel.top - 12.0, &words))
}

fn birth_mark((x, y): (f64, f64), bottom: f64, birth: &Birth, taken: &mut Room) -> Vec<Node> {
    let measured = birth.first_response_ms;
    let told =
        measured.map_or("no response seen".to_owned(), |ms| format!("first response after {}", duration(ms)));
    let dot = Node::new("circle").class("birth").num("cx", x).num("cy", y).num("r", 4.0);
    let dot = dot.title(&format!("{:.1} s: clone {}, {told}", birth.at, birth.id));
    let mut nodes = vec![line("stem", (x, bottom), (x, y)), dot];
    if let Some(ms) = measured.filter(|_| taken.take(x, y - 9.0, LABEL_WIDTH, LABEL_HEIGHT)) {
        nodes.push(label("ms", x, y - 9.0, &duration(ms)));
    }
    nodes
}

/// Median and 95th percentile of latency, on a log axis.
pub(super) fn latency(time: &Time, played: &Played) -> Node {
    let bins = bins(played);
    let values = || bins.iter().flat_map(|bin| [bin.p50_ms, bin.p95_ms]).flatten();
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    let axis = if low.is_finite() { Axis::decades(low, high) } else { Axis::decades(1.0, 100.0) };
    let panel = Panel::new(LATENCY, axis);
    let curve = |class: &str, value: fn(&Bin) -> Option<f64>| {
        let runs = bins.split(|bin| value(bin).is_none()).filter(|run| !run.is_empty());
        let points = runs.map(|run| {
            let points = run.iter().filter_map(|bin| value(bin).map(|ms| (time.x(bin.at), panel.y(ms))));
            path(class, &points.collect::<Vec<_>>())
        });
        points.collect::<Vec<_>>()
    };
    Node::group("latency")
        .child(panel.frame(
            "Latency, from when a request was due",
            &[("p50", "p50"), ("p95", "p95")],
            duration_label,
        ))
        .children(curve("p95", |bin| bin.p95_ms))
        .children(curve("p50", |bin| bin.p50_ms))
}

/// Round values of an axis.
fn duration_label(ms: f64) -> String {
    if ms >= 1_000.0 { format!("{} s", ms / 1_000.0) } else { format!("{ms} ms") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::example;

    #[test]
    fn steps_keep_corners_only_and_hold_the_last_value() {
        let values = [(0.0, 1), (0.5, 1), (1.0, 3), (1.5, 3), (2.0, 2)];
        assert_eq!(
            steps(&values, 5.0),
            [(0.0, 1.0), (1.0, 1.0), (1.0, 3.0), (2.0, 3.0), (2.0, 2.0), (5.0, 2.0)]
        );
        assert_eq!(steps(&[], 5.0), []);
    }

    #[test]
    fn long_replays_are_drawn_with_a_bounded_number_of_points() {
        let mut played = example::played(95);
        let total: f64 = bins(&played).iter().map(|bin| bin.offered * bin.width).sum();
        assert_eq!(total, played.recorder.offered as f64);
        played.recorder.seconds.resize_with(10_000, Default::default);
        played.elapsed = std::time::Duration::from_secs(10_000);
        let bins = bins(&played);
        assert!(bins.len() <= MAX_POINTS, "{}", bins.len());
        let total_of_fewer: f64 = bins.iter().map(|bin| bin.offered * bin.width).sum();
        assert!((total - total_of_fewer).abs() < 1e-6);
    }

    #[test]
    fn a_second_cut_short_is_left_out_unless_something_failed_in_it() {
        let mut played = example::played(40);
        played.elapsed = std::time::Duration::from_millis(39_300);
        assert_eq!(bins(&played).len(), 39);
        played.recorder.seconds[39].failed = 1;
        assert_eq!(bins(&played).len(), played.recorder.seconds.len());
    }
}
