//! Where CONNECT may lead: names with ports, as patterns.

use std::net::IpAddr;

use http::uri::Authority;
use ipnet::IpNet;

/// Any name or any port.
const ANY: &str = "*";

/// Where CONNECT may lead by a route.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Targets {
    /// What may be asked for.
    pub to: Vec<TargetPattern>,
    /// Networks that may be dialled though they are not the world's.
    pub networks: Vec<IpNet>,
}

/// A pattern of targets: `db.internal:5432`, `*.example.org:443`, `[::1]:*`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TargetPattern {
    host: Host,
    /// `None` for any.
    port: Option<u16>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Host {
    Any,
    /// A name or an address, in lower case.
    Exact(String),
    /// Names that end so, the dot included.
    Below(String),
}

impl TargetPattern {
    /// Reads a pattern.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || format!("must be a host and a port, got `{text}`");
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = match port {
            ANY => None,
            number => Some(number.parse().ok().filter(|it| *it != 0).ok_or_else(wrong)?),
        };
        let plain =
            |host: &str| !host.contains(ANY) && host.parse::<Authority>().is_ok_and(|it| it.host() == host);
        let host = match (host, host.strip_prefix('*')) {
            (ANY, _) => Host::Any,
            (_, Some(rest)) if rest.starts_with('.') && plain(&rest[1..]) => {
                Host::Below(rest.to_ascii_lowercase())
            }
            (host, None) if plain(host) => Host::Exact(host.to_ascii_lowercase()),
            _ => return Err(wrong()),
        };
        Ok(Self { host, port })
    }

    /// The address that it names, if it names one.
    pub fn address(&self) -> Option<IpAddr> {
        match &self.host {
            Host::Exact(host) => host.trim_matches(['[', ']']).parse().ok(),
            Host::Any | Host::Below(_) => None,
        }
    }

    /// Whether it is for a target.
    pub(crate) fn fits(&self, host: &str, port: u16) -> bool {
        let host = host.to_ascii_lowercase();
        let fits = match &self.host {
            Host::Any => true,
            Host::Exact(wanted) => host == *wanted,
            Host::Below(end) => host.len() > end.len() && host.ends_with(end),
        };
        fits && self.port.is_none_or(|wanted| wanted == port)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_for_the_hosts_and_ports_that_they_name() {
        for (pattern, fits, others) in [
            (
                "db.internal:5432",
                &[("DB.internal", 5432)][..],
                &[("db.internal", 5433), ("x.db.internal", 5432)][..],
            ),
            (
                "*.example.org:443",
                &[("a.b.example.org", 443)],
                &[("example.org", 443), ("badexample.org", 443)],
            ),
            ("*:22", &[("x", 22), ("[::1]", 22)], &[("x", 23)]),
            ("[::1]:*", &[("[::1]", 9)], &[("[::2]", 9)]),
        ] {
            let pattern = TargetPattern::parse(pattern).unwrap();
            assert!(fits.iter().all(|(host, port)| pattern.fits(host, *port)), "{pattern:?}");
            assert!(!others.iter().any(|(host, port)| pattern.fits(host, *port)), "{pattern:?}");
        }
    }

    #[test]
    fn what_names_no_host_and_port_is_refused() {
        for bad in ["", "a", "a:", "a:0", "a:70000", "a:http", ":1", "a*:1", "*a:1", "*.:1", "u@a:1", "a/b:1"]
        {
            assert!(TargetPattern::parse(bad).is_err(), "{bad}");
        }
    }
}
