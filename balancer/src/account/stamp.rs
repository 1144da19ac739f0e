//! Times of day as they are written.

use std::fmt::Write;
use std::time::SystemTime;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// RFC 3339 in UTC, to the microsecond.
pub(super) fn rfc3339(time: SystemTime) -> String {
    humantime::format_rfc3339_micros(time).to_string()
}

/// As NCSA's common log format has it: `[10/Oct/2000:13:55:36 +0000]`.
pub(super) fn ncsa(time: SystemTime, out: &mut String) {
    let text = humantime::format_rfc3339_seconds(time).to_string();
    // 2000-10-10T13:55:36Z
    let (year, month, day, clock) = (&text[..4], &text[5..7], &text[8..10], &text[11..19]);
    let month =
        month.parse().ok().and_then(|month: usize| MONTHS.get(month.wrapping_sub(1))).unwrap_or(&"Jan");
    // Writing to a string cannot fail.
    let _ = write!(out, "[{day}/{month}/{year}:{clock} +0000]");
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_time_is_written_both_ways() {
        let time = SystemTime::UNIX_EPOCH + Duration::from_micros(971_186_136_000_250);
        assert_eq!(rfc3339(time), "2000-10-10T13:55:36.000250Z");
        let mut out = String::new();
        ncsa(time, &mut out);
        assert_eq!(out, "[10/Oct/2000:13:55:36 +0000]");
    }
}
