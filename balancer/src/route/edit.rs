//! What a route changes in heads: fields, path, host; and the targets of redirects.

use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderName, HeaderValue, Uri, request};

/// Changes to header fields, in this order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct HeaderEdits {
    /// Fields to take out.
    pub remove: Vec<HeaderName>,
    /// Fields to replace, or to add if they are absent.
    pub set: Vec<(HeaderName, HeaderValue)>,
    /// Fields to add to those of the same name.
    pub add: Vec<(HeaderName, HeaderValue)>,
}

impl HeaderEdits {
    /// Makes the changes.
    pub fn apply(&self, headers: &mut HeaderMap) {
        for name in &self.remove {
            headers.remove(name);
        }
        for (name, value) in &self.set {
            headers.insert(name.clone(), value.clone());
        }
        for (name, value) in &self.add {
            headers.append(name.clone(), value.clone());
        }
    }
}

/// What backends see instead of what the client asked for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Rewrite {
    /// The beginning of the path, and what stands there instead.
    pub prefix: Option<(String, String)>,
    /// The host.
    pub host: Option<HeaderValue>,
}

impl Rewrite {
    /// Makes the changes. A path that would not be one is left as it was.
    pub fn apply(&self, parts: &mut request::Parts) {
        if let Some(host) = &self.host {
            parts.headers.insert(HOST, host.clone());
        }
        if let Some(path) = self.prefix.as_ref().and_then(|(from, to)| replaced(&parts.uri, from, to)) {
            parts.uri = Uri::from(path);
        }
    }
}

fn replaced(uri: &Uri, from: &str, to: &str) -> Option<PathAndQuery> {
    let rest = uri.path().strip_prefix(from)?;
    let slash = if to.ends_with('/') || rest.starts_with('/') || rest.is_empty() { "" } else { "/" };
    let rest = if to.ends_with('/') { rest.trim_start_matches('/') } else { rest };
    let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
    format!("{to}{slash}{rest}{query}").parse().ok()
}

/// The target of a redirect, in which `{host}` and `{path}` (with its query) are replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(String);

impl Template {
    /// Reads a template; what it makes must be able to stand in a header field.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let template = Self(text.to_owned());
        let made = template.fill("example.org", "/");
        let rest = made.as_deref().unwrap_or("{");
        if text.is_empty() || rest.contains('{') {
            return Err(format!("must be a URL in which {{host}} and {{path}} may stand, got `{text}`"));
        }
        Ok(template)
    }

    /// The target for a request. `None` if it cannot stand in a header field.
    pub fn fill(&self, host: &str, path: &str) -> Option<String> {
        // One pass, so that nothing a client sends is taken for a placeholder.
        let mut made = String::with_capacity(self.0.len() + host.len() + path.len());
        let mut rest = self.0.as_str();
        while let Some(at) = rest.find('{') {
            let (before, from) = rest.split_at(at);
            made.push_str(before);
            let (length, value) = match () {
                () if from.starts_with("{host}") => ("{host}".len(), host),
                () if from.starts_with("{path}") => ("{path}".len(), path),
                () => (1, "{"),
            };
            made.push_str(value);
            rest = &from[length..];
        }
        made.push_str(rest);
        HeaderValue::from_str(&made).is_ok().then_some(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewritten(prefix: (&str, &str), uri: &str) -> String {
        let (mut parts, ()) = http::Request::get(uri).body(()).unwrap().into_parts();
        let prefix = Some((prefix.0.to_owned(), prefix.1.to_owned()));
        Rewrite { prefix, host: None }.apply(&mut parts);
        parts.uri.to_string()
    }

    #[test]
    fn a_prefix_is_replaced_and_the_rest_and_the_query_stay() {
        assert_eq!(rewritten(("/api", "/"), "/api/x?y=1"), "/x?y=1");
        assert_eq!(rewritten(("/api", "/"), "/api"), "/");
        assert_eq!(rewritten(("/api", "/v2"), "/api/x"), "/v2/x");
        assert_eq!(rewritten(("/api/", "/v2"), "/api/x"), "/v2/x");
        assert_eq!(rewritten(("/other", "/v2"), "/api/x"), "/api/x");
    }

    #[test]
    fn fields_are_removed_replaced_and_added() {
        let mut headers = HeaderMap::new();
        headers.append("x-a", HeaderValue::from_static("1"));
        headers.append("x-b", HeaderValue::from_static("1"));
        let (a, b, c) = (HeaderName::from_static("x-a"), HeaderName::from_static("x-b"), "2");
        let value = HeaderValue::from_static(c);
        let edits = HeaderEdits { remove: vec![a.clone()], set: vec![], add: vec![(b.clone(), value)] };
        edits.apply(&mut headers);
        assert!(!headers.contains_key(a));
        assert_eq!(headers.get_all(b).iter().count(), 2);
    }

    #[test]
    fn templates_take_host_and_path_and_nothing_that_clients_send_is_one() {
        let template = Template::parse("https://{host}{path}").unwrap();
        assert_eq!(template.fill("a.test", "/x?{host}").unwrap(), "https://a.test/x?{host}");
        assert!(Template::parse("https://{where}").is_err());
        assert!(Template::parse("a\nb").is_err() && Template::parse("").is_err());
    }
}
