//! `routes`: which requests go where, and what is changed on the way.

use std::collections::BTreeSet;
use std::time::Duration;

use http::{HeaderName, HeaderValue, Method, StatusCode};
use ipnet::IpNet;
use scaler::yaml::{Entry, Section};

use super::health::is_path;
use super::{listen, traffic};
use crate::route::{
    FALLBACK, HeaderEdits, HostPattern, Matcher, OwnAnswer, PathPattern, Rewrite, RouteSettings,
    TargetPattern, Targets, Template, TrafficSettings,
};

/// Fields that frame a message or belong to one connection: only we set them.
const FRAMING: [&str; 9] = [
    "connection",
    "content-length",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
    "proxy-connection",
];

/// Keys that say how backends are asked.
const ABOUT_BACKENDS: [&str; 7] =
    ["rewrite", "request_headers", "response_timeout", "retries", "priority", "queue_timeout", "hedge"];

/// What sends a client elsewhere.
const REDIRECTS: [u16; 5] = [301, 302, 303, 307, 308];

/// One route.
#[derive(Debug, Clone, PartialEq)]
pub struct RouteConfig {
    /// Its name, in metrics and in the log.
    pub name: String,
    /// Which requests it is for.
    pub matcher: Matcher,
    /// What becomes of them.
    pub target: TargetConfig,
    /// What it changes.
    pub settings: RouteSettings,
    /// What it lets through.
    pub traffic: TrafficSettings,
}

/// What becomes of a request.
#[derive(Debug, Clone, PartialEq)]
pub enum TargetConfig {
    /// A backend of this pool answers; `None` for the pool at the top of the file.
    Pool(Option<String>),
    /// We do.
    Answer(OwnAnswer),
    /// It is for CONNECT, to where one of these allows.
    Connect(Targets),
}

/// What routes may refer to.
pub(super) struct Known<'a> {
    pub(super) pools: BTreeSet<&'a str>,
    pub(super) listeners: BTreeSet<&'a str>,
}

/// Reads all routes.
pub(super) fn read(root: &mut Section<'_>, known: &Known<'_>) -> Vec<RouteConfig> {
    let entries = root.list("routes", "give a list of routes, e.g. [{path: /api, pool: api}]").optional();
    let entries = entries.unwrap_or_default().into_iter().enumerate();
    let read = |(index, entry): (usize, Entry<'_>)| {
        Some((index, entry.section(|section| route(section, index, known))?))
    };
    let routes: Vec<(usize, RouteConfig)> = entries.filter_map(read).collect();
    let names: Vec<_> = routes.iter().map(|(index, route)| (*index, route.name.as_str())).collect();
    for (index, _) in names.iter().filter(|(_, name)| *name == FALLBACK) {
        let problem = format!("`{FALLBACK}` is what stands for requests that no route is for");
        root.complain(&format!("routes[{index}].name"), problem, "give the route another name");
    }
    complain_of_twins(root, "routes", "route", &names);
    let routes: Vec<RouteConfig> = routes.into_iter().map(|(_, route)| route).collect();
    complain_of_lonely_pools(root, &routes, known);
    routes
}

/// Complains about names in a list that are not one of a kind; they come with their places in the file.
pub(super) fn complain_of_twins(section: &Section<'_>, list: &str, kind: &str, names: &[(usize, &str)]) {
    for (place, (index, name)) in names.iter().enumerate() {
        if names[..place].iter().any(|(_, other)| other == name) {
            let problem = format!("`{name}` is the name of another {kind} already");
            section.complain(
                &format!("{list}[{index}].name"),
                problem,
                format!("give each {kind} a name of its own"),
            );
        }
    }
}

/// A pool that no request can get to is a mistake, and would be probed for nothing.
fn complain_of_lonely_pools(root: &Section<'_>, routes: &[RouteConfig], known: &Known<'_>) {
    let leads_to = |name: &str| {
        routes.iter().any(|route| matches!(&route.target, TargetConfig::Pool(Some(pool)) if pool == name))
    };
    for name in known.pools.iter().filter(|name| !leads_to(name)) {
        let remedy = format!("give a route with `pool: {name}`, or remove the pool");
        root.complain(&format!("pools.{name}"), "no route leads to it", remedy);
    }
}

fn route(section: &mut Section<'_>, index: usize, known: &Known<'_>) -> Option<RouteConfig> {
    let name = section.string("name", "give a short name, e.g. api").not_empty().or(format!("route-{index}"));
    let mut matcher = matcher(section, known);
    let target = target(section, known);
    if let Some(TargetConfig::Connect(_)) = target {
        matcher.methods = vec![Method::CONNECT];
    }
    let settings = settings(section, &matcher);
    let traffic = traffic::read(section);
    complain_of_no_effect(section);
    Some(RouteConfig { name, matcher, target: target?, settings, traffic })
}

/// Without a backend there is nothing to rewrite and nothing to wait for.
fn complain_of_no_effect(section: &mut Section<'_>) {
    if section.has("connect") {
        for key in ["path", "exact_path", "methods", "response_headers"].into_iter().chain(ABOUT_BACKENDS) {
            if section.has(key) {
                section.complain(key, "has no effect beside `connect`", "remove it");
            }
        }
    }
    let Some(own) = ["redirect", "respond"].into_iter().find(|key| section.has(key)) else { return };
    for key in ABOUT_BACKENDS {
        if section.has(key) {
            section.complain(key, format!("has no effect beside `{own}`"), "remove it");
        }
    }
}

fn matcher(section: &mut Section<'_>, known: &Known<'_>) -> Matcher {
    const HOST: &str = "give host names, e.g. [example.org, \"*.example.org\"]";
    const METHOD: &str = "give methods, e.g. [GET, HEAD]";
    const LISTENER: &str = "give names of listeners";
    let host = |entry: Entry<'_>| entry.string(HOST).try_map(|text| HostPattern::parse(&text)).optional();
    let method = |entry: Entry<'_>| {
        let parse = |text: String| {
            // Methods are told apart by case, and all that there are have capitals.
            let method = Method::from_bytes(text.as_bytes()).ok();
            let method = method.filter(|it| !it.as_str().contains(|c: char| c.is_ascii_lowercase()));
            method.ok_or_else(|| format!("must be a method in capitals, got `{text}`"))
        };
        entry.string(METHOD).try_map(parse).optional()
    };
    let listener = |entry: Entry<'_>| {
        let is_known = |name: &String| match known.listeners.contains(name.as_str()) {
            true => Ok(()),
            false => Err(format!("there is no listener `{name}`")),
        };
        entry.string(LISTENER).check(is_known).optional()
    };
    Matcher {
        hosts: list(section, "hosts", HOST).into_iter().filter_map(host).collect(),
        path: path(section),
        methods: list(section, "methods", METHOD).into_iter().filter_map(method).collect(),
        headers: wanted_headers(section),
        listeners: list(section, "listeners", LISTENER).into_iter().filter_map(listener).collect(),
    }
}

fn list<'a>(section: &mut Section<'a>, key: &str, remedy: &str) -> Vec<Entry<'a>> {
    section.list(key, remedy).not_empty().optional().unwrap_or_default()
}

fn path(section: &mut Section<'_>) -> PathPattern {
    let mut read =
        |key: &str, remedy: &str| section.string(key, remedy).check(|path| is_bare_path(path)).optional();
    let prefix = read("path", "give the beginning of the path, e.g. /api");
    let exact = read("exact_path", "give the whole path, e.g. /healthz");
    match (prefix, exact) {
        (Some(_), Some(_)) => {
            section.complain("exact_path", "is given beside `path`", "give one of them");
            PathPattern::Any
        }
        (Some(prefix), None) => PathPattern::Prefix(prefix),
        (None, Some(exact)) => PathPattern::Exact(exact),
        (None, None) => PathPattern::Any,
    }
}

/// Routes look at paths without their queries.
fn is_bare_path(path: &str) -> Result<(), String> {
    is_path(path)?;
    let bare = !path.contains('?');
    bare.then_some(()).ok_or_else(|| format!("must be a path without a query, got `{path}`"))
}

pub(super) fn header_name(text: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| format!("must be the name of a header field, got `{text}`"))
}

fn header_value(text: &str) -> Result<HeaderValue, String> {
    HeaderValue::from_str(text).map_err(|_| "must be text without line ends".to_owned())
}

/// `headers: {x-kind: a, x-beta: "*"}`; a star is for any value.
fn wanted_headers(section: &mut Section<'_>) -> Vec<(HeaderName, Option<HeaderValue>)> {
    const REMEDY: &str = "give fields with their values, e.g. {x-kind: beta}; \"*\" is for any value";
    let pairs = section.pairs("headers", REMEDY).optional().unwrap_or_default();
    let wanted = |(name, entry): (String, Entry<'_>)| {
        let read = |text: String| {
            let value = if text == "*" { None } else { Some(header_value(&text)?) };
            Ok((header_name(&name)?, value))
        };
        entry.string(REMEDY).try_map(read).optional()
    };
    pairs.into_iter().filter_map(wanted).collect()
}

fn target(section: &mut Section<'_>, known: &Known<'_>) -> Option<TargetConfig> {
    let is_known = |name: &String| match known.pools.contains(name.as_str()) {
        true => Ok(()),
        false => Err(format!("there is no pool `{name}`")),
    };
    let given = ["pool", "redirect", "respond", "connect"]
        .map(|key| section.has(key))
        .iter()
        .filter(|it| **it)
        .count();
    if given > 1 {
        section.complain(
            "",
            "has several of `pool`, `redirect`, `respond` and `connect`",
            "give one of them",
        );
    }
    let pool = section.string("pool", "give the name of a pool under `pools`").check(is_known).optional();
    let redirect = section.optional_section("redirect", redirect).flatten();
    let respond = section.optional_section("respond", |section| {
        let status = status(section, 200..=599, StatusCode::NOT_FOUND);
        let text = section.string("text", "give the text of the answer").or(String::new());
        TargetConfig::Answer(OwnAnswer::Respond { status, text: text.into() })
    });
    let connect = section.optional_section("connect", connect);
    redirect.or(respond).or(connect).or(Some(TargetConfig::Pool(pool)))
}

fn connect(section: &mut Section<'_>) -> TargetConfig {
    const TO: &str = "give hosts with ports, e.g. [\"*.example.org:443\", \"db.internal:5432\"]";
    let entries = section.list("to", TO).not_empty().required().unwrap_or_default();
    let pattern = |entry: Entry<'_>| entry.string(TO).try_map(|text| TargetPattern::parse(&text)).optional();
    let to: Vec<TargetPattern> = entries.into_iter().filter_map(pattern).collect();
    let mut networks = listen::networks(section, "networks").unwrap_or_default();
    // Who names an address means it.
    networks.extend(to.iter().filter_map(TargetPattern::address).map(IpNet::from));
    TargetConfig::Connect(Targets { to, networks })
}

fn redirect(section: &mut Section<'_>) -> Option<TargetConfig> {
    let status = status(section, 301..=308, StatusCode::PERMANENT_REDIRECT);
    if !REDIRECTS.contains(&status.as_u16()) {
        let problem = format!("must be one of 301, 302, 303, 307, 308, got {}", status.as_u16());
        section.complain("status", problem, "give 308, or 303 for a page after a form");
    }
    let to = section
        .string("to", "give the URL to go to, e.g. https://{host}{path}")
        .try_map(|text| Template::parse(&text))
        .required();
    Some(TargetConfig::Answer(OwnAnswer::Redirect { status, to: to? }))
}

fn status(
    section: &mut Section<'_>,
    range: std::ops::RangeInclusive<u32>,
    default: StatusCode,
) -> StatusCode {
    let status = section
        .u32("status", "give the status of the answer, e.g. 308")
        .at_least(*range.start())
        .at_most(*range.end())
        .try_map(|status| StatusCode::from_u16(status as u16).map_err(|_| "must be a status".to_owned()));
    status.or(default)
}

fn settings(section: &mut Section<'_>, matcher: &Matcher) -> RouteSettings {
    const SHORTEST: Duration = Duration::from_millis(10);
    RouteSettings {
        rewrite: section.section("rewrite", |section| rewrite(section, matcher)),
        request_headers: section.section("request_headers", edits),
        response_headers: section.section("response_headers", edits),
        response_timeout: section
            .duration("response_timeout", "give the longest time to the head of an answer, e.g. 5s")
            .at_least(SHORTEST)
            .optional(),
    }
}

fn rewrite(section: &mut Section<'_>, matcher: &Matcher) -> Rewrite {
    let host = section
        .string("host", "give the host that backends see, e.g. app.internal")
        .try_map(|text| header_value(&text))
        .optional();
    let to = section
        .string("prefix", "give what stands in place of `path`, e.g. /v2")
        .check(|path| is_bare_path(path))
        .optional();
    let prefix = match (to, &matcher.path) {
        (Some(to), PathPattern::Prefix(from) | PathPattern::Exact(from)) => Some((from.clone(), to)),
        (Some(_), PathPattern::Any) => {
            section.complain("prefix", "is given without `path`", "give the `path` that it replaces");
            None
        }
        (None, _) => None,
    };
    Rewrite { prefix, host }
}

fn edits(section: &mut Section<'_>) -> HeaderEdits {
    const NAMES: &str = "give names of header fields, e.g. [x-debug]";
    const FIELDS: &str = "give fields with their values, e.g. {x-served-by: flurry}";
    let name = |text: String| {
        let name = header_name(&text)?;
        match FRAMING.contains(&name.as_str()) {
            true => Err(format!("`{name}` frames the message or names its host, and is not for editing")),
            false => Ok(name),
        }
    };
    let remove = section.list("remove", NAMES).optional().unwrap_or_default();
    let remove =
        remove.into_iter().filter_map(|entry| entry.string(NAMES).try_map(name).optional()).collect();
    let mut fields = |key: &str| {
        let pairs = section.pairs(key, FIELDS).optional().unwrap_or_default();
        let field = |(field, entry): (String, Entry<'_>)| {
            let read = |text: String| Ok((name(field)?, header_value(&text)?));
            entry.string(FIELDS).try_map(read).optional()
        };
        pairs.into_iter().filter_map(field).collect::<Vec<_>>()
    };
    HeaderEdits { set: fields("set"), add: fields("add"), remove }
}
