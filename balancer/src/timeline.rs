//! A running tier as one picture on one time line: load, then what was decided and why, then the
//! backends that came of it, latency, and each fork phase by phase down to its first byte.
//!
//! ```text
//! title
//! load       requests per second (line), failed (bars)
//! backends   ready (area), desired (dashes), clones born (dots)
//! decisions  the newest 64, one mark each, the reason as tooltip
//! latency    p50, p95 and p99, log axis
//! forks      the last ones, a bar each on an axis of milliseconds; how warm the clone is
//! ```
//!
//! Pure: from the documents of the admin listener to SVG text.

use crate::admin::status::{ForkStatus, History, Status};
use crate::picture::{
    Axis, LEFT, Node, Panel, RIGHT, STYLE, WIDTH, area, decision_marks, label, line, path, rect, steps,
    time_step,
};

/// Where the panels start and how high they are, pixels.
const LOAD: (f64, f64) = (118.0, 140.0);
const BACKENDS: (f64, f64) = (306.0, 110.0);
const DECISIONS: (f64, f64) = (422.0, 26.0);
const LATENCY: (f64, f64) = (506.0, 130.0);
const FORKS: f64 = 716.0;
/// Height of a fork's row, and the most of them.
const ROW: f64 = 18.0;
const MOST_FORKS: usize = 24;
/// About how many labels a time axis has.
const TIME_LABELS: f64 = 12.0;
/// The phases of a fork, in their order; each has a class of the style sheet.
const PHASES: [&str; 4] = ["seeded", "running", "joined", "answered"];
/// What the style sheet of all pictures lacks.
const PHASE_STYLE: &str = "
.seeded{fill:#8250df;stroke:#8250df}
.running{fill:#0969da;stroke:#0969da}
.joined{fill:#0a7f8f;stroke:#0a7f8f}
.answered{fill:#2da44e;stroke:#2da44e}
.p99{stroke:#bc4c00;stroke-width:1.2}
";

/// Draws the picture.
pub(crate) fn draw(status: &Status, history: &History) -> String {
    let time = Time::of(status, history);
    let forks = status.engine.as_ref().map_or(&[][..], |engine| &engine.forks);
    let forks = &forks[forks.len().saturating_sub(MOST_FORKS)..];
    let height = FORKS + ROW * forks.len().max(1) as f64 + 46.0;
    let nodes = vec![
        rect("ground", 0.0, 0.0, WIDTH, height),
        header(status),
        load(&time, history),
        backends(&time, history, forks),
        decisions(&time, status),
        latency(&time, history),
        clock(&time),
        anatomy(status, forks),
    ];
    let label = format!("Time line of the tier {}", status.tier.name);
    Node::document(WIDTH, height, &label, &format!("{STYLE}{PHASE_STYLE}"), nodes)
}

/// The time axis that the panels share: seconds since the process started.
struct Time {
    from: f64,
    to: f64,
}

impl Time {
    fn of(status: &Status, history: &History) -> Self {
        let to = history.at_seconds.last().copied().unwrap_or(0.0).max(status.uptime_seconds);
        let from = history.at_seconds.first().copied().unwrap_or(0.0);
        Self { from: from.min(to - 1.0), to }
    }

    fn holds(&self, seconds: f64) -> bool {
        (self.from..=self.to).contains(&seconds)
    }

    /// Seconds to pixels, kept inside the panels.
    fn x(&self, seconds: f64) -> f64 {
        let share = (seconds - self.from) / (self.to - self.from);
        LEFT + share.clamp(0.0, 1.0) * (WIDTH - LEFT - RIGHT)
    }
}

fn header(status: &Status) -> Node {
    let listen = status.tier.listen.join(", ");
    let forked = status.engine.as_ref().map_or_else(
        || "fixed backends".to_owned(),
        |engine| {
            let pause =
                engine.parent_pause_ms.map_or(String::new(), |ms| format!(", parent paused {ms:.0} ms"));
            let fork = engine
                .fork_to_first_response_ms
                .map_or(String::new(), |ms| format!(", fork to first byte {ms:.0} ms"));
            format!("VMs on {}{pause}{fork}, {} pages fetched", engine.accelerator, engine.pages_fetched)
        },
    );
    let subtitle = format!("{listen}; {forked}; flurry {}", status.version);
    Node::group("header")
        .child(label("title", LEFT, 42.0, &format!("Tier {}", status.tier.name)))
        .child(label("subtitle", LEFT, 66.0, &subtitle))
}

/// Requests per second; failures as bars from the bottom.
fn load(time: &Time, history: &History) -> Node {
    let rates = || history.at_seconds.iter().zip(&history.requests_per_second);
    let panel = Panel::new(LOAD, Axis::linear(rates().map(|(_, rate)| *rate).fold(1.0, f64::max), 4.0));
    let curve: Vec<_> = rates().map(|(at, rate)| (time.x(*at), panel.y(*rate))).collect();
    let failed = history.failed_total.windows(2).zip(history.at_seconds.iter().skip(1));
    let failed: Vec<_> = failed
        .filter(|(total, _)| total[1] > total[0])
        .map(|(total, at)| {
            let count = total[1] - total[0];
            // A single failure among thousands must be seen as well.
            let height = (panel.bottom() - panel.y(count as f64)).max(4.0);
            rect("failed", time.x(*at) - 1.0, panel.bottom() - height, 2.0, height)
                .title(&format!("{count} failed at {at:.0} s"))
        })
        .collect();
    let legend: &[(&str, &str)] = &[("served", "served"), ("failed", "failed")];
    let legend = if failed.is_empty() { &legend[..1] } else { legend };
    Node::group("load")
        .child(panel.frame("Load, requests per second", legend, |value| format!("{value}")))
        .child(path("served", &curve))
        .children(failed)
}

/// Backends desired and ready, as steps; a dot where a clone answered first.
fn backends(time: &Time, history: &History, forks: &[ForkStatus]) -> Node {
    let top = history.ready.iter().chain(&history.desired).copied().max().unwrap_or(1);
    let panel = Panel::new(BACKENDS, Axis::count(top));
    let curve = |values: &[u32]| {
        let values: Vec<_> = history.at_seconds.iter().copied().zip(values.iter().copied()).collect();
        steps(&values, time.to).into_iter().map(|(at, n)| (time.x(at), panel.y(n))).collect::<Vec<_>>()
    };
    let (ready, desired) = (curve(&history.ready), curve(&history.desired));
    let born = forks.iter().filter_map(|fork| {
        let (began, took) = fork.began_at_seconds.zip(fork.first_response_ms)?;
        let at = began + took / 1e3;
        let dot = Node::new("circle").class("birth").num("cx", time.x(at)).num("cy", panel.bottom() - 4.0);
        let told = format!("{at:.1} s: clone {}, first response {took:.0} ms after the fork", fork.id);
        time.holds(at).then(|| dot.num("r", 3.0).title(&told))
    });
    let legend = [("desired", "desired"), ("ready", "ready"), ("birth", "clone")];
    Node::group("backends")
        .child(panel.frame("Backends", &legend, |value| format!("{value}")))
        .child(area("ready", &ready, panel.bottom()))
        .child(path("ready-edge", &ready))
        .child(path("desired", &desired))
        .children(born)
}

/// When the scaler decided what, as far back as the time line goes.
fn decisions(time: &Time, status: &Status) -> Node {
    let made = status.decisions.iter().filter(|decision| time.holds(decision.at_seconds));
    decision_marks(
        DECISIONS,
        made.map(|decision| (time.x(decision.at_seconds), decision.at_seconds, decision)),
    )
}

/// Percentiles of latency, on a log axis; a curve is broken where nothing ended.
fn latency(time: &Time, history: &History) -> Node {
    let curves =
        [("p99", &history.p99_seconds), ("p95", &history.p95_seconds), ("p50", &history.p50_seconds)];
    let values = || curves.iter().flat_map(|(_, values)| values.iter().flatten().map(|value| value * 1e3));
    let (low, high) = (values().fold(f64::INFINITY, f64::min), values().fold(0.0, f64::max));
    let axis = if low.is_finite() { Axis::decades(low, high) } else { Axis::decades(1.0, 100.0) };
    let panel = Panel::new(LATENCY, axis);
    let drawn = curves.iter().flat_map(|(class, values)| {
        let points: Vec<_> = history.at_seconds.iter().zip(values.iter()).collect();
        let runs = points.split(|(_, value)| value.is_none()).filter(|run| !run.is_empty());
        let place =
            |(at, value): &(&f64, &Option<f64>)| value.map(|seconds| (time.x(**at), panel.y(seconds * 1e3)));
        runs.map(|run| path(class, &run.iter().filter_map(place).collect::<Vec<_>>())).collect::<Vec<_>>()
    });
    let legend = [("p50", "p50"), ("p95", "p95"), ("p99", "p99")];
    Node::group("latency")
        .child(panel.frame("Latency over ten seconds", &legend, |ms| format!("{ms} ms")))
        .children(drawn)
}

/// Seconds since the process started, below the latency.
fn clock(time: &Time) -> Node {
    let bottom = LATENCY.0 + LATENCY.1;
    let step = time_step(time.to - time.from, TIME_LABELS);
    let first = (time.from / step).ceil() as u64;
    let nodes = (first..).map(|k| k as f64 * step).take_while(|at| *at <= time.to).flat_map(|at| {
        let x = time.x(at);
        [
            line("tick", (x, bottom), (x, bottom + 5.0)),
            label("seconds", x, bottom + 20.0, &format!("{at:.0} s")),
        ]
    });
    Node::group("clock").children(nodes).child(label("axis", LEFT - 18.0, bottom + 20.0, "up for"))
}

/// The last forks, a bar each: what the time from `sf_create_clones` to the first byte was made of.
fn anatomy(status: &Status, forks: &[ForkStatus]) -> Node {
    let height = ROW * forks.len().max(1) as f64;
    let longest =
        forks.iter().map(|fork| fork.first_response_ms.unwrap_or(fork.joined_ms)).fold(1.0, f64::max);
    let axis = Axis::linear(longest, 10.0);
    let x = |ms: f64| LEFT + 60.0 + axis.share(ms) * (WIDTH - LEFT - RIGHT - 200.0);
    let ticks = axis.ticks.iter().flat_map(|tick| {
        [
            line("grid", (x(*tick), FORKS), (x(*tick), FORKS + height)),
            label("seconds", x(*tick), FORKS + height + 16.0, &format!("{tick} ms")),
        ]
    });
    let group = Node::group("forks").child(label("name", LEFT, FORKS - 12.0, "Forks, phase by phase"));
    if forks.is_empty() {
        return group.child(label("note", LEFT + 10.0, FORKS + 12.0, "no clone was born"));
    }
    let legend = PHASES.iter().enumerate().flat_map(|(k, phase)| {
        let left = WIDTH - RIGHT - 360.0 + 90.0 * k as f64;
        [rect(phase, left, FORKS - 21.0, 18.0, 9.0), label("phase", left + 24.0, FORKS - 12.0, phase)]
    });
    let rows = forks.iter().enumerate().map(|(row, fork)| {
        let top = FORKS + ROW * row as f64 + 3.0;
        Node::group("fork")
            .child(label("axis", LEFT + 50.0, top + 10.0, &format!("clone {}", fork.id)))
            .children(phases(fork, top, x))
            .child(label("end", WIDTH - RIGHT - 124.0, top + 10.0, &outcome(status, fork)))
    });
    group.children(ticks).children(legend).children(rows)
}

/// A bar for each phase that came to its end; `x` is where milliseconds are.
fn phases(fork: &ForkStatus, top: f64, x: impl Fn(f64) -> f64) -> Vec<Node> {
    let starts = [0.0, fork.seeded_ms, fork.running_ms, fork.joined_ms];
    let ends = [Some(fork.seeded_ms), Some(fork.running_ms), Some(fork.joined_ms), fork.first_response_ms];
    let bars = PHASES.iter().zip(starts).zip(ends).filter_map(|((phase, start), end)| {
        let end = end?;
        let bar = rect(phase, x(start), top, (x(end) - x(start)).max(0.5), ROW - 6.0);
        Some(bar.title(&format!("{phase} after {end:.1} ms")))
    });
    bars.collect()
}

/// How long a fork took, and how much of its working set its clone has by now.
fn outcome(status: &Status, fork: &ForkStatus) -> String {
    let took = fork.first_response_ms.map_or("no answer".to_owned(), |ms| format!("{ms:.0} ms"));
    let id = format!("clone-{}", fork.id);
    let warm = status.backends.iter().find(|backend| backend.id == id).map(|backend| backend.warm_ratio);
    warm.map_or(took.clone(), |warm| format!("{took}, {:.0} % warm", warm * 100.0))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::status::{BackendStatus, DecisionStatus, EngineStatus};

    fn history(seconds: u32) -> History {
        let each = || 0..seconds;
        History {
            at_seconds: each().map(|k| 100.0 + f64::from(k)).collect(),
            requests_per_second: each().map(f64::from).collect(),
            in_flight: each().map(u64::from).collect(),
            queued: each().map(|_| 0).collect(),
            p50_seconds: each().map(|k| (k % 10 != 5).then_some(0.01)).collect(),
            p95_seconds: each().map(|_| Some(0.02)).collect(),
            p99_seconds: each().map(|_| None).collect(),
            failed_total: each().map(|k| if k > 30 { 2 } else { 0 }).collect(),
            desired: each().map(|k| 1 + k / 20).collect(),
            ready: each().map(|k| 1 + k / 21).collect(),
        }
    }

    fn status() -> Status {
        let fork = |id: u32, answered: Option<f64>| ForkStatus {
            id,
            began_at_seconds: Some(120.0 + f64::from(id)),
            seeded_ms: 15.0,
            running_ms: 16.0,
            joined_ms: 90.0,
            first_response_ms: answered,
        };
        let decision = |at_seconds, action: &str, to| DecisionStatus {
            at_seconds,
            action: action.into(),
            from: 1,
            to,
            reason: "load <9>".into(),
        };
        Status {
            uptime_seconds: 160.0,
            decisions: vec![
                decision(20.0, "grow", 4),
                decision(120.0, "grow", 2),
                decision(150.0, "hold", 1),
            ],
            backends: vec![BackendStatus { id: "clone-2".into(), warm_ratio: 0.5, ..Default::default() }],
            engine: Some(EngineStatus {
                forks: vec![fork(1, None), fork(2, Some(180.0))],
                ..Default::default()
            }),
            ..Status::default()
        }
    }

    #[test]
    fn load_decisions_and_forks_are_on_one_time_line_with_their_reasons() {
        let picture = draw(&status(), &history(60));
        assert!(picture.contains("<title>120.0 s: grow 1 to 2: load &lt;9&gt;</title>"), "{picture}");
        assert!(!picture.contains("20.0 s: grow 1 to 4"), "older than the time line");
        assert!(picture.contains("<title>122.2 s: clone 2, first response 180 ms after the fork</title>"));
        assert!(picture.contains(">180 ms, 50 % warm<") && picture.contains(">no answer<"));
        assert!(picture.contains("<title>2 failed at 131 s</title>"));
        assert_eq!(picture.matches("<path class=\"p50\"").count(), 7, "broken where nothing ended");
        assert!(!picture.contains("<path class=\"p99\""));
    }

    #[test]
    fn a_tier_that_just_began_still_yields_a_whole_picture() {
        for status in [Status::default(), status()] {
            let picture = draw(&status, &History::default());
            assert!(picture.starts_with("<svg ") && picture.ends_with("</svg>\n"));
            assert!(!picture.contains("NaN") && !picture.contains("inf"), "{picture}");
        }
    }

    #[test]
    fn only_the_last_forks_have_a_row() {
        let mut status = status();
        let forks = &mut status.engine.as_mut().unwrap().forks;
        *forks = (1..=40).map(|id| ForkStatus { id, ..forks[0].clone() }).collect();
        let picture = draw(&status, &history(60));
        assert_eq!(picture.matches("<g class=\"fork\">").count(), MOST_FORKS);
        assert!(picture.contains(">clone 40<") && !picture.contains(">clone 16<"));
    }
}
