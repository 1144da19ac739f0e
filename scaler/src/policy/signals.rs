//! Signals that a policy defines: queries of a Prometheus, and formulas.

use std::time::Duration;

use super::keys::remedy;
use crate::formula::Formula;
use crate::name::Name;
use crate::signal::{Measure, Signal};
use crate::yaml::{Entry, Section};

/// Between two questions to a Prometheus, and the longest wait for an answer.
const EVERY: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(2);

/// A signal that a policy defines.
#[derive(Debug, Clone, PartialEq)]
pub struct CustomSignal {
    /// Its name, for formulas, steps, reasons and metrics.
    pub name: Name,
    /// Where it comes from.
    pub origin: Origin,
    /// Its target per backend; without one it only serves formulas and steps.
    pub target: Option<f64>,
    /// How it asks for backends.
    pub measure: Measure,
    /// Up to this value it asks for nothing.
    pub activation: Option<f64>,
}

/// Where a signal comes from.
#[derive(Debug, Clone, PartialEq)]
pub enum Origin {
    /// The answer of a Prometheus to a query, one number. Whoever runs the scaler asks.
    Prometheus {
        /// Where it is, `http://host:port` and a path if it has one.
        url: String,
        /// The query.
        query: String,
        /// Time between two questions.
        every: Duration,
        /// Longest wait for an answer.
        timeout: Duration,
    },
    /// Computed from other signals.
    Formula(Formula),
}

/// Reads `signals`; empty if it is not given.
pub(super) fn read(section: &mut Section<'_>) -> Vec<CustomSignal> {
    let entries = section.list("signals", remedy("signals")).optional().unwrap_or_default();
    let read: Vec<_> = entries.into_iter().filter_map(read_one).collect();
    complain_about_names(section, &read);
    read
}

fn read_one(entry: Entry<'_>) -> Option<CustomSignal> {
    entry.section(|s| {
        let name = s.string("name", remedy("signals.name")).try_map(|text| own_name(&text)).required();
        let prometheus = s.optional_section("prometheus", read_prometheus);
        let formula =
            s.string("formula", remedy("signals.formula")).try_map(|text| Formula::new(&text)).optional();
        let target = s.f64("target", remedy("signals.target")).above(0.0).optional();
        let words =
            [("total", Measure::Total), ("per_backend", Measure::PerBackend), ("guard", Measure::Guard)];
        let measure = s.choice("measure", &words, remedy("signals.measure")).or(Measure::Total);
        let activation = s.f64("activation", remedy("signals.activation")).at_least(0.0).optional();
        let both = prometheus.is_some() == s.has("formula");
        if both {
            s.complain("", "must have either `prometheus` or `formula`", "give one of them");
        }
        let origin = prometheus.flatten().or(formula.map(Origin::Formula)).filter(|_| !both);
        Some(CustomSignal { name: name?, origin: origin?, target, measure, activation })
    })
}

fn own_name(text: &str) -> Result<Name, String> {
    match Signal::of_name(text)? {
        Signal::Custom(name) => Ok(name),
        built_in => Err(format!("is the name of a built-in signal, {}", built_in.name())),
    }
}

fn read_prometheus(s: &mut Section<'_>) -> Option<Origin> {
    let url = s.string("url", remedy("signals.prometheus.url")).check(|url| base_url(url)).required();
    let query = s.string("query", remedy("signals.prometheus.query")).not_empty().required();
    let least = Duration::from_millis(100);
    let every = s.duration("every", remedy("signals.prometheus.every")).at_least(least).or(EVERY);
    let timeout = s.duration("timeout", remedy("signals.prometheus.timeout")).at_least(least).or(TIMEOUT);
    Some(Origin::Prometheus { url: url?, query: query?, every, timeout })
}

/// `http://host:port/path` and nothing else: whoever asks adds the rest.
fn base_url(url: &str) -> Result<(), String> {
    let wrong = |why: &str| Err(format!("{why}, got `{url}`"));
    let Some(rest) = url.strip_prefix("http://") else { return wrong("must begin with http://") };
    if !url.bytes().all(|byte| byte.is_ascii_graphic()) || rest.contains(['?', '#', '@', '\\', '"', '<', '>'])
    {
        return wrong("must be plain http://host:port and a path, without query, fragment and user");
    }
    let authority = rest.split('/').next().unwrap_or("");
    // An IPv6 address stands in brackets.
    let (host, port) = match authority.rsplit_once(':').filter(|(_, port)| !port.ends_with(']')) {
        Some((host, port)) => (host, Some(port)),
        None => (authority, None),
    };
    if host.is_empty() || (host.contains(':') && !(host.starts_with('[') && host.ends_with(']'))) {
        return wrong("must have a host");
    }
    match port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port > 0)) {
        true => Ok(()),
        false => wrong("must have a port from 1 to 65535"),
    }
}

/// Names are given once, and formulas are made of what is measured, not of formulas.
fn complain_about_names(section: &Section<'_>, signals: &[CustomSignal]) {
    for (index, signal) in signals.iter().enumerate() {
        let key = |key: &str| format!("signals[{index}].{key}");
        if signals[..index].iter().any(|before| before.name == signal.name) {
            let problem = format!("is given twice: `{}`", signal.name);
            section.complain(&key("name"), problem, "give each signal a name of its own");
        }
        let Origin::Formula(formula) = &signal.origin else { continue };
        for input in formula.inputs() {
            let Signal::Custom(name) = input else { continue };
            let known = signals.iter().find(|signal| signal.name == *name);
            let problem = match known.map(|signal| &signal.origin) {
                Some(Origin::Prometheus { .. }) => continue,
                Some(Origin::Formula(_)) => format!("holds `{name}`, which is a formula itself"),
                None => format!("holds `{name}`, which is no signal"),
            };
            section.complain(&key("formula"), problem, remedy("signals.formula"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::base_url;

    #[test]
    fn an_address_that_can_never_be_asked_is_told_before_anything_starts() {
        for fine in ["http://127.0.0.1:9090", "http://prometheus", "http://[::1]:9090/base", "http://a.b/c/"]
        {
            assert_eq!(base_url(fine), Ok(()), "{fine}");
        }
        for (wrong, why) in [
            ("https://a", "must begin with http://"),
            ("http://", "must have a host"),
            ("http://:9090", "must have a host"),
            ("http://::1", "must have a host"),
            ("http://a:port", "must have a port"),
            ("http://a:0/", "must have a port"),
            ("http://a:70000", "must have a port"),
            ("http://a?query=x", "must be plain"),
            ("http://me@a", "must be plain"),
            ("http://a b", "must be plain"),
        ] {
            assert!(base_url(wrong).is_err_and(|found| found.starts_with(why)), "{wrong}");
        }
    }
}
