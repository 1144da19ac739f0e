//! Durations and sizes as users write them: `500ms`, `1m30s`, `64KiB`.

use std::fmt::Write as _;
use std::time::Duration;

/// Longest duration that is taken: ten years. Sums of a few cannot overflow.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

const TIME_UNITS: [(&str, f64); 7] =
    [("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0), ("m", 60.0), ("h", 3600.0), ("d", 86400.0)];

const SIZE_UNITS: [(&str, u64); 8] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
];

/// Reads a duration: numbers with a unit each (`us ms s m h d`), e.g. `500ms`, `1.5s`, `1m30s`.
///
/// # Errors
/// What is wrong, to be put after the key: `must have a unit, got 10`.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err("must be a duration, got empty text".to_owned());
    }
    let mut seconds = 0.0;
    while !rest.is_empty() {
        let (number, after) = split_number(rest);
        let (unit, after) = split_unit(after);
        let number: f64 =
            number.parse().map_err(|_| format!("must be a duration of 0 or more, got `{text}`"))?;
        if unit.is_empty() {
            return Err(format!("must have a unit, got `{text}`"));
        }
        let Some((_, scale)) = TIME_UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(format!(
                "has the unknown unit `{unit}` in `{text}`; units are us, ms, s, m, h and d"
            ));
        };
        seconds += number * scale;
        rest = after.trim_start();
    }
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|duration| *duration <= LONGEST)
        .ok_or_else(|| format!("must be at most ten years, got `{text}`"))
}

/// Writes a duration the way [`parse_duration`] reads it, in its shortest form.
pub fn show_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    let (hours, minutes, seconds) =
        (duration.as_secs() / 3600, duration.as_secs() / 60 % 60, duration.as_secs() % 60);
    if duration.subsec_nanos() != 0 || nanos == 0 {
        return match nanos {
            0 => "0s".to_owned(),
            1..1_000_000 => format!("{}us", nanos as f64 / 1e3),
            1_000_000..1_000_000_000 => format!("{}ms", nanos as f64 / 1e6),
            _ => format!("{}s", duration.as_secs_f64()),
        };
    }
    let mut shown = String::new();
    for (count, unit) in [(hours, "h"), (minutes, "m"), (seconds, "s")] {
        if count > 0 {
            // Writing to a string does not fail.
            let _ = write!(shown, "{count}{unit}");
        }
    }
    shown
}

/// Reads a size in bytes: a number with a unit (`B KiB MiB GiB TiB kB MB GB`), e.g. `64KiB`.
///
/// # Errors
/// What is wrong, to be put after the key: ``has the unknown unit `M` ``.
pub fn parse_bytes(text: &str) -> Result<u64, String> {
    let (number, after) = split_number(text.trim());
    let (unit, rest) = split_unit(after);
    let number: f64 = match number.parse() {
        Ok(number) if rest.is_empty() => number,
        _ => return Err(format!("must be a size of 0 or more, got `{text}`")),
    };
    let Some((_, scale)) = SIZE_UNITS.iter().find(|(name, _)| *name == unit) else {
        return Err(format!("has the unknown unit `{unit}` in `{text}`; units are B, KiB, MiB, GiB and TiB"));
    };
    let bytes = number * *scale as f64;
    // 2^53: up to here a float holds every whole number.
    if bytes > (1_u64 << 53) as f64 {
        return Err(format!("must be at most 8192TiB, got `{text}`"));
    }
    Ok(bytes.round() as u64)
}

/// Reads a share: `25%` or `0.25`.
///
/// # Errors
/// What is wrong, to be put after the key.
pub fn parse_share(text: &str) -> Result<f64, String> {
    let (number, scale) = match text.trim().strip_suffix('%') {
        Some(percent) => (percent.trim_end(), 100.0),
        None => (text.trim(), 1.0),
    };
    match number.parse::<f64>() {
        Ok(number) if number.is_finite() => Ok(number / scale),
        _ => Err(format!("must be a share such as 25% or 0.25, got `{text}`")),
    }
}

fn split_number(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    text.split_at(end)
}

fn split_unit(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let end = text.find(|c: char| !c.is_alphabetic()).unwrap_or(text.len());
    text.split_at(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_any_unit() {
        let ms = Duration::from_millis;
        for (text, duration) in [
            ("500ms", ms(500)),
            ("10s", ms(10_000)),
            ("2m", ms(120_000)),
            ("1.5 s", ms(1500)),
            ("1m30s", ms(90_000)),
            ("250us", Duration::from_micros(250)),
            ("0s", ms(0)),
            ("1d", ms(86_400_000)),
        ] {
            assert_eq!(parse_duration(text), Ok(duration), "{text}");
        }
    }

    #[test]
    fn a_duration_without_unit_or_sense_is_refused() {
        for (text, problem) in [
            ("", "must be a duration, got empty text"),
            ("10", "must have a unit, got `10`"),
            ("-3s", "must be a duration of 0 or more, got `-3s`"),
            ("ten s", "must be a duration of 0 or more, got `ten s`"),
            ("3 parsecs", "has the unknown unit `parsecs` in `3 parsecs`; units are us, ms, s, m, h and d"),
            ("9999999h", "must be at most ten years, got `9999999h`"),
            ("1.2.3s", "must be a duration of 0 or more, got `1.2.3s`"),
        ] {
            assert_eq!(parse_duration(text), Err(problem.to_owned()));
        }
    }

    #[test]
    fn a_duration_is_shown_as_it_is_read() {
        for text in ["0s", "250us", "500ms", "1.5s", "10s", "2m", "1m30s", "1h1s", "24h"] {
            assert_eq!(parse_duration(text).map(show_duration), Ok(text.to_owned()));
        }
    }

    #[test]
    fn shares_are_read_as_percent_or_as_a_number() {
        assert_eq!(parse_share("25%"), Ok(0.25));
        assert_eq!(parse_share("200 %"), Ok(2.0));
        assert_eq!(parse_share("0.1"), Ok(0.1));
        for text in ["", "%", "half", "nan", "inf%"] {
            assert!(parse_share(text).is_err_and(|why| why.contains("must be a share")), "{text}");
        }
    }

    #[test]
    fn sizes_are_read_in_binary_and_decimal_units() {
        assert_eq!(parse_bytes("64KiB"), Ok(65_536));
        assert_eq!(parse_bytes("1.5 MiB"), Ok(1_572_864));
        assert_eq!(parse_bytes("2GB"), Ok(2_000_000_000));
        assert_eq!(parse_bytes("0B"), Ok(0));
        assert_eq!(parse_bytes("8192TiB"), Ok(1 << 53));
    }

    #[test]
    fn a_size_without_unit_or_sense_is_refused() {
        assert!(parse_bytes("3M").is_err_and(|why| why.contains("unknown unit `M`")));
        assert!(parse_bytes("12").is_err());
        assert!(parse_bytes("-1B").is_err());
        assert!(parse_bytes("1KiB2").is_err());
        assert!(parse_bytes("8193TiB").is_err_and(|why| why.contains("at most")));
    }
}
