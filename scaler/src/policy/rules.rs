//! Reads what stands beside the targets: steps, schedules, forecasts, the fallback.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Fallback;
use super::keys::remedy;
use crate::forecast::Predict;
use crate::schedule::{Schedule, parse_cron, parse_zone};
use crate::signal::Signal;
use crate::step::{Change, Step, Threshold};
use crate::yaml::{Entry, Section, parse_duration, parse_share};

const DAY: Duration = Duration::from_secs(24 * 3600);
const MINUTE: Duration = Duration::from_secs(60);
/// Bins of a season at most.
const MOST_BINS: u64 = 10_080;

/// Reads `steps`; empty if it is not given.
pub(super) fn steps(section: &mut Section<'_>) -> Vec<Step> {
    let entries = section.list("steps", remedy("steps")).optional().unwrap_or_default();
    entries.into_iter().filter_map(|entry| entry.section(step)).collect()
}

fn step(s: &mut Section<'_>) -> Option<Step> {
    let signal = s.string("signal", remedy("steps.signal")).try_map(|name| Signal::of_name(&name)).required();
    let above = s.entry("above");
    let below = s.entry("below");
    let (add, remove) = (s.entry("add"), s.entry("remove"));
    let upwards = (above.is_present(), add.is_present());
    let downwards = (below.is_present(), remove.is_present());
    let read = match (upwards, downwards) {
        ((true, true), (false, false)) => {
            let (above, add) = (threshold(above, "steps.above"), change(add, "steps.add"));
            above.zip(add).map(|(above, add)| (Threshold::Above(above), add))
        }
        ((false, false), (true, true)) => {
            let (below, remove) = (threshold(below, "steps.below"), change(remove, "steps.remove"));
            below.zip(remove).map(|(below, remove)| (Threshold::Below(below), remove))
        }
        _ => {
            s.complain("", "must have either above and add, or below and remove", remedy("steps"));
            None
        }
    };
    let ((when, change), signal) = (read?, signal?);
    Some(Step { signal, when, change })
}

/// A number, a share (`70%`), or a time (`200ms`), which counts in seconds.
fn threshold(entry: Entry<'_>, key: &str) -> Option<f64> {
    if entry.is_text() {
        let read = |text: String| match parse_duration(&text) {
            Ok(time) => Ok(time.as_secs_f64()),
            Err(_) => parse_share(&text),
        };
        return entry.string(remedy(key)).try_map(read).at_least(0.0).optional();
    }
    entry.f64(remedy(key)).at_least(0.0).optional()
}

/// A number of backends, or a share of them.
fn change(entry: Entry<'_>, key: &str) -> Option<Change> {
    if entry.is_text() {
        return entry.share(remedy(key)).above(0.0).at_most(10.0).optional().map(Change::Share);
    }
    entry.u32(remedy(key)).at_least(1).optional().map(Change::Backends)
}

/// Reads `schedule`; empty if it is not given.
pub(super) fn schedule(section: &mut Section<'_>) -> Vec<Schedule> {
    let entries = section.list("schedule", remedy("schedule")).optional().unwrap_or_default();
    entries.into_iter().filter_map(|entry| entry.section(one_schedule)).collect()
}

fn one_schedule(s: &mut Section<'_>) -> Option<Schedule> {
    let cron = s.string("cron", remedy("schedule.cron")).try_map(|text| parse_cron(&text)).required();
    let zone = s.string("zone", remedy("schedule.zone")).try_map(|text| parse_zone(&text)).required();
    let lasts = s.duration("for", remedy("schedule.for")).at_least(MINUTE).at_most(DAY * 366).required();
    let min = s.u32("min", remedy("schedule.min")).at_least(1).required();
    Some(Schedule::new(cron?, zone?, lasts?, min?))
}

/// Reads `predict`.
pub(super) fn predict(s: &mut Section<'_>) -> (Predict, Option<PathBuf>) {
    let season = s.duration("season", remedy("predict.season")).at_least(MINUTE).at_most(DAY * 28).or(DAY);
    let bin = s.duration("bin", remedy("predict.bin")).at_least(Duration::from_secs(1)).or(MINUTE * 5);
    let buffer = s.duration("buffer", remedy("predict.buffer")).at_most(DAY).or(MINUTE * 5);
    let acts = s.bool("act", remedy("predict.act")).or(false);
    let (season_seconds, bin_seconds) = (season.as_secs(), bin.as_secs().max(1));
    if season_seconds % bin_seconds != 0 || bin.subsec_nanos() != 0 {
        s.complain("bin", "must fit into the season without rest, in whole seconds", remedy("predict.bin"));
    } else if season_seconds / bin_seconds > MOST_BINS {
        let problem = format!("must cut the season into {MOST_BINS} at most");
        s.complain("bin", problem, remedy("predict.bin"));
    }
    let file = s.path_buf("file", remedy("predict.file")).check(|path| absolute(path)).optional();
    (Predict { season, bin, buffer, acts }, file)
}

/// A path that does not depend on where the program was started.
pub(super) fn absolute(path: &Path) -> Result<(), String> {
    let problem = || format!("must be absolute, got `{}`", path.display());
    path.is_absolute().then_some(()).ok_or_else(problem)
}

/// Reads `fallback`.
pub(super) fn fallback(s: &mut Section<'_>) -> Option<Fallback> {
    let least = Duration::from_secs(1);
    let after = s.duration("after", remedy("fallback.after")).at_least(least).or(least * 30);
    let backends = s.u32("backends", remedy("fallback.backends")).at_least(1).required();
    Some(Fallback { after, backends: backends? })
}
