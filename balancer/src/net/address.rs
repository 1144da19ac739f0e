//! Where something listens.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

/// An IP address with a port, or a unix socket.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Address {
    /// An IP address and a port.
    Tcp(SocketAddr),
    /// The path of a unix socket.
    Unix(PathBuf),
}

impl Address {
    /// The IP address and port, if it has them.
    pub fn tcp(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(address) => Some(*address),
            Self::Unix(_) => None,
        }
    }

    /// The file of a unix socket goes, when nobody listens there any more.
    pub(crate) fn remove_file(&self) {
        if let Self::Unix(path) = self {
            // A file that is gone already is what was wanted.
            let _ = std::fs::remove_file(path);
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<SocketAddr> for Address {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

impl FromStr for Address {
    type Err = String;

    /// `127.0.0.1:80`, `[::1]:80`, or `unix:/absolute/path`.
    fn from_str(text: &str) -> Result<Self, String> {
        /// Longest path that fits the kernel's address of a unix socket.
        const LONGEST: usize = 107;
        let Some(path) = text.strip_prefix("unix:") else {
            return text
                .parse()
                .map(Self::Tcp)
                .map_err(|_| format!("must be an IP address with a port, got `{text}`"));
        };
        if !path.starts_with('/') || path.len() > LONGEST {
            return Err(format!("must be an absolute path of at most {LONGEST} bytes, got `{path}`"));
        }
        Ok(Self::Unix(path.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_shown_as_they_are_written() {
        for text in ["127.0.0.1:80", "[::1]:8080", "unix:/run/flurry/web.sock"] {
            assert_eq!(text.parse::<Address>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn names_and_relative_paths_are_refused() {
        let long = format!("unix:/{}", "x".repeat(107));
        for text in ["localhost:80", "127.0.0.1", "unix:web.sock", "unix:", &long] {
            assert!(text.parse::<Address>().is_err(), "{text}");
        }
    }
}
