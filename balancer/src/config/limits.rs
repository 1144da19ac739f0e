//! `queue`, `adaptive_concurrency` and `timeouts`: how much waiting there may be.

use std::time::Duration;

use http::HeaderName;
use scaler::yaml::Section;

use super::routes::header_name;
use crate::pool::{AdaptiveSettings, QueueSettings};
use crate::server::Timeouts;

const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Reads the section `queue`.
pub(super) fn read_queue(section: &mut Section<'_>) -> (QueueSettings, Option<HeaderName>) {
    /// A waiting request costs about 10 KiB; this many cost 10 GiB.
    const MOST: u32 = 1_000_000;
    let default = QueueSettings::default();
    let max_requests = section
        .u32("max_requests", "give the requests that may wait at once, e.g. 1024; 0 for none")
        .at_most(MOST)
        .optional();
    let header = section
        .string("priority_header", "give the field that says high, normal or low, e.g. x-priority")
        .try_map(|text| header_name(&text))
        .optional();
    let queue = QueueSettings {
        max_requests: max_requests.map_or(default.max_requests, |number| number as usize),
        timeout: section
            .duration("timeout", "give the longest wait for a backend, e.g. 10s")
            .at_least(SHORTEST)
            .at_most(LONGEST)
            .or(default.timeout),
    };
    (queue, header)
}

/// Reads the section `adaptive_concurrency`.
pub(super) fn read_adaptive(section: &mut Section<'_>) -> AdaptiveSettings {
    let default = AdaptiveSettings::default();
    let mut bound = |key: &str, remedy: &str, default: u32| section.u32(key, remedy).at_least(1).or(default);
    let min = bound("min", "give the requests that a backend may always serve at once, e.g. 2", default.min);
    let max = bound("max", "give the most requests that a backend may serve at once, e.g. 500", default.max);
    if min > max {
        section.complain("min", format!("is {min}, more than `max`, {max}"), "give a smaller one");
    }
    let tolerance = section
        .share("tolerance", "give how long answers may take beside the quickest ones, e.g. 200%")
        .at_least(1.1)
        .at_most(10.0)
        .or(default.tolerance);
    AdaptiveSettings { min, max: max.max(min), tolerance }
}

/// Reads the section `timeouts`.
pub(super) fn read_timeouts(section: &mut Section<'_>) -> Timeouts {
    let default = Timeouts::default();
    let client_rate = section
        .bytes("client_rate", "give the bytes a second that a client must take at least, e.g. 128; 0 for any")
        .at_most(1 << 30)
        .or(default.client_rate);
    let mut read = |key: &str, remedy: &str, default: Duration| {
        section.duration(key, remedy).at_least(SHORTEST).at_most(LONGEST).or(default)
    };
    Timeouts {
        connect: read("connect", "give the longest time to connect to a backend, e.g. 2s", default.connect),
        request_header: read(
            "request_header",
            "give the longest time for the head of a request to come in, e.g. 10s",
            default.request_header,
        ),
        response: read(
            "response",
            "give the longest time from a request to the head of its answer, e.g. 60s",
            default.response,
        ),
        client_stall: read(
            "client_stall",
            "give the longest time without progress of a client within a message, e.g. 30s",
            default.client_stall,
        ),
        client_rate,
        idle: read(
            "idle",
            "give the time that connections without a request are kept, e.g. 60s",
            default.idle,
        ),
        tunnel: read(
            "tunnel",
            "give the time that a WebSocket is kept without a byte in either direction, e.g. 1h",
            default.tunnel,
        ),
        drain: read("drain", "give the time that requests may go on after SIGTERM, e.g. 30s", default.drain),
    }
}
