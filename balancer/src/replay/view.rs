//! The live view: what a replay shows while it runs.
//!
//! Pure functions from what was recorded to lines of text; only [`Screen`]
//! writes, and only it knows whether it writes to a terminal.

use std::io::{IsTerminal, Write};
use std::time::Duration;

use super::player::{Phase, Played};
use super::schedule::Plan;
use super::trace::TraceTime;

/// Seconds over which live latencies are taken.
const LATENCY_WINDOW: usize = 10;
/// A plain line (no terminal) every so many ticks of a second.
const PLAIN_EVERY: u32 = 2;
/// Fork times shown.
const FORKS_SHOWN: usize = 6;
/// Widths between which the view adapts, characters.
const MIN_WIDTH: usize = 40;
const MAX_WIDTH: usize = 110;

/// Shows a replay: redraws in place on a terminal, plain lines elsewhere.
pub(crate) struct Screen {
    out: std::io::Stdout,
    plan: Plan,
    settle: Duration,
    live: bool,
    drawn: usize,
    ticks: u32,
}

impl Screen {
    pub(crate) fn new(plan: Plan, settle: Duration) -> Self {
        let out = std::io::stdout();
        let live = out.is_terminal() && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self { out, plan, settle, live, drawn: 0, ticks: 0 }
    }

    /// Shows how things stand; a screen that went away is no reason to stop.
    pub(crate) fn show(&mut self, played: &Played) {
        self.ticks += 1;
        let text = if self.live {
            let width = terminal_size::terminal_size().map_or(80, |(width, _)| usize::from(width.0));
            let lines = live(&self.plan, self.settle, played, width.clamp(MIN_WIDTH, MAX_WIDTH));
            let redraw = redraw(&lines, self.drawn);
            self.drawn = lines.len();
            redraw
        } else if self.ticks % PLAIN_EVERY == 1 {
            plain(&self.plan, played) + "\n"
        } else {
            return;
        };
        let mut out = self.out.lock();
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }

    /// Removes the live view, so that the summary takes its place.
    pub(crate) fn clear(&mut self) {
        if self.drawn > 0 {
            let mut out = self.out.lock();
            let _ = write!(out, "\x1b[{}A\x1b[J", self.drawn).and_then(|()| out.flush());
            self.drawn = 0;
        }
    }
}

/// Goes back over the lines drawn before and draws the new ones.
fn redraw(lines: &[String], drawn: usize) -> String {
    let mut text = if drawn > 0 { format!("\x1b[{drawn}A") } else { String::new() };
    for line in lines {
        text.push_str(line);
        text.push_str("\x1b[K\n");
    }
    text + "\x1b[J"
}

/// One line without colour, for a log.
pub(crate) fn plain(plan: &Plan, played: &Played) -> String {
    let now = Now::of(plan, played);
    let mut line = format!(
        "{:>4.0} s  {}  {:>5} req/s  p50 {}  p95 {}  failed {}",
        played.elapsed.as_secs_f64(),
        now.trace_time,
        now.rate,
        now.p50,
        now.p95,
        played.recorder.failed(),
    );
    if let Some(sample) = played.watch.samples.last() {
        line += &format!("  desired {} ready {} starting {}", sample.desired, sample.ready, sample.starting);
    }
    if let Some(mark) = played.watch.last_decision() {
        line += &format!("  {} {}->{}", mark.decision.action, mark.decision.from, mark.decision.to);
    }
    line
}

/// The lines of the live view, each at most `width` characters wide.
pub(crate) fn live(plan: &Plan, settle: Duration, played: &Played, width: usize) -> Vec<String> {
    let now = Now::of(plan, played);
    let failed = played.recorder.failed();
    let mut lines = vec![
        bold(&fit(&heading(played, &now), width)),
        fit(&progress(plan, settle, played, width), width),
        fit(
            &format!(
                "load      {:>5} req/s   p50 {}   p95 {}   under way {}",
                now.rate, now.p50, now.p95, played.outstanding
            ),
            width,
        ),
        fit(&format!("          {}", sparkline(&rates(played, width.saturating_sub(10)))), width),
        failed_line(failed, played, width),
    ];
    lines.extend(tier_lines(played).iter().map(|line| fit(line, width)));
    lines
}

/// Figures of this moment, ready to print.
struct Now {
    rate: u32,
    p50: String,
    p95: String,
    trace_time: String,
}

impl Now {
    fn of(plan: &Plan, played: &Played) -> Self {
        let elapsed = played.elapsed.as_secs_f64();
        let second = elapsed as usize;
        let latencies = played.recorder.latencies_between(second.saturating_sub(LATENCY_WINDOW), second + 1);
        let shown =
            |q| latencies.quantile_ms(q).map_or_else(|| "     -".into(), |ms| format!("{:>6}", duration(ms)));
        let trace = plan.trace_seconds(elapsed.min(plan.duration.as_secs_f64())) as u32;
        Self {
            rate: second.checked_sub(1).and_then(|s| played.recorder.seconds.get(s)).map_or(0, |s| s.served),
            p50: shown(0.50),
            p95: shown(0.95),
            trace_time: TraceTime::from_seconds(trace - trace % 60).to_string(),
        }
    }
}

fn heading(played: &Played, now: &Now) -> String {
    let accelerator = played.watch.engine.as_ref().map_or("fixed backends", |engine| &engine.accelerator);
    match played.phase {
        Phase::Loading => format!("flurry replay   trace time {}   {accelerator}", now.trace_time),
        Phase::Settling => format!("flurry replay   load over, waiting for clones to go   {accelerator}"),
    }
}

fn progress(plan: &Plan, settle: Duration, played: &Played, width: usize) -> String {
    let (done, all) = match played.load_ended {
        None => (played.elapsed, plan.duration),
        Some(ended) => (played.elapsed.saturating_sub(ended), settle),
    };
    let share = (done.as_secs_f64() / all.as_secs_f64().max(0.001)).min(1.0);
    let label = format!(" {:>3.0}/{:.0} s", done.as_secs_f64(), all.as_secs_f64());
    let cells = width.saturating_sub(label.len());
    let full = (share * cells as f64).round() as usize;
    format!("{}{}{label}", "━".repeat(full), "╌".repeat(cells - full))
}

fn failed_line(failed: u64, played: &Played, width: usize) -> String {
    let why = played.recorder.first_failures.last().map_or(String::new(), |why| format!("   {why}"));
    let line = fit(&format!("failed    {failed:>5}{why}"), width);
    if failed > 0 { format!("\x1b[31m{line}\x1b[0m") } else { line }
}

fn tier_lines(played: &Played) -> Vec<String> {
    let watch = &played.watch;
    let mut lines = Vec::new();
    if let Some(s) = watch.samples.last() {
        let bar = "■".repeat(s.ready.min(40) as usize) + &"□".repeat(s.starting.min(40) as usize);
        lines.push(format!(
            "backends  desired {:>2}   ready {:>2}   starting {:>2}   retiring {:>2}   {bar}",
            s.desired, s.ready, s.starting, s.retiring
        ));
    }
    lines.push(match watch.last_decision() {
        Some(mark) => {
            let decision = &mark.decision;
            format!("decision  {} {} -> {}: {}", decision.action, decision.from, decision.to, decision.reason)
        }
        None => "decision  none yet".to_owned(),
    });
    let forks = watch.first_responses_ms();
    let newest: Vec<String> = forks.iter().rev().take(FORKS_SHOWN).rev().map(|ms| duration(*ms)).collect();
    if watch.engine.is_some() {
        let shown = if newest.is_empty() { "none yet".to_owned() } else { newest.join("  ") };
        lines.push(format!("forks     to first response: {shown}"));
    }
    lines
}

/// Responses per second, the newest last.
fn rates(played: &Played, cells: usize) -> Vec<u32> {
    let whole = (played.elapsed.as_secs() as usize).min(played.recorder.seconds.len());
    let from = whole.saturating_sub(cells);
    played.recorder.seconds[from..whole].iter().map(|second| second.served).collect()
}

fn sparkline(values: &[u32]) -> String {
    const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let top = values.iter().copied().max().unwrap_or(0).max(1);
    values.iter().map(|value| BARS[(value * 7 / top) as usize]).collect()
}

/// Milliseconds for a person: three significant digits or so.
pub(crate) fn duration(ms: f64) -> String {
    match ms {
        ms if ms < 10.0 => format!("{ms:.1} ms"),
        ms if ms < 1_000.0 => format!("{ms:.0} ms"),
        ms if ms < 10_000.0 => format!("{:.2} s", ms / 1_000.0),
        ms => format!("{:.1} s", ms / 1_000.0),
    }
}

fn fit(line: &str, width: usize) -> String {
    if line.chars().count() <= width {
        return line.to_owned();
    }
    line.chars().take(width - 1).chain(['…']).collect()
}

fn bold(line: &str) -> String {
    format!("\x1b[1m{line}\x1b[0m")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replay::example;

    fn text(played: &Played, width: usize) -> String {
        let all = live(&example::plan(), Duration::from_secs(20), played, width).join("\n");
        all.replace("\x1b[1m", "").replace("\x1b[31m", "").replace("\x1b[0m", "")
    }

    #[test]
    fn the_live_view_tells_load_latency_tier_decision_and_forks() {
        insta::assert_snapshot!(text(&example::played(40), 80));
    }

    #[test]
    fn the_view_after_the_load_counts_the_time_to_settle() {
        let played = example::played(80);
        assert_eq!(played.phase, Phase::Settling);
        let text = text(&played, 80);
        assert!(text.contains("waiting for clones to go") && text.contains("5/20 s"), "{text}");
    }

    #[test]
    fn no_line_is_wider_than_the_terminal() {
        for width in [MIN_WIDTH, 57, 80, MAX_WIDTH] {
            for line in text(&example::played(40), width).lines() {
                assert!(line.chars().count() <= width, "{width}: {line}");
            }
        }
    }

    #[test]
    fn a_log_gets_one_plain_line_without_escapes() {
        let line = plain(&example::plan(), &example::played(40));
        assert!(!line.contains('\x1b') && !line.contains('\n'));
        assert!(line.contains("req/s") && line.contains("desired") && line.contains("failed 0"), "{line}");
    }

    #[test]
    fn a_replay_that_just_began_shows_no_invented_figures() {
        let text = text(&example::played(0), 80);
        assert!(text.contains("p50      -") && text.contains("decision  none yet"), "{text}");
    }

    #[test]
    fn a_redraw_goes_back_over_what_it_drew() {
        assert_eq!(redraw(&["a".into()], 0), "a\x1b[K\n\x1b[J");
        assert_eq!(redraw(&["a".into()], 3), "\x1b[3Aa\x1b[K\n\x1b[J");
    }
}
