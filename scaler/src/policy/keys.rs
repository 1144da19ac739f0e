//! The keys of a policy in YAML, and what to write there. `POLICY.md` describes each.

/// Every key with its remedy.
pub(super) const KEYS: [(&str, &str); 25] = [
    ("min", "give the fewest backends to keep, the parent included, e.g. 1"),
    ("max", "give the most backends to have, the parent included, e.g. 8"),
    ("target_concurrency", "give the number of requests one backend should serve at once, e.g. 4"),
    ("target_requests_per_second", "give the requests per second one backend should serve, e.g. 50"),
    ("target_p95_latency", "give the latency that 95 % of requests should stay under, e.g. 200ms"),
    ("stable_window", "give the time over which load is averaged before shrinking, e.g. 10s"),
    ("panic_window", "give the short time over which sudden load is averaged, e.g. 2s"),
    ("panic_threshold", "give the load over capacity that starts a panic, e.g. 200%"),
    ("tolerance", "give the share by which load may miss its target, e.g. 10%"),
    ("surge", "give the number of clones that may be on their way at once, e.g. 8"),
    ("stale_after", "give the age from which on a sample counts as missing, e.g. 3s"),
    ("retry_refused_after", "give the time to wait after fewer clones were granted than asked, e.g. 5s"),
    ("scale_up", "give a section with enabled, window, rate"),
    ("scale_up.enabled", "write true or false"),
    ("scale_up.window", "give the time over which load is averaged before growing, e.g. 2s"),
    ("scale_up.rate", "give a section with backends, share, per, select"),
    ("scale_down", "give a section with enabled, stabilisation, rate"),
    ("scale_down.enabled", "write true or false"),
    ("scale_down.stabilisation", "give the time whose highest demand is kept, e.g. 30s"),
    ("scale_down.rate", "give a section with backends, share, per, select"),
    ("rate.limited", "write false to lift the limit"),
    ("rate.backends", "give a number of backends per period, e.g. 4"),
    ("rate.share", "give a share of the backends per period, e.g. 50%"),
    ("rate.per", "give the length of the period, e.g. 10s"),
    ("rate.select", "write max or min"),
];

/// What to write under `key`; for keys of a rate, both directions have the same.
pub(super) fn remedy(key: &str) -> &'static str {
    let common = key.rsplit_once(".rate.").map(|(_, last)| format!("rate.{last}"));
    let key = common.as_deref().unwrap_or(key);
    KEYS.iter().find(|(known, _)| *known == key).map_or("see POLICY.md", |(_, remedy)| remedy)
}
