//! `flurry replay`: plays a recorded load curve against a tier and shows what
//! the tier makes of it.
//!
//! ```text
//! trace -> plan -> schedule -> player --> view (while it runs)
//!                     tier  <--requests--'  \-> summary.json, timeline.svg
//!                     admin <--samples---'
//! ```
//!
//! An outsider on purpose: it knows the tier only by its two listeners, so it
//! measures what a client would see. `trace`, `schedule`, `recorder`, `watch`,
//! `summary` and `timeline` are pure; `client`, `sampler` and `player` talk.

use std::path::{Path, PathBuf};
use std::time::Duration;

pub mod client;
#[cfg(test)]
mod example;
pub mod player;
pub mod recorder;
mod sampler;
pub mod schedule;
pub mod summary;
pub mod timeline;
pub mod trace;
mod view;
pub mod watch;

use client::Target;
use player::Course;
use schedule::{Arrival, Arrivals, Plan};
use summary::{Summary, summarize, table};
use trace::{MAX_TRACE_BYTES, Trace, TraceTime};

/// What the user asked for, each value plausible by itself.
#[derive(Debug, Clone)]
pub struct Options {
    /// Where the tier listens.
    pub url: Target,
    /// Where its admin listener is.
    pub admin: Target,
    /// The trace's file.
    pub trace: PathBuf,
    /// Start of the window; `None` for the start of the trace.
    pub from: Option<TraceTime>,
    /// End of the window; `None` for the end of the trace.
    pub to: Option<TraceTime>,
    /// How long the window takes to play.
    pub duration: Duration,
    /// Requests in the busiest second.
    pub peak: f64,
    /// How arrivals are spread.
    pub arrivals: Arrivals,
    /// Where all chance comes from.
    pub seed: u64,
    /// Path to ask for; `{n}` stands for the number of an item.
    pub path: String,
    /// How many different items are asked for.
    pub items: Option<u32>,
    /// How long the tier is watched after the load.
    pub settle: Duration,
    /// Folder for `summary.json` and `timeline.svg`.
    pub out: PathBuf,
}

/// Why there was no replay, or why its results could not be kept.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// The trace's file cannot be read.
    #[error("--trace: cannot read {path}: {why}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
    /// The trace's content is wrong.
    #[error("--trace: {path} is no trace:\n{complaints}")]
    NoTrace {
        /// The file.
        path: PathBuf,
        /// All that is wrong with it.
        complaints: trace::Complaints,
    },
    /// Options that do not fit each other or the trace; all complaints.
    #[error("{}", .0.join("\n"))]
    Options(Vec<String>),
    /// The tier or its admin listener does not answer.
    #[error("{option}: {why}; is `flurry up` running?")]
    Unreachable {
        /// The option that names it.
        option: &'static str,
        /// What was tried and what came of it.
        why: String,
    },
    /// The results cannot be written.
    #[error("--out: cannot write {path}: {why}")]
    Unwritable {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        why: String,
    },
}

impl ReplayError {
    /// Whether the user's input is wrong, rather than the world.
    pub fn is_input(&self) -> bool {
        matches!(self, Self::Unreadable { .. } | Self::NoTrace { .. } | Self::Options(_))
    }
}

/// Replays as asked, shows it on standard output, and keeps the results.
///
/// `interrupt` ends the replay early; the results so far are kept.
///
/// # Errors
/// See [`ReplayError`]. Failed requests are no error: see [`Summary::failed`].
pub async fn run(options: &Options, interrupt: impl Future<Output = ()>) -> Result<Summary, ReplayError> {
    let (plan, schedule) = prepare(options)?;
    std::fs::create_dir_all(&options.out).map_err(|error| unwritable(&options.out, &error))?;
    let (course, first) = reach(options).await?;
    println!(
        "replaying {} requests against {}: {} to {} of {} in {:.0} s",
        schedule.len(),
        options.url,
        plan.curve.from,
        plan.curve.to,
        options.trace.display(),
        plan.duration.as_secs_f64()
    );
    let mut screen = view::Screen::new(plan.clone(), options.settle);
    let played = player::play(course, schedule, plan.duration, &first, |p| screen.show(p), interrupt).await;
    screen.clear();
    keep(options, &plan, &played)
}

/// Reads the trace and plans the replay; nothing is sent.
fn prepare(options: &Options) -> Result<(Plan, Vec<Arrival>), ReplayError> {
    let text = read(&options.trace)?;
    let trace = Trace::parse(&text)
        .map_err(|complaints| ReplayError::NoTrace { path: options.trace.clone(), complaints })?;
    let mut wrong = complaints(options);
    let curve = trace.window(options.from, options.to).map_err(|more| wrong.extend(more)).ok();
    let Some(curve) = curve.filter(|_| wrong.is_empty()) else {
        return Err(ReplayError::Options(wrong));
    };
    let plan = Plan {
        curve,
        duration: options.duration,
        peak: options.peak,
        arrivals: options.arrivals,
        items: options.items.unwrap_or(1),
        seed: options.seed,
    };
    let schedule = plan.schedule().map_err(|complaint| ReplayError::Options(vec![complaint]))?;
    Ok((plan, schedule))
}

/// What is wrong with the options among themselves.
fn complaints(options: &Options) -> Vec<String> {
    let mut wrong = Vec::new();
    if options.duration < Duration::from_secs(1) {
        wrong.push(format!("--duration: must be at least 1s, got {:?}", options.duration));
    }
    if !(options.peak.is_finite() && options.peak > 0.0) {
        wrong.push(format!("--peak: must be above 0 requests per second, got {}", options.peak));
    }
    match (options.path.contains("{n}"), options.items) {
        (true, None) => wrong.push("--items: must say how many items {n} of --path stands for".to_owned()),
        (true, Some(0)) => wrong.push("--items: must be at least 1, got 0".to_owned()),
        (false, Some(_)) => {
            wrong.push(format!("--path: must hold {{n}} for --items, got {:?}", options.path))
        }
        _ => {}
    }
    wrong
}

fn read(path: &Path) -> Result<String, ReplayError> {
    let unreadable = |why: String| ReplayError::Unreadable { path: path.to_owned(), why };
    let size = std::fs::metadata(path).map_err(|error| unreadable(error.to_string()))?.len();
    if size > MAX_TRACE_BYTES {
        return Err(unreadable(format!("its {size} bytes are more than {MAX_TRACE_BYTES}")));
    }
    std::fs::read_to_string(path).map_err(|error| unreadable(error.to_string()))
}

/// Makes sure that tier and admin listener answer, and takes the first sample.
async fn reach(options: &Options) -> Result<(Course, crate::admin::status::Status), ReplayError> {
    let unreachable = |option| move |why| ReplayError::Unreachable { option, why };
    let tier = options.url.resolve().await.map_err(unreachable("--url"))?;
    tier.get(&options.path.replace("{n}", "1")).map_err(|complaint| ReplayError::Options(vec![complaint]))?;
    let admin = options.admin.resolve().await.map_err(unreachable("--admin"))?;
    let first = sampler::Sampler::new(admin.clone()).sample().await;
    let first = first.map_err(|why| unreachable("--admin")(format!("{}{why}", options.admin)))?;
    let course = Course { tier, admin, path: options.path.clone(), settle: options.settle };
    Ok((course, first))
}

/// Writes the results and prints the table.
fn keep(options: &Options, plan: &Plan, played: &player::Played) -> Result<Summary, ReplayError> {
    let name = options.trace.file_name().map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let summary = summarize(&name, plan, played);
    print!("{}", table(&summary));
    let json = serde_json::to_string_pretty(&summary);
    let json = json.map_err(|error| unwritable(&options.out.join("summary.json"), &error.into()))? + "\n";
    for (file, content) in [("summary.json", json), ("timeline.svg", timeline::draw(plan, played, &summary))]
    {
        let path = options.out.join(file);
        std::fs::write(&path, content).map_err(|error| unwritable(&path, &error))?;
        println!("  wrote {}", path.display());
    }
    Ok(summary)
}

fn unwritable(path: &Path, error: &std::io::Error) -> ReplayError {
    ReplayError::Unwritable { path: path.to_owned(), why: error.to_string() }
}
