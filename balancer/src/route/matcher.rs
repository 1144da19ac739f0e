//! Whether a route is for a request: pure rules.
//!
//! Paths are compared as they were sent, without decoding: what is forwarded is what was
//! compared.

use http::{HeaderMap, HeaderName, HeaderValue, Method};

/// What rules look at.
#[derive(Debug, Clone, Copy)]
pub struct Seen<'a> {
    /// The host, with or without a port.
    pub host: &'a str,
    /// The path without the query.
    pub path: &'a str,
    /// The method.
    pub method: &'a Method,
    /// All header fields.
    pub headers: &'a HeaderMap,
    /// The name of the listener it came by, if it has one.
    pub listener: Option<&'a str>,
}

/// A host to match, in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HostPattern {
    /// This name.
    Exact(String),
    /// Any name that ends in this, which begins with a dot: `*.example.org`.
    Below(String),
}

impl HostPattern {
    /// Reads `example.org` or `*.example.org`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (below, name) = match text.strip_prefix("*.") {
            Some(name) => (true, name),
            None => (false, text),
        };
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '[' | ']');
        let after_brackets = name.rsplit_once(']').map_or(name, |(_, after)| after);
        if after_brackets.contains(':') {
            return Err(format!("must be a host name without a port, got `{text}`"));
        }
        if name.is_empty() || !name.chars().all(plain) {
            return Err(format!("must be a host name or *.NAME, got `{text}`"));
        }
        let name = name.to_ascii_lowercase();
        Ok(if below { Self::Below(format!(".{name}")) } else { Self::Exact(name) })
    }

    fn matches(&self, host: &str) -> bool {
        match self {
            Self::Exact(name) => host.eq_ignore_ascii_case(name),
            Self::Below(suffix) => {
                let from = host.len().checked_sub(suffix.len()).filter(|from| *from > 0);
                from.and_then(|from| host.get(from..)).is_some_and(|end| end.eq_ignore_ascii_case(suffix))
            }
        }
    }
}

/// A path to match.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PathPattern {
    /// Any.
    #[default]
    Any,
    /// Exactly this one.
    Exact(String),
    /// This one and those below it: `/api` is for `/api` and `/api/x`, not for `/apix`.
    Prefix(String),
}

impl PathPattern {
    fn matches(&self, path: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Exact(exact) => path == exact,
            Self::Prefix(prefix) => path
                .strip_prefix(prefix.as_str())
                .is_some_and(|rest| rest.is_empty() || prefix.ends_with('/') || rest.starts_with('/')),
        }
    }
}

/// The rules of one route; all must hold, and what is not given always does.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Matcher {
    /// One of these hosts.
    pub hosts: Vec<HostPattern>,
    /// This path.
    pub path: PathPattern,
    /// One of these methods.
    pub methods: Vec<Method>,
    /// All of these fields, with this value if there is one.
    pub headers: Vec<(HeaderName, Option<HeaderValue>)>,
    /// One of these listeners.
    pub listeners: Vec<String>,
}

impl Matcher {
    /// Whether all rules hold.
    pub fn matches(&self, seen: &Seen<'_>) -> bool {
        let host = without_port(seen.host);
        let listener = |name: &String| seen.listener == Some(name.as_str());
        (self.hosts.is_empty() || self.hosts.iter().any(|pattern| pattern.matches(host)))
            && self.path.matches(seen.path)
            && (self.methods.is_empty() || self.methods.contains(seen.method))
            && (self.listeners.is_empty() || self.listeners.iter().any(listener))
            && self.headers.iter().all(|(name, wanted)| has(seen.headers, name, wanted.as_ref()))
    }
}

fn has(headers: &HeaderMap, name: &HeaderName, wanted: Option<&HeaderValue>) -> bool {
    match wanted {
        None => headers.contains_key(name),
        Some(wanted) => headers.get_all(name).iter().any(|value| value == wanted),
    }
}

/// `example.org` of `example.org:8080`; an IPv6 address keeps its brackets.
fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.is_empty() => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(matcher: &Matcher, method: &str, host: &str, path: &str, fields: &[(&str, &str)]) -> bool {
        let field = |(name, value): &(&str, &str)| {
            (HeaderName::from_bytes(name.as_bytes()).unwrap(), HeaderValue::from_str(value).unwrap())
        };
        let headers: HeaderMap = fields.iter().map(field).collect();
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        matcher.matches(&Seen { host, path, method: &method, headers: &headers, listener: Some("public") })
    }

    #[test]
    fn without_rules_everything_matches() {
        assert!(matches(&Matcher::default(), "GET", "", "*", &[]));
    }

    #[test]
    fn hosts_match_by_name_or_below_a_name_whatever_their_case_and_port() {
        let hosts = ["shop.test", "*.api.test"].map(|it| HostPattern::parse(it).unwrap()).to_vec();
        let matcher = Matcher { hosts, ..Matcher::default() };
        for (host, expected) in [
            ("shop.test", true),
            ("SHOP.test:8080", true),
            ("x.api.test", true),
            ("x.y.API.test:1", true),
            ("api.test", false),
            (".api.test", false),
            ("xapi.test", false),
            ("shop.test.evil", false),
            ("", false),
        ] {
            assert_eq!(matches(&matcher, "GET", host, "/", &[]), expected, "{host}");
        }
        assert!(HostPattern::parse("a b").is_err() && HostPattern::parse("*.").is_err());
        assert!(HostPattern::parse("a.test:80").is_err() && HostPattern::parse("[::1]:80").is_err());
        assert_eq!(HostPattern::parse("[::1]"), Ok(HostPattern::Exact("[::1]".into())));
    }

    #[test]
    fn a_prefix_ends_at_a_segment() {
        let at = |prefix: &str| Matcher { path: PathPattern::Prefix(prefix.into()), ..Matcher::default() };
        for (prefix, path, expected) in [
            ("/api", "/api", true),
            ("/api", "/api/x", true),
            ("/api", "/apix", false),
            ("/api/", "/api/x", true),
            ("/api/", "/api", false),
            ("/", "/anything", true),
        ] {
            assert_eq!(matches(&at(prefix), "GET", "a", path, &[]), expected, "{prefix} {path}");
        }
        let exact = Matcher { path: PathPattern::Exact("/a".into()), ..Matcher::default() };
        assert!(matches(&exact, "GET", "a", "/a", &[]) && !matches(&exact, "GET", "a", "/a/", &[]));
    }

    #[test]
    fn methods_fields_and_listeners_must_all_fit() {
        let matcher = Matcher {
            methods: vec![Method::POST],
            headers: vec![
                (HeaderName::from_static("x-beta"), None),
                (HeaderName::from_static("x-kind"), Some(HeaderValue::from_static("a"))),
            ],
            listeners: vec!["public".into()],
            ..Matcher::default()
        };
        let both = [("x-beta", "1"), ("x-kind", "b"), ("x-kind", "a")];
        assert!(matches(&matcher, "POST", "a", "/", &both));
        assert!(!matches(&matcher, "GET", "a", "/", &both));
        assert!(!matches(&matcher, "POST", "a", "/", &both[1..]));
        assert!(!matches(&matcher, "POST", "a", "/", &both[..2]));
        let elsewhere = Matcher { listeners: vec!["inner".into()], ..Matcher::default() };
        assert!(!matches(&elsewhere, "GET", "a", "/", &[]));
    }

    #[test]
    fn an_ipv6_host_loses_only_its_port() {
        assert_eq!(without_port("[::1]:80"), "[::1]");
        assert_eq!(without_port("[::1]"), "[::1]");
    }
}
