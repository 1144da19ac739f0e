//! `access_log` and `tracing`: who is told of each request.

use std::path::Path;
use std::time::Duration;

use http::Uri;
use scaler::yaml::{Entry, Section};

use crate::account::{AccountSettings, Destination, LogFormat, LogSettings, TracingSettings, Trust};

const FORMATS: [(&str, LogFormat); 2] = [("json", LogFormat::Json), ("combined", LogFormat::Combined)];
/// Lines that wait while the disk is slow; each takes about half a KiB.
const MAX_WAITING: u32 = 16_384;

const TRUST: [(&str, Trust); 3] =
    [("proxies", Trust::Proxies), ("everyone", Trust::Everyone), ("nobody", Trust::Nobody)];

/// Reads the sections about accounts of requests; `name` is that of the tier.
pub(super) fn read(root: &mut Section<'_>, name: &str, folder: &Path) -> AccountSettings {
    AccountSettings {
        log: root.optional_section("access_log", |section| log(section, folder)).flatten(),
        tracing: root.optional_section("tracing", |section| tracing(section, name)),
    }
}

fn tracing(section: &mut Section<'_>, name: &str) -> TracingSettings {
    const RESOURCE: &str =
        "give attributes with their values, e.g. {deployment.environment.name: production}";
    let endpoint = section
        .string("endpoint", "give the URL of an OTLP collector, e.g. http://127.0.0.1:4318/v1/traces")
        .try_map(|text| endpoint(&text))
        .optional();
    let service =
        section.string("service_name", "give the name of the service").not_empty().or(name.to_owned());
    let pairs = section.pairs("resource", RESOURCE).optional().unwrap_or_default();
    let attribute = |(key, entry): (String, Entry<'_>)| Some((key, entry.string(RESOURCE).optional()?));
    let own = [("service.name".to_owned(), service)];
    TracingSettings {
        endpoint,
        sample: section
            .share("sample", "give the share of the requests that a trace is begun for, e.g. 1%")
            .at_least(0.0)
            .at_most(1.0)
            .or(0.0),
        trust: section.choice("trust", &TRUST, "give proxies, everyone or nobody").or(Trust::Proxies),
        timeout: section
            .duration("timeout", "give the longest time for one delivery of spans, e.g. 5s")
            .at_least(Duration::from_millis(10))
            .at_most(Duration::from_secs(60))
            .or(Duration::from_secs(5)),
        resource: own.into_iter().chain(pairs.into_iter().filter_map(attribute)).collect(),
    }
}

/// Collectors are near: on the same host or in the same network.
fn endpoint(text: &str) -> Result<Uri, String> {
    let uri: Uri = text.parse().map_err(|error| format!("must be a URL, got `{text}`: {error}"))?;
    match (uri.scheme_str(), uri.host()) {
        (Some("http"), Some(_)) => Ok(uri),
        _ => Err(format!("must be a URL that begins with http://, got `{text}`")),
    }
}

fn log(section: &mut Section<'_>, folder: &Path) -> Option<LogSettings> {
    const WHERE: &str = "give `path: /var/log/flurry/access.log`, or `stdout: true`";
    let path = section.path_buf("path", "give a file, e.g. /var/log/flurry/access.log").optional();
    let stdout = section.bool("stdout", "give true for lines on standard output").or(false);
    let to = match (path, stdout) {
        (Some(path), false) => Some(Destination::File(folder.join(path))),
        (None, true) => Some(Destination::Stdout),
        (Some(_), true) => {
            section.complain("stdout", "is given beside `path`", "give one of them");
            None
        }
        (None, false) => {
            section.complain("", "says nowhere to write to", WHERE);
            None
        }
    };
    let format = section.choice("format", &FORMATS, "give json or combined").or(LogFormat::Json);
    let query = section.bool("query", "give false to leave queries out").or(true);
    let max_waiting = section
        .u32("max_waiting", "give the lines that may wait to be written, e.g. 16384")
        .at_least(1)
        .at_most(1_000_000)
        .or(MAX_WAITING);
    Some(LogSettings { to: to?, format, query, max_waiting: max_waiting as usize })
}
