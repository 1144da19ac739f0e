//! Floors by the calendar: at least so many backends from a moment on, for some time.
//!
//! Moments are those of a cron pattern in an IANA time zone; the zones are built in, so
//! that nothing of the machine is read. A time that a change of clocks skips or repeats
//! is taken as cron takes it.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use croner::Cron;
use jiff::tz::TimeZone;
use jiff::{Timestamp, Zoned};

/// A floor that comes and goes by the calendar.
#[derive(Clone, PartialEq)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
    /// How long the floor holds from each moment on.
    pub lasts: Duration,
    /// Backends there are at least, the parent included.
    pub min: u32,
}

/// Reads a cron pattern: minute, hour, day of month, month, day of week.
///
/// # Errors
/// What is wrong, to be put after the key.
pub(crate) fn parse_cron(text: &str) -> Result<Cron, String> {
    let cron = Cron::from_str(text).map_err(|error| format!("is no cron pattern: {error}, got `{text}`"))?;
    let somewhen = Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC);
    match cron.find_next_occurrence(&somewhen, true) {
        Ok(_) => Ok(cron),
        Err(_) => Err(format!("never comes, got `{text}`")),
    }
}

/// Reads the name of a time zone.
///
/// # Errors
/// What is wrong, to be put after the key.
pub(crate) fn parse_zone(text: &str) -> Result<TimeZone, String> {
    TimeZone::get(text).map_err(|_| format!("is no IANA time zone, got `{text}`"))
}

impl fmt::Debug for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (cron, zone) = (self.cron.as_str(), self.zone.iana_name().unwrap_or("?"));
        write!(f, "Schedule({cron:?} {zone} for {:?}: {})", self.lasts, self.min)
    }
}

impl Schedule {
    /// A floor of `min` backends for a time from each moment of a pattern on.
    pub(crate) fn new(cron: Cron, zone: TimeZone, lasts: Duration, min: u32) -> Self {
        Self { cron, zone, lasts, min }
    }

    /// When the floor that holds at a time ends, and when the next one begins. Times are
    /// since 1970.
    fn around(&self, unix: Duration) -> (Option<Duration>, Option<Duration>) {
        let Some(now) = zoned(unix, &self.zone) else { return (None, None) };
        let last = self.cron.find_previous_occurrence(&now, true).ok().and_then(|last| since_1970(&last));
        let end = last.map(|last| last + self.lasts).filter(|end| *end > unix);
        let next = self.cron.find_next_occurrence(&now, false).ok();
        (end, next.and_then(|next| since_1970(&next)))
    }
}

fn zoned(unix: Duration, zone: &TimeZone) -> Option<Zoned> {
    let seconds = i64::try_from(unix.as_secs()).ok()?;
    Timestamp::new(seconds, unix.subsec_nanos() as i32).ok().map(|at| at.to_zoned(zone.clone()))
}

fn since_1970(at: &Zoned) -> Option<Duration> {
    u64::try_from(at.timestamp().as_second()).ok().map(Duration::from_secs)
}

/// The highest floor of a few schedules, looked up again only when it can have changed.
#[derive(Debug, Clone, Default)]
pub(crate) struct Calendar {
    known: Option<Known>,
}

#[derive(Debug, Clone, Copy)]
struct Known {
    from: Duration,
    until: Duration,
    floor: Option<Floor>,
}

/// A floor that holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Floor {
    pub(crate) min: u32,
    /// When it ends, since 1970.
    pub(crate) ends: Duration,
}

impl Calendar {
    /// The highest floor at a time since 1970.
    pub(crate) fn floor(&mut self, schedules: &[Schedule], unix: Duration) -> Option<Floor> {
        let known = self.known.filter(|known| (known.from..known.until).contains(&unix));
        let known = known.unwrap_or_else(|| look_up(schedules, unix));
        self.known = Some(known);
        known.floor
    }
}

fn look_up(schedules: &[Schedule], unix: Duration) -> Known {
    let mut known = Known { from: unix, until: Duration::MAX, floor: None };
    for schedule in schedules {
        let (ends, next) = schedule.around(unix);
        let change = ends.into_iter().chain(next).min();
        known.until = known.until.min(change.unwrap_or(Duration::MAX));
        let floor = ends.map(|ends| Floor { min: schedule.min, ends });
        known.floor = known.floor.into_iter().chain(floor).max_by_key(|floor| floor.min);
    }
    known
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(cron: &str, zone: &str, hours: u64, min: u32) -> Schedule {
        let lasts = Duration::from_secs(hours * 3600);
        Schedule::new(parse_cron(cron).expect("cron"), parse_zone(zone).expect("zone"), lasts, min)
    }

    fn unix(utc: &str) -> Duration {
        let at: Timestamp = utc.parse().expect("a time");
        Duration::from_secs(at.as_second() as u64)
    }

    fn min(schedules: &[Schedule], utc: &str) -> Option<u32> {
        Calendar::default().floor(schedules, unix(utc)).map(|floor| floor.min)
    }

    #[test]
    fn a_floor_holds_from_its_moment_on_in_the_local_time_of_its_zone() {
        let office = [schedule("0 8 * * mon-fri", "Europe/Berlin", 10, 4)];
        // A Tuesday; Berlin is an hour ahead in winter and two in summer.
        assert_eq!(min(&office, "2026-01-13T06:59:59Z"), None);
        assert_eq!(min(&office, "2026-01-13T07:00:00Z"), Some(4));
        assert_eq!(min(&office, "2026-01-13T16:59:59Z"), Some(4));
        assert_eq!(min(&office, "2026-01-13T17:00:00Z"), None);
        assert_eq!(min(&office, "2026-07-14T06:00:00Z"), Some(4));
        assert_eq!(min(&office, "2026-01-17T09:00:00Z"), None, "a Saturday");
    }

    #[test]
    fn the_highest_of_several_floors_counts_and_they_cross_midnight() {
        let both = [schedule("0 20 * * *", "UTC", 8, 3), schedule("0 23 * * *", "UTC", 1, 9)];
        assert_eq!(min(&both, "2026-03-01T22:30:00Z"), Some(3));
        assert_eq!(min(&both, "2026-03-01T23:30:00Z"), Some(9));
        assert_eq!(min(&both, "2026-03-02T03:59:00Z"), Some(3));
        assert_eq!(min(&both, "2026-03-02T04:00:00Z"), None);
    }

    #[test]
    fn a_time_that_the_clocks_skip_does_not_lose_the_floor() {
        // Berlin goes from 02:00 to 03:00 on 29 March 2026.
        let night = [schedule("30 2 * * *", "Europe/Berlin", 2, 5)];
        assert_eq!(min(&night, "2026-03-29T01:45:00Z"), Some(5));
    }

    #[test]
    fn what_was_looked_up_is_kept_until_it_can_change_and_a_clock_may_go_back() {
        let office = [schedule("0 8 * * *", "UTC", 1, 4)];
        let mut calendar = Calendar::default();
        let mut seen = vec![];
        for at in ["07:59", "08:00", "08:59", "09:00", "08:30", "07:00"] {
            let at = unix(&format!("2026-05-05T{at}:00Z"));
            seen.push(calendar.floor(&office, at).map(|floor| floor.min));
        }
        assert_eq!(seen, [None, Some(4), Some(4), None, Some(4), None]);
        assert_eq!(calendar.known.map(|known| known.until), Some(unix("2026-05-05T08:00:00Z")));
    }

    #[test]
    fn patterns_and_zones_that_are_none_are_refused() {
        assert!(parse_cron("0 8 * *").is_err_and(|why| why.starts_with("is no cron pattern")));
        assert!(parse_cron("61 8 * * *").is_err());
        assert!(parse_cron("0 0 30 2 *").is_err_and(|why| why.starts_with("never comes")));
        assert!(parse_zone("Europe/Atlantis").is_err_and(|why| why.contains("no IANA time zone")));
    }

    #[test]
    fn the_ends_of_time_are_no_overflow() {
        let always = [schedule("* * * * *", "UTC", 1, 2)];
        assert_eq!(Calendar::default().floor(&always, Duration::MAX), None);
        assert!(Calendar::default().floor(&always, Duration::ZERO).is_some());
    }
}
