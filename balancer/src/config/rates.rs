//! `rate_limits`, of the whole tier and of routes: how many requests there may be in a time.

use std::time::Duration;

use scaler::yaml::{Entry, Section};

use super::routes::{complain_of_twins, header_name};
use crate::limit::{CountBy, Rate, RateLimitSettings};

/// Clients that a limit remembers unless it is told otherwise: 3 MiB at most.
const DEFAULT_KEYS: u32 = 65_536;
const MOST_KEYS: u32 = 16_777_216;
const SHORTEST: Duration = Duration::from_millis(1);
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Reads the list; names must be one of a kind in it.
pub(super) fn read(section: &mut Section<'_>) -> Vec<RateLimitSettings> {
    const REMEDY: &str = "give a list of limits, e.g. [{by: client, requests: 50, per: 1s}]";
    let entries = section.list("rate_limits", REMEDY).optional().unwrap_or_default();
    let entries = entries.into_iter().enumerate();
    let limits: Vec<_> = entries.filter_map(|(index, entry)| Some((index, limit(entry)?))).collect();
    let names: Vec<_> = limits.iter().map(|(index, limit)| (*index, limit.name.as_str())).collect();
    complain_of_twins(section, "rate_limits", "limit", &names);
    limits.into_iter().map(|(_, limit)| limit).collect()
}

fn limit(entry: Entry<'_>) -> Option<RateLimitSettings> {
    entry.section(|section| {
        let by = count_by(section);
        let word = match &by {
            CountBy::Everyone => "everyone",
            CountBy::Client => "client",
            CountBy::Header(_) => "header",
        };
        let name = section
            .string("name", "give a short name of a-z, 0-9 and -, e.g. login")
            .check(|name| is_plain(name))
            .or(word.to_owned());
        let requests = section
            .u32("requests", "give how many requests there may be in the time `per`, e.g. 50")
            .at_least(1)
            .required();
        let per = section
            .duration("per", "give a time, e.g. 1s")
            .at_least(SHORTEST)
            .at_most(LONGEST)
            .or(Duration::from_secs(1));
        let burst =
            section.u32("burst", "give how many requests may come at once, e.g. 100").at_least(1).optional();
        let max_keys = section
            .u32("max_keys", "give how many clients are remembered, e.g. 65536")
            .at_least(32)
            .at_most(MOST_KEYS)
            .or(DEFAULT_KEYS);
        let requests = requests?;
        let rate = Rate { requests, per, burst: burst.unwrap_or(requests) };
        Some(RateLimitSettings { name, by, rate, max_keys: max_keys as usize })
    })
}

fn count_by(section: &mut Section<'_>) -> CountBy {
    const BY: &str = "give everyone, client or header, with the name of the field as `header`";
    let words = ["everyone", "client", "header"].map(|word| (word, word));
    let by = section.choice("by", &words, BY).or("everyone");
    let header = section
        .string("header", "give the name of a header field, e.g. x-api-key")
        .try_map(|text| header_name(&text))
        .optional();
    if (by == "header") != header.is_some() {
        section.complain("header", "and `by: header` need each other", BY);
    }
    match (by, header) {
        ("client", _) => CountBy::Client,
        ("header", Some(name)) => CountBy::Header(name),
        _ => CountBy::Everyone,
    }
}

/// The name stands in a header field and in metrics.
fn is_plain(name: &str) -> Result<(), String> {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let fine = (1..=32).contains(&name.len()) && name.chars().all(plain);
    fine.then_some(()).ok_or_else(|| format!("must be 1 to 32 of a-z, 0-9 and -, got `{name}`"))
}
