//! A recorded load: requests per second over time, constant within each interval.

use std::time::Duration;

use crate::yaml::{Complaint, Complaints};

/// Load from a moment until the next point.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LoadPoint {
    /// When the interval begins.
    pub at: Duration,
    /// Mean requests per second in it.
    pub requests_per_second: f64,
}

/// A load curve: points in order of time, and an end.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    points: Vec<LoadPoint>,
    end: Duration,
}

/// How the second column of a CSV counts.
#[derive(Clone, Copy, PartialEq)]
enum Count {
    PerInterval,
    PerSecond,
}

/// Loads beyond this are mistakes, and would make the queue model slow.
const LARGEST_LOAD: f64 = 1e8;

impl Trace {
    /// A trace of points that lasts until `end`.
    ///
    /// # Errors
    /// Points out of order, none at all, an end before the last one, or loads that cannot be.
    pub fn new(points: Vec<LoadPoint>, end: Duration) -> Result<Self, Complaints> {
        let mut complaints = Vec::new();
        let mut complain = |index: usize, problem: &str, remedy: &str| {
            complaints.push(Complaint::new(format!("trace[{index}]"), problem, remedy));
        };
        for (index, point) in points.iter().enumerate() {
            let next = points.get(index + 1).map_or(end, |next| next.at);
            if next <= point.at {
                complain(index, "does not end after it begins", "order the points by time");
            }
            if !(0.0..=LARGEST_LOAD).contains(&point.requests_per_second) {
                complain(index, "is no load", "give requests per second, 0 or more");
            }
        }
        if points.is_empty() {
            complain(0, "is missing", "give one point of load at least");
        }
        if complaints.is_empty() { Ok(Self { points, end }) } else { Err(complaints.into()) }
    }

    /// Reads CSV: a time column and a count column, with or without a header line.
    ///
    /// Times are `HH:MM`, `HH:MM:SS`, or numbers: of minutes if the header's first word is
    /// `minute`, else of seconds. Counts are requests within the interval, or per second if
    /// the header's second word is `rps` or `requests_per_second`. The last interval is as
    /// long as the one before.
    ///
    /// # Errors
    /// All lines that cannot be read, by line number.
    pub fn parse_csv(text: &str) -> Result<Self, Complaints> {
        let mut complaints = Vec::new();
        let mut rows = Vec::new();
        let (mut unit, mut count) = (1.0, Count::PerInterval);
        let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line.trim()));
        for (number, line) in lines.filter(|(_, line)| !line.is_empty() && !line.starts_with('#')) {
            let mut cells = line.split(',').map(str::trim);
            let (time, load) = (cells.next().unwrap_or(""), cells.next().unwrap_or(""));
            match (parse_time(time, unit), load.parse::<f64>()) {
                (Some(time), Ok(load)) if (0.0..=LARGEST_LOAD * 86_400.0).contains(&load) => {
                    rows.push((number, time, load));
                }
                (None, Err(_)) if rows.is_empty() && complaints.is_empty() && !time.is_empty() => {
                    unit = if time.to_ascii_lowercase().starts_with("minute") { 60.0 } else { 1.0 };
                    let per_second = matches!(load, "rps" | "requests_per_second");
                    count = if per_second { Count::PerSecond } else { Count::PerInterval };
                }
                _ => complaints.push(Complaint::new(
                    format!("line {number}"),
                    format!("is no time and count, got `{line}`"),
                    "write e.g. `00:01,17613`: a time, a comma, requests of 0 or more",
                )),
            }
        }
        if !complaints.is_empty() {
            return Err(complaints.into());
        }
        Self::from_rows(&rows, count)
    }

    fn from_rows(rows: &[(usize, f64, f64)], count: Count) -> Result<Self, Complaints> {
        let complain = |key: String, problem: &str, remedy: &str| {
            Complaints::from(vec![Complaint::new(key, problem, remedy)])
        };
        let [first, second, ..] = rows else {
            let remedy = "give two lines at least: they tell how long an interval is";
            return Err(complain("trace".to_owned(), "is too short", remedy));
        };
        if let Some(pair) = rows.windows(2).find(|pair| pair[1].1 <= pair[0].1) {
            let remedy = "order the lines by time; a trace ends at midnight";
            return Err(complain(format!("line {}", pair[1].0), "is not after the line before", remedy));
        }
        let mut interval = second.1 - first.1;
        let mut points = Vec::with_capacity(rows.len());
        for (index, (line, time, load)) in rows.iter().enumerate() {
            interval = rows.get(index + 1).map_or(interval, |next| next.1 - time);
            let requests_per_second = if count == Count::PerSecond { *load } else { load / interval };
            if requests_per_second > LARGEST_LOAD {
                let problem = format!("is {requests_per_second} requests per second, more than there are");
                return Err(complain(format!("line {line}"), &problem, "check the columns"));
            }
            points.push(LoadPoint { at: Duration::from_secs_f64(time - first.1), requests_per_second });
        }
        let last = points.last().map_or(Duration::ZERO, |point| point.at);
        Self::new(points, last + Duration::from_secs_f64(interval))
    }

    /// The same curve with every load multiplied, e.g. to fit it to a smaller tier.
    ///
    /// # Errors
    /// A factor that makes loads that cannot be.
    pub fn scaled(&self, factor: f64) -> Result<Self, Complaints> {
        let scale = |point: &LoadPoint| LoadPoint {
            requests_per_second: point.requests_per_second * factor,
            ..*point
        };
        Self::new(self.points.iter().map(scale).collect(), self.end)
    }

    /// The points in order of time.
    pub fn points(&self) -> &[LoadPoint] {
        &self.points
    }

    /// The highest load, requests per second.
    pub fn peak(&self) -> f64 {
        self.points.iter().map(|point| point.requests_per_second).fold(0.0, f64::max)
    }

    /// When it begins.
    pub fn start(&self) -> Duration {
        self.points.first().map_or(self.end, |point| point.at)
    }

    /// When it ends.
    pub fn end(&self) -> Duration {
        self.end
    }

    /// The load at every step from the start to the end.
    pub(super) fn steps(&self, step: Duration) -> impl Iterator<Item = (Duration, f64)> {
        let mut index = 0;
        let mut now = self.start();
        std::iter::from_fn(move || {
            if now >= self.end {
                return None;
            }
            while self.points.get(index + 1).is_some_and(|next| next.at <= now) {
                index += 1;
            }
            let at = now;
            now += step;
            Some((at, self.points[index].requests_per_second))
        })
    }
}

/// Seconds of a time cell.
fn parse_time(text: &str, unit: f64) -> Option<f64> {
    if !text.contains(':') {
        let time = text.parse::<f64>().ok()? * unit;
        return (0.0..1e9).contains(&time).then_some(time);
    }
    let parts: Vec<u32> = text.split(':').map(str::parse).collect::<Result<_, _>>().ok()?;
    match parts[..] {
        [hours, minutes] if hours < 24 && minutes < 60 => Some(f64::from(hours * 3600 + minutes * 60)),
        [hours, minutes, seconds] if hours < 24 && minutes < 60 && seconds < 60 => {
            Some(f64::from(hours * 3600 + minutes * 60 + seconds))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn loads(text: &str) -> Vec<(u64, f64)> {
        let trace = Trace::parse_csv(text).expect("a trace");
        trace.points().iter().map(|point| (point.at.as_secs(), point.requests_per_second)).collect()
    }

    fn complaints(text: &str) -> String {
        Trace::parse_csv(text).expect_err("no trace").to_string()
    }

    #[test]
    fn counts_per_minute_become_requests_per_second() {
        let text = "minute,requests\n10:00,600\n10:01,1200\n";
        assert_eq!(loads(text), [(0, 10.0), (60, 20.0)]);
        assert_eq!(Trace::parse_csv(text).map(|trace| trace.end()), Ok(s(120)));
        assert_eq!(loads("minute,requests\n0,600\n1,1200\n"), [(0, 10.0), (60, 20.0)]);
    }

    #[test]
    fn counts_per_second_and_rates_are_read_as_they_are() {
        assert_eq!(loads("0,5\n1,7\n2,9\n"), [(0, 5.0), (1, 7.0), (2, 9.0)]);
        assert_eq!(loads("time,rps\n00:00:00,5\n00:00:10,7\n"), [(0, 5.0), (10, 7.0)]);
        assert_eq!(
            loads("# a comment\n\nsecond,requests\n0, 20\n10, 40\n30, 50"),
            [(0, 2.0), (10, 2.0), (30, 2.5)]
        );
    }

    #[test]
    fn every_bad_line_is_complained_about_by_its_number() {
        let found = complaints("minute,requests\n00:00,5\n00:60,6\n00:02,-1\n00:03,NaN\n00:04\n");
        let lines: Vec<&str> = found.lines().map(|line| line.split(':').next().unwrap_or("")).collect();
        assert_eq!(lines, ["line 3", "line 4", "line 5", "line 6"]);
    }

    #[test]
    fn a_trace_without_order_or_length_is_refused() {
        assert!(complaints("0,5\n2,7\n1,9\n").starts_with("line 3: is not after the line before"));
        assert!(complaints("0,5\n").starts_with("trace: is too short"));
        assert!(complaints("").starts_with("trace: is too short"));
        assert!(complaints("0,5\n0.001,900000\n0.002,1\n").starts_with("line 2: is 900000000 requests"));
    }

    #[test]
    fn points_that_cannot_be_a_curve_are_refused() {
        let point = |at, requests_per_second| LoadPoint { at: s(at), requests_per_second };
        assert!(Trace::new(vec![], s(1)).is_err());
        assert!(Trace::new(vec![point(5, 1.0)], s(5)).is_err());
        let both = Trace::new(vec![point(5, f64::NAN), point(5, 1.0)], s(6)).expect_err("twice wrong");
        assert_eq!(both.as_slice().len(), 2);
        let good = Trace::new(vec![point(5, 1.0)], s(6)).expect("fine");
        assert!(good.scaled(-1.0).is_err());
        assert_eq!(good.scaled(3.0).map(|trace| trace.points()[0].requests_per_second), Ok(3.0));
    }

    #[test]
    fn steps_cover_the_trace_once() {
        let trace = Trace::parse_csv("0,1\n1,2\n").expect("a trace");
        let steps: Vec<_> = trace.steps(Duration::from_millis(500)).map(|(_, load)| load).collect();
        assert_eq!(steps, [1.0, 1.0, 2.0, 2.0]);
    }
}
