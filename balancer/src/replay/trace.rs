//! A trace: how many requests a recorded day saw, per minute or per second.
//!
//! This file reads one from CSV and cuts a window out of it. It knows nothing
//! of playing: [`super::schedule`] turns a window into arrivals.
//!
//! ```text
//! text -> Trace (ascending, counted) -> Curve (dense, the window asked for)
//! ```

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// The largest trace file that is read, bytes: a week of seconds fits twice.
pub const MAX_TRACE_BYTES: u64 = 16 * 1024 * 1024;
/// The largest count of one line; above it, a column was mistaken for a count.
pub const MAX_COUNT: u64 = 1_000_000_000;
/// How many complaints are shown before the rest is only counted.
const MAX_COMPLAINTS_SHOWN: usize = 20;
/// The latest time that a trace can reach, seconds: one leap year.
const MAX_TRACE_SECONDS: u32 = 366 * 86_400;

/// A time inside a trace, in whole seconds since its 00:00 (or its second 0).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct TraceTime(u32);

impl TraceTime {
    /// A time that many seconds after the origin of the trace.
    pub fn from_seconds(seconds: u32) -> Self {
        Self(seconds)
    }

    /// Seconds since the origin of the trace.
    pub fn seconds(self) -> u32 {
        self.0
    }
}

impl fmt::Display for TraceTime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (hours, minutes, seconds) = (self.0 / 3600, self.0 / 60 % 60, self.0 % 60);
        write!(f, "{hours:02}:{minutes:02}")?;
        if seconds != 0 { write!(f, ":{seconds:02}") } else { Ok(()) }
    }
}

impl FromStr for TraceTime {
    type Err = String;

    /// Reads `HH:MM`, `HH:MM:SS` or plain seconds; `24:00` is the end of a day.
    fn from_str(text: &str) -> Result<Self, String> {
        let wrong =
            || format!("must be HH:MM, HH:MM:SS or seconds since the start of the trace, got {text:?}");
        let fields: Vec<u32> = text.split(':').map(digits).collect::<Option<_>>().ok_or_else(wrong)?;
        let seconds = match fields[..] {
            [seconds] => seconds,
            [24, 0] | [24, 0, 0] => 86_400,
            [hours @ 0..24, minutes @ 0..60] => hours * 3600 + minutes * 60,
            [hours @ 0..24, minutes @ 0..60, seconds @ 0..60] => hours * 3600 + minutes * 60 + seconds,
            _ => return Err(wrong()),
        };
        if seconds > MAX_TRACE_SECONDS { Err(wrong()) } else { Ok(Self(seconds)) }
    }
}

/// A number of digits only: no sign, no blank, no overflow.
fn digits(text: &str) -> Option<u32> {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if plain { text.parse().ok() } else { None }
}

/// How much time one line of a trace stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Unit {
    Minute,
    Second,
}

impl Unit {
    fn seconds(self) -> u32 {
        match self {
            Self::Minute => 60,
            Self::Second => 1,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Minute => "minute",
            Self::Second => "second",
        }
    }

    /// Reads the first field of a line, or says what would be right.
    fn time(self, field: &str) -> Result<TraceTime, String> {
        let time = match self {
            Self::Minute if field.len() == 5 => field.parse::<TraceTime>().ok().filter(|t| t.0 < 86_400),
            Self::Minute => None,
            Self::Second => field.parse::<TraceTime>().ok().filter(|t| t.0 < MAX_TRACE_SECONDS),
        };
        time.ok_or_else(|| match self {
            Self::Minute => format!("minute: must be HH:MM from 00:00 to 23:59, got {field:?}"),
            Self::Second => format!("second: must be a whole number or HH:MM:SS, got {field:?}"),
        })
    }
}

/// One thing that is wrong with a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaint {
    /// Line of the file, counted from 1.
    pub line: usize,
    /// What is wrong and what would be right.
    pub what: String,
}

/// Everything that is wrong with a trace, in the order of its lines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Complaints(pub Vec<Complaint>);

impl fmt::Display for Complaints {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, complaint) in self.0.iter().take(MAX_COMPLAINTS_SHOWN).enumerate() {
            let separator = if i == 0 { "" } else { "\n" };
            write!(f, "{separator}line {}: {}", complaint.line, complaint.what)?;
        }
        match self.0.len().saturating_sub(MAX_COMPLAINTS_SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n... and {more} more"),
        }
    }
}

impl std::error::Error for Complaints {}

/// Requests per minute or per second, in ascending order of time, never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    unit_seconds: u32,
    counts: Vec<(TraceTime, u64)>,
}

impl Trace {
    /// Reads `minute,requests` or `second,requests`.
    ///
    /// # Errors
    /// Every complaint about every line, not only the first.
    pub fn parse(text: &str) -> Result<Self, Complaints> {
        let mut lines = text.lines().enumerate().map(|(i, line)| (i + 1, line.trim()));
        let unit = header(lines.next().map_or("", |(_, line)| line)).map_err(only)?;
        let mut trace = Self { unit_seconds: unit.seconds(), counts: Vec::new() };
        let mut wrong = Vec::new();
        for (line, content) in lines.filter(|(_, content)| !content.is_empty()) {
            let complain = |what| Complaint { line, what };
            match row(unit, content) {
                Ok(row) => wrong.extend(trace.push(row).err().map(complain)),
                Err(all) => wrong.extend(all.into_iter().map(complain)),
            }
        }
        if wrong.is_empty() && trace.counts.is_empty() {
            wrong.push(Complaint {
                line: 2,
                what: format!("must hold at least one `{},requests` line", unit.name()),
            });
        }
        if wrong.is_empty() { Ok(trace) } else { Err(Complaints(wrong)) }
    }

    fn push(&mut self, (time, count): (TraceTime, u64)) -> Result<(), String> {
        let last = self.counts.last().map(|(last, _)| *last);
        if let Some(last) = last.filter(|last| *last >= time) {
            return Err(format!(
                "must be later than the line above: sort by time, each once; {time} after {last}"
            ));
        }
        self.counts.push((time, count));
        Ok(())
    }

    /// The first time that the trace covers.
    pub fn start(&self) -> TraceTime {
        self.counts[0].0
    }

    /// The first time after the trace.
    pub fn end(&self) -> TraceTime {
        TraceTime(self.counts[self.counts.len() - 1].0.0 + self.unit_seconds)
    }

    /// Cuts out `[from, to)`; a missing bound means the trace's own.
    ///
    /// # Errors
    /// Every complaint about the window, each with its option and remedy.
    pub fn window(&self, from: Option<TraceTime>, to: Option<TraceTime>) -> Result<Curve, Vec<String>> {
        let (from, to) = (from.unwrap_or(self.start()), to.unwrap_or(self.end()));
        let mut wrong = Vec::new();
        for (key, time) in [("--from", from), ("--to", to)] {
            if time < self.start() || time > self.end() {
                wrong.push(format!(
                    "{key}: must be inside the trace, {} to {}, got {time}",
                    self.start(),
                    self.end()
                ));
            } else if (time.0 - self.start().0) % self.unit_seconds != 0 {
                wrong
                    .push(format!("{key}: must be a whole minute, for the trace counts minutes; got {time}"));
            }
        }
        if from >= to {
            wrong.push(format!("--from: must be earlier than --to, got {from} and {to}"));
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let curve = self.cut(from, to);
        if curve.counts.iter().all(|count| *count == 0) {
            return Err(vec![format!(
                "--from, --to: the trace holds no request from {from} to {to}; choose a busier time"
            )]);
        }
        Ok(curve)
    }

    fn cut(&self, from: TraceTime, to: TraceTime) -> Curve {
        let mut counts = vec![0; ((to.0 - from.0) / self.unit_seconds) as usize];
        for (time, count) in self.counts.iter().filter(|(time, _)| *time >= from && *time < to) {
            counts[((time.0 - from.0) / self.unit_seconds) as usize] = *count;
        }
        Curve { from, to, bucket: Duration::from_secs(self.unit_seconds.into()), counts }
    }
}

/// A window of a trace without gaps; holds at least one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Curve {
    /// Start of the window.
    pub from: TraceTime,
    /// End of the window, exclusive.
    pub to: TraceTime,
    /// How much time one count stands for.
    pub bucket: Duration,
    /// Requests per bucket.
    pub counts: Vec<u64>,
}

fn only(what: String) -> Complaints {
    Complaints(vec![Complaint { line: 1, what }])
}

fn header(line: &str) -> Result<Unit, String> {
    let names: Vec<String> =
        line.trim_start_matches('\u{feff}').split(',').map(|n| n.trim().into()).collect();
    match names.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["minute", "requests"] => Ok(Unit::Minute),
        ["second", "requests"] => Ok(Unit::Second),
        _ if line.is_empty() => {
            Err("the trace is empty: must start with `minute,requests` or `second,requests`".into())
        }
        _ => Err(format!("must be the header `minute,requests` or `second,requests`, got {line:?}")),
    }
}

fn row(unit: Unit, line: &str) -> Result<(TraceTime, u64), Vec<String>> {
    let fields: Vec<&str> = line.split(',').map(str::trim).collect();
    let [time, count] = fields[..] else {
        let name = unit.name();
        return Err(vec![format!("must be two fields, `{name},requests`, got {}: {line:?}", fields.len())]);
    };
    match (unit.time(time), requests(count)) {
        (Ok(time), Ok(count)) => Ok((time, count)),
        (time, count) => Err([time.err(), count.err()].into_iter().flatten().collect()),
    }
}

fn requests(field: &str) -> Result<u64, String> {
    let plain = !field.is_empty() && field.bytes().all(|b| b.is_ascii_digit());
    let count = field.parse::<u64>().ok().filter(|count| plain && *count <= MAX_COUNT);
    count.ok_or_else(|| format!("requests: must be a whole number from 0 to {MAX_COUNT}, got {field:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Option<TraceTime> {
        Some(text.parse().unwrap())
    }

    fn complaints(text: &str) -> Vec<String> {
        let all = Trace::parse(text).unwrap_err();
        all.0.into_iter().map(|c| format!("{}: {}", c.line, c.what)).collect()
    }

    #[test]
    fn a_trace_of_minutes_and_one_of_seconds_are_read() {
        let minutes = Trace::parse("minute,requests\n13:30,10\n13:31,20\n").unwrap();
        let curve = minutes.window(None, None).unwrap();
        assert_eq!((curve.counts, curve.bucket), (vec![10, 20], Duration::from_secs(60)));

        let seconds = Trace::parse("second,requests\r\n0,1\r\n2,3\r\n").unwrap();
        let curve = seconds.window(None, None).unwrap();
        assert_eq!((curve.counts, curve.bucket), (vec![1, 0, 3], Duration::from_secs(1)));
    }

    #[test]
    fn every_wrong_line_is_named_at_once_with_what_would_be_right() {
        let text =
            "minute,requests\n25:00,x\n00:01\n00:02,-3\n00:05,1\n00:04,1\n00:06,1.5\n0:07,2\n00:08,1,2\n";
        assert_eq!(
            complaints(text),
            [
                "2: minute: must be HH:MM from 00:00 to 23:59, got \"25:00\"",
                "2: requests: must be a whole number from 0 to 1000000000, got \"x\"",
                "3: must be two fields, `minute,requests`, got 1: \"00:01\"",
                "4: requests: must be a whole number from 0 to 1000000000, got \"-3\"",
                "6: must be later than the line above: sort by time, each once; 00:04 after 00:05",
                "7: requests: must be a whole number from 0 to 1000000000, got \"1.5\"",
                "8: minute: must be HH:MM from 00:00 to 23:59, got \"0:07\"",
                "9: must be two fields, `minute,requests`, got 3: \"00:08,1,2\"",
            ]
        );
    }

    #[test]
    fn a_count_at_the_limit_is_read_and_one_above_is_refused() {
        assert!(Trace::parse(&format!("second,requests\n0,{MAX_COUNT}")).is_ok());
        assert!(Trace::parse(&format!("second,requests\n0,{}", MAX_COUNT + 1)).is_err());
    }

    #[test]
    fn an_empty_file_a_lone_header_and_a_foreign_header_are_refused() {
        assert!(complaints("")[0].contains("the trace is empty"));
        assert!(complaints("second,requests\n\n")[0].contains("at least one `second,requests` line"));
        assert!(complaints("time,hits\n0,1")[0].contains("must be the header"));
        assert!(complaints("second,requests\n00:00:61,1")[0].contains("HH:MM:SS"));
    }

    #[test]
    fn a_flood_of_complaints_is_shown_in_part_and_counted() {
        let all = Trace::parse(&format!("second,requests\n{}", "x,1\n".repeat(50))).unwrap_err().to_string();
        assert_eq!(all.lines().count(), MAX_COMPLAINTS_SHOWN + 1);
        assert!(all.ends_with("... and 30 more"), "{all}");
    }

    #[test]
    fn a_window_must_lie_inside_the_trace_and_run_forward() {
        let trace = Trace::parse("minute,requests\n13:30,10\n13:31,0\n13:32,5\n").unwrap();
        let wrong = |from, to| trace.window(from, to).unwrap_err().join("; ");
        assert!(wrong(time("13:32"), time("13:30")).contains("--from: must be earlier than --to, got 13:32"));
        assert!(wrong(time("13:30"), time("13:30")).contains("earlier"));
        let both = wrong(time("12:00"), time("14:00"));
        assert!(both.contains("--from: must be inside the trace, 13:30 to 13:33, got 12:00"), "{both}");
        assert!(both.contains("--to: must be inside"), "{both}");
        assert!(wrong(time("13:30:30"), None).contains("whole minute"));
        assert!(wrong(time("13:31"), time("13:32")).contains("no request"));
        assert_eq!(trace.window(time("13:31"), time("13:33")).unwrap().counts, [0, 5]);
    }

    #[test]
    fn times_are_read_and_written_as_people_write_them() {
        for (text, seconds) in
            [("00:00", 0), ("13:30", 48_600), ("24:00", 86_400), ("00:01:05", 65), ("90", 90)]
        {
            assert_eq!(text.parse::<TraceTime>().unwrap().seconds(), seconds);
        }
        assert_eq!(TraceTime::from_seconds(48_605).to_string(), "13:30:05");
        for text in ["", "24:01", "12:60", "-1", "1:2:3:4", "noon", "99999999999"] {
            assert!(text.parse::<TraceTime>().unwrap_err().contains("must be HH:MM"), "{text}");
        }
    }

    #[test]
    fn the_world_cup_trace_of_this_repository_is_whole() {
        let text = include_str!("../../../deploy/traces/wc98-0630.csv");
        let curve = Trace::parse(text).unwrap().window(None, None).unwrap();
        assert_eq!(curve.counts.len(), 1_440);
        assert_eq!(curve.to.to_string(), "24:00");
    }
}
