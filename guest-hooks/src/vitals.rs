//! Load and memory, from `/proc`. What cannot be read is reported as 0.

use std::fs;

use snowflock_engine::wire::Vitals;

/// Reads the vitals now.
pub(crate) fn read() -> Vitals {
    let text = |file: &str| fs::read_to_string(file).unwrap_or_default();
    parse(&text("/proc/loadavg"), &text("/proc/meminfo"), &text("/proc/uptime"))
}

fn parse(loadavg: &str, meminfo: &str, uptime: &str) -> Vitals {
    let first =
        |text: &str| text.split_whitespace().next().and_then(|w| w.parse::<f64>().ok()).unwrap_or(0.0);
    let field = |name: &str| {
        let line = meminfo.lines().find_map(|l| l.strip_prefix(name));
        line.and_then(|l| l.split_whitespace().next()?.parse().ok()).unwrap_or(0)
    };
    Vitals {
        load_milli: (first(loadavg) * 1000.0) as u32,
        memory_total_kib: field("MemTotal:"),
        memory_available_kib: field("MemAvailable:"),
        uptime_ms: (first(uptime) * 1000.0) as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_files_become_numbers_with_units() {
        let meminfo = "MemTotal:         222640 kB\nMemFree: 1 kB\nMemAvailable:     130000 kB\n";
        let vitals = parse("0.42 0.10 0.01 1/60 400\n", meminfo, "12.34 20.00\n");
        assert_eq!((vitals.load_milli, vitals.memory_total_kib), (420, 222_640));
        assert_eq!((vitals.memory_available_kib, vitals.uptime_ms), (130_000, 12_340));
    }

    #[test]
    fn unreadable_files_count_as_zero() {
        assert_eq!(parse("", "", "").memory_total_kib, 0);
    }
}
