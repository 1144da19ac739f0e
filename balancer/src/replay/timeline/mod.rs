//! `timeline.svg`: a replay as one picture on one time line.
//!
//! ```text
//! title, what was played
//! key figures
//! load       offered (area), served (line), failed (bars)
//! backends   ready (area), desired (dashes)
//! decisions  one mark each, the reason as tooltip
//! births     one mark each, its height the time to the first response
//! latency    p50 and p95, log axis
//! ```
//!
//! Pure: from what was recorded to text. Colours follow the reader's light or
//! dark scheme; nothing is loaded from elsewhere.

mod panels;

use super::player::Played;
use super::schedule::Plan;
use super::summary::Summary;
use super::trace::TraceTime;
use super::view::duration;
use crate::picture::{LEFT, Node, RIGHT, STYLE, WIDTH, label, line, rect, time_step};

/// Height of the picture, pixels.
const HEIGHT: f64 = 900.0;
/// Where the panels start and how high they are.
const LOAD: (f64, f64) = (178.0, 150.0);
const BACKENDS: (f64, f64) = (392.0, 110.0);
const DECISIONS: (f64, f64) = (508.0, 26.0);
const BIRTHS: (f64, f64) = (586.0, 90.0);
const LATENCY: (f64, f64) = (726.0, 130.0);
/// About how many labels a time axis has.
const TIME_LABELS: f64 = 12.0;

/// Draws the picture of a replay.
pub fn draw(plan: &Plan, played: &Played, summary: &Summary) -> String {
    let time = Time::of(played);
    let mut nodes = vec![rect("ground", 0.0, 0.0, WIDTH, HEIGHT)];
    nodes.push(header(plan, summary));
    nodes.push(figures(summary));
    nodes.push(settling(&time));
    nodes.push(panels::load(&time, played));
    nodes.push(trace_time(&time, plan));
    nodes.push(panels::backends(&time, played));
    nodes.push(panels::decisions(&time, played));
    nodes.push(panels::births(&time, played, summary));
    nodes.push(panels::latency(&time, played));
    nodes.push(clock(&time));
    let label = format!("Time line of a load replay: {}", played_what(plan, summary));
    Node::document(WIDTH, HEIGHT, &label, STYLE, nodes)
}

/// The time axis that all panels share.
struct Time {
    /// Length of the picture, seconds.
    span: f64,
    /// When the load ended, seconds.
    load_end: f64,
}

impl Time {
    fn of(played: &Played) -> Self {
        let span = played.elapsed.as_secs_f64().max(1.0);
        Self { span, load_end: played.load_ended.map_or(span, |ended| ended.as_secs_f64()) }
    }

    /// Seconds to pixels, kept inside the panels.
    fn x(&self, seconds: f64) -> f64 {
        LEFT + (seconds / self.span).clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }
}

fn header(plan: &Plan, summary: &Summary) -> Node {
    let title = match summary.accelerator.as_deref() {
        Some("kvm") => "An elastic tier under load: VMs forked on KVM".to_owned(),
        Some("tcg") => {
            "An elastic tier under load: VMs forked on TCG (no hardware virtualisation)".to_owned()
        }
        Some(other) => format!("An elastic tier under load: VMs forked on {other}"),
        None => "A tier of fixed backends under load".to_owned(),
    };
    Node::group("header").child(label("title", LEFT, 42.0, &title)).child(label(
        "subtitle",
        LEFT,
        66.0,
        &played_what(plan, summary),
    ))
}

fn played_what(plan: &Plan, summary: &Summary) -> String {
    let trace = &summary.trace;
    format!(
        "{} {} to {} in {:.0} s, peak {} req/s, {} arrivals, seed {}; flurry {}{}",
        trace.name,
        trace.from,
        trace.to,
        plan.duration.as_secs_f64(),
        trace.peak,
        trace.arrivals,
        trace.seed,
        summary.flurry_version,
        if summary.interrupted { "; interrupted" } else { "" },
    )
}

/// The figures that a reader looks for first.
fn figures(summary: &Summary) -> Node {
    let ms = |value: Option<f64>| value.map_or("-".to_owned(), duration);
    let count = |value: Option<u32>| value.map_or("-".to_owned(), |count| count.to_string());
    let figures = [
        (thousands(summary.requests), "requests", ""),
        (summary.failed.to_string(), "failed", if summary.failed > 0 { "bad" } else { "" }),
        (ms(summary.p95_ms), "latency p95", ""),
        (count(summary.clones_max), "clones at most", ""),
        (ms(summary.fork_to_first_response_ms), "fork to first response", ""),
        (ms(summary.boot_to_first_response_ms), "boot to first response", ""),
        (ms(summary.parent_pause_ms), "pause of the parent", ""),
    ];
    let step = (WIDTH - LEFT - RIGHT) / figures.len() as f64;
    let nodes = figures.iter().enumerate().flat_map(|(i, (value, name, class))| {
        let x = LEFT + i as f64 * step;
        [label(&format!("figure {class}"), x, 106.0, value), label("under", x, 124.0, name)]
    });
    Node::group("figures").children(nodes)
}

/// The time after the load, shaded across all panels.
fn settling(time: &Time) -> Node {
    let (from, to) = (time.x(time.load_end), time.x(time.span));
    let group = Node::group("settling");
    if to - from < 2.0 {
        return group;
    }
    let bottom = LATENCY.0 + LATENCY.1;
    let group = group.child(rect("after", from, LOAD.0, to - from, bottom - LOAD.0));
    if to - from > 70.0 { group.child(label("note", from + 8.0, LOAD.0 + 16.0, "load over")) } else { group }
}

/// The trace's own time, along the load.
fn trace_time(time: &Time, plan: &Plan) -> Node {
    let bottom = LOAD.0 + LOAD.1;
    let (from, to) = (plan.curve.from.seconds(), plan.curve.to.seconds());
    let step = time_step(f64::from(to - from), TIME_LABELS) as u32;
    let first = from.div_ceil(step) * step;
    let nodes = (first..=to).step_by(step as usize).flat_map(|trace| {
        let at = f64::from(trace - from) / f64::from(to - from) * plan.duration.as_secs_f64();
        let x = time.x(at);
        let text = TraceTime::from_seconds(trace).to_string();
        let marks = [line("tick", (x, bottom), (x, bottom + 5.0)), label("trace", x, bottom + 18.0, &text)];
        marks.into_iter().filter(move |_| at <= time.span)
    });
    Node::group("trace-time").children(nodes).child(label("axis", LEFT - 18.0, bottom + 18.0, "trace"))
}

/// Seconds of the replay, along the bottom.
fn clock(time: &Time) -> Node {
    let bottom = LATENCY.0 + LATENCY.1;
    let step = time_step(time.span, TIME_LABELS);
    let count = (time.span / step).floor() as u32;
    let nodes = (0..=count).flat_map(|k| {
        let seconds = f64::from(k) * step;
        let x = time.x(seconds);
        [
            line("tick", (x, bottom), (x, bottom + 5.0)),
            label("seconds", x, bottom + 20.0, &format!("{seconds:.0} s")),
        ]
    });
    Node::group("clock").children(nodes).child(label("axis", LEFT - 18.0, bottom + 20.0, "replay"))
}

fn thousands(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::example;
    use crate::replay::summary::summarize;

    fn picture(played: &Played) -> String {
        let plan = example::plan();
        draw(&plan, played, &summarize("wc98-0630.csv", &plan, played))
    }

    fn count(picture: &str, what: &str) -> usize {
        picture.matches(what).count()
    }

    #[test]
    fn the_picture_of_a_run_stays_as_it_was_judged_good() {
        insta::assert_binary_snapshot!("timeline.svg", picture(&example::played(95)).into_bytes());
    }

    #[test]
    fn every_birth_and_every_decision_has_a_mark_and_a_reason_to_read() {
        let played = example::played(95);
        let picture = picture(&played);
        assert_eq!(count(&picture, " s: clone "), played.watch.births.len());
        for action in ["grow", "shrink", "hold"] {
            let made = played.watch.decisions.iter().filter(|mark| mark.decision.action == action).count();
            assert!(made > 0);
            assert_eq!(count(&picture, &format!(" s: {action} ")), made, "{action}");
        }
        assert!(picture.contains("<title>6.0 s: grow 1 to 2: "), "{picture}");
        assert!(picture.contains("VMs forked on TCG (no hardware virtualisation)"));
    }

    #[test]
    fn a_replay_that_recorded_nothing_still_yields_a_whole_picture() {
        let picture = picture(&example::played(0));
        assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
        assert!(!picture.contains("NaN") && !picture.contains("inf"), "{picture}");
    }

    #[test]
    fn every_open_element_is_closed() {
        let picture = picture(&example::played(95));
        for tag in ["svg", "g", "text", "title", "path", "style"] {
            let opened = count(&picture, &format!("<{tag} ")) + count(&picture, &format!("<{tag}>"));
            let own = picture
                .lines()
                .filter(|line| line.starts_with(&format!("<{tag} ")) && line.ends_with("/>"))
                .count();
            assert_eq!(opened - own, count(&picture, &format!("</{tag}>")), "{tag}");
        }
    }

    #[test]
    fn large_counts_are_grouped() {
        assert_eq!(
            [7, 999, 1_000, 14_210, 1_234_567].map(thousands),
            ["7", "999", "1,000", "14,210", "1,234,567"]
        );
    }
}
