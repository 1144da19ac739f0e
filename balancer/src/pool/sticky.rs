//! Clients that stick to a backend by a cookie.
//!
//! The cookie's value is a keyed digest of the backend's name and address: it tells a client
//! nothing, nobody can make one up, and Flurry remembers nothing. With a secret of its own the
//! value is good for one run of one process; with one from a file it outlives restarts and is
//! the same on every host that has the file.

use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use aws_lc_rs::hmac;
use aws_lc_rs::rand;

use super::Pool;
use super::backend::Backend;

/// Bytes of a digest that stand in a cookie: nobody guesses 128 bits.
const BYTES: usize = 16;

/// What digests are made with. It is shown to nobody.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Arc<[u8]>);

impl Secret {
    /// Fewest bytes of a secret.
    pub const SHORTEST: usize = 16;

    /// A secret from somewhere; `None` if it is too short.
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.trim_ascii();
        (bytes.len() >= Self::SHORTEST).then(|| Self(bytes.into()))
    }

    /// One that nobody else has.
    pub(super) fn random() -> io::Result<Self> {
        let mut bytes = [0; 32];
        rand::fill(&mut bytes).map_err(|_| io::Error::other("the system gives no random bytes"))?;
        Ok(Self(Arc::from(bytes)))
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Which requests of other sites a browser sends the cookie with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SameSite {
    /// None.
    Strict,
    /// Only those by which the user comes here.
    #[default]
    Lax,
    /// All; browsers want TLS for it.
    None,
}

impl SameSite {
    fn word(self) -> &'static str {
        match self {
            Self::Strict => "Strict",
            Self::Lax => "Lax",
            Self::None => "None",
        }
    }
}

/// How clients stick to backends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StickySettings {
    /// The name of the cookie.
    pub cookie: Arc<str>,
    /// What values are made with; without one, a secret of this process.
    pub secret: Option<Secret>,
    /// How long browsers keep it; `None` for as long as they run.
    pub max_age: Option<Duration>,
    /// Which requests of other sites it comes with.
    pub same_site: SameSite,
}

impl StickySettings {
    /// The value for a backend.
    pub(super) fn token(&self, own: &Secret, backend: &Backend) -> String {
        let secret = self.secret.as_ref().unwrap_or(own);
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret.0);
        let digest = hmac::sign(&key, format!("{}\n{}", backend.id(), backend.address()).as_bytes());
        digest.as_ref()[..BYTES].iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// The field by which a client is told a value.
    fn set_cookie(&self, token: &str, over_tls: bool) -> String {
        let mut field = format!("{}={token}; Path=/; HttpOnly", self.cookie);
        if let Some(age) = self.max_age {
            field.push_str(&format!("; Max-Age={}", age.as_secs()));
        }
        if over_tls {
            field.push_str("; Secure");
        }
        field.push_str("; SameSite=");
        field.push_str(self.same_site.word());
        field
    }
}

impl Backend {
    /// The field that makes a client stick to it.
    pub(crate) fn sticky_cookie(&self, settings: &StickySettings, over_tls: bool) -> Option<String> {
        self.token().load().as_ref().map(|token| settings.set_cookie(token, over_tls))
    }
}

impl Pool {
    /// How clients stick to backends, if they do.
    #[inline]
    pub(crate) fn sticky(&self) -> Option<Arc<StickySettings>> {
        self.0.settings.load().sticky.clone()
    }

    /// The ready backend whose value this is.
    pub(crate) fn holder(&self, token: &[u8]) -> Option<Arc<Backend>> {
        let snapshot = self.0.snapshot.load();
        let is_its = |own: &Option<Arc<String>>| own.as_ref().is_some_and(|own| own.as_bytes() == token);
        snapshot.ready.iter().find(|backend| is_its(&backend.token().load())).cloned()
    }

    /// Gives a backend the value that its clients show.
    pub(super) fn give_token(&self, backend: &Backend, sticky: Option<&StickySettings>) {
        let make =
            || Secret::random().inspect_err(|error| tracing::error!(%error, "no client will stick")).ok();
        let token = sticky.and_then(|it| {
            let own = self.0.secret.get_or_init(make).as_ref()?;
            Some(Arc::new(it.token(own, backend)))
        });
        backend.token().store(token);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::test_backend;

    fn settings(secret: Option<&[u8]>) -> StickySettings {
        let secret = secret.map(|it| Secret::new(it).unwrap());
        StickySettings { cookie: "at".into(), secret, max_age: None, same_site: SameSite::Lax }
    }

    #[test]
    fn a_value_depends_on_backend_and_secret_and_on_nothing_else() {
        let (own, a, b) = (Secret::random().unwrap(), test_backend(1, None), test_backend(2, None));
        let token = |settings: &StickySettings, backend| settings.token(&own, backend);
        let (mine, theirs) = (settings(None), settings(Some(b"0123456789abcdef")));
        assert_eq!(token(&mine, &a), token(&mine, &a));
        assert_ne!(token(&mine, &a), token(&mine, &b));
        assert_ne!(token(&mine, &a), token(&theirs, &a));
        let other = Secret::random().unwrap();
        assert_eq!(theirs.token(&other, &a), token(&theirs, &a), "the same on every host with the file");
        assert_eq!(token(&mine, &a).len(), 2 * BYTES);
    }

    #[test]
    fn a_short_secret_is_none_and_a_long_one_is_not_shown() {
        assert!(Secret::new(b" 0123456789abcde\n").is_none());
        let secret = Secret::new(b"0123456789abcdef\n").unwrap();
        assert_eq!(secret, Secret::new(b"0123456789abcdef").unwrap());
        assert_eq!(format!("{secret:?}"), "Secret");
    }

    #[test]
    fn the_cookie_is_out_of_reach_of_scripts_and_bound_to_tls_if_there_is_any() {
        let mut settings = settings(None);
        assert_eq!(settings.set_cookie("ab", false), "at=ab; Path=/; HttpOnly; SameSite=Lax");
        (settings.max_age, settings.same_site) = (Some(Duration::from_secs(3600)), SameSite::Strict);
        let field = settings.set_cookie("ab", true);
        assert_eq!(field, "at=ab; Path=/; HttpOnly; Max-Age=3600; Secure; SameSite=Strict");
    }
}
