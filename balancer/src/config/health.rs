//! `health`: how backends are probed and judged.

use std::time::Duration;

use http::uri::PathAndQuery;
use scaler::yaml::Section;

use crate::pool::{HealthSettings, LONGEST_SERVICE, ProbeKind};

/// Reads the section; what is not given has its default.
pub(super) fn read(section: &mut Section<'_>) -> HealthSettings {
    let default = HealthSettings::default();
    const SHORTEST: Duration = Duration::from_millis(5);
    const LONGEST: Duration = Duration::from_secs(3600);
    let words = [("http", "http"), ("grpc", "grpc"), ("connect", "connect")];
    let kind = section.choice("kind", &words, "give http, grpc or connect").or("http");
    let path = section
        .string("path", "give the path that a well backend answers with 200 to 399, e.g. /healthz")
        .check(|path| is_path(path))
        .optional();
    if path.is_some() && kind != "http" {
        section.complain("path", format!("has no effect with `kind: {kind}`"), "remove it");
    }
    let service = section
        .string("service", "give the name of a gRPC service, e.g. shop.Cart")
        .check(|name| is_service(name))
        .optional();
    if service.is_some() && kind != "grpc" {
        section.complain("service", format!("has no effect with `kind: {kind}`"), "remove it");
    }
    HealthSettings {
        kind: match kind {
            "grpc" => ProbeKind::Grpc(service.unwrap_or_default()),
            "connect" => ProbeKind::Connect,
            _ => ProbeKind::Http,
        },
        path: path.unwrap_or(default.path),
        interval: section
            .duration("interval", "give the time between two probes, e.g. 1s")
            .at_least(SHORTEST)
            .at_most(LONGEST)
            .or(default.interval),
        timeout: section
            .duration("timeout", "give the longest time for an answer to a probe, e.g. 1s")
            .at_least(SHORTEST)
            .at_most(LONGEST)
            .or(default.timeout),
        unhealthy_after: section
            .u32("unhealthy_after", "give the bad probes in a row that eject a backend, e.g. 3")
            .at_least(1)
            .or(default.unhealthy_after),
        healthy_after: section
            .u32("healthy_after", "give the good probes in a row that readmit a backend, e.g. 1")
            .at_least(1)
            .or(default.healthy_after),
        eject_after: section
            .u32("eject_after", "give the requests in a row without an answer that eject a backend, e.g. 5")
            .at_least(1)
            .or(default.eject_after),
    }
}

fn is_service(name: &str) -> Result<(), String> {
    let fits = (1..=LONGEST_SERVICE).contains(&name.len());
    fits.then_some(()).ok_or_else(|| format!("must be 1 to {LONGEST_SERVICE} bytes, got {}", name.len()))
}

/// Whether a text is a path that a request can ask for.
pub(super) fn is_path(path: &str) -> Result<(), String> {
    let fine = path.starts_with('/') && path.parse::<PathAndQuery>().is_ok();
    fine.then_some(()).ok_or_else(|| not_a_path(path))
}

pub(super) fn not_a_path(path: &str) -> String {
    format!("must be a path that begins with /, got `{path}`")
}
