//! TLS towards clients: certificates by name (SNI), certificates of clients, resumption.
//!
//! Versions and ciphers are rustls' own: TLS 1.3 and 1.2 with forward secrecy, nothing
//! older. Sessions are resumed by tickets; data ahead of the handshake (0-RTT) is not
//! taken, because it can be replayed.

use std::collections::HashMap;
use std::sync::Arc;

use rustls::ServerConfig;
use rustls::crypto::aws_lc_rs;
use rustls::server::{ClientHello, NoClientAuth, ResolvesServerCert, WebPkiClientVerifier, danger};
use rustls::sign::CertifiedKey;

use super::{Identity, Pem, TlsError, provider, roots};

/// Whether clients have to show a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientCertificates {
    /// None is asked for.
    No,
    /// Without one signed by these roots there is no connection.
    Required(Pem),
}

/// What a listener needs for TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsSettings {
    /// One per set of names; the first is for clients that name none of them.
    pub identities: Vec<Identity>,
    /// Certificates of clients.
    pub clients: ClientCertificates,
}

impl ClientCertificates {
    fn verifier(&self) -> Result<Arc<dyn danger::ClientCertVerifier>, TlsError> {
        let Self::Required(pem) = self else { return Ok(Arc::new(NoClientAuth)) };
        let builder = WebPkiClientVerifier::builder_with_provider(roots(pem)?, provider());
        builder.build().map(|it| it as Arc<_>).map_err(|error| TlsError::Roots(error.to_string()))
    }

    /// Checks that the roots can be used.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check(&self) -> Result<(), TlsError> {
        self.verifier().map(|_| ())
    }
}

/// Certificates by name.
#[derive(Debug)]
struct ByName {
    exact: HashMap<String, Arc<CertifiedKey>>,
    /// `example.org` for a certificate of `*.example.org`.
    below: HashMap<String, Arc<CertifiedKey>>,
    default: Arc<CertifiedKey>,
}

impl ByName {
    fn new(identities: &[Identity]) -> Result<Self, TlsError> {
        let (mut exact, mut below, mut default) = (HashMap::new(), HashMap::new(), None);
        for identity in identities {
            let (certified, names) = identity.load()?;
            default.get_or_insert_with(|| Arc::clone(&certified));
            for name in names {
                let (map, name) = match name.strip_prefix("*.") {
                    Some(parent) => (&mut below, parent.to_owned()),
                    None => (&mut exact, name),
                };
                map.entry(name).or_insert_with(|| Arc::clone(&certified));
            }
        }
        Ok(Self { exact, below, default: default.ok_or(TlsError::NoCertificate)? })
    }

    fn get(&self, name: Option<&str>) -> &Arc<CertifiedKey> {
        let Some(name) = name else { return &self.default };
        let name = name.to_ascii_lowercase();
        let wild = || name.split_once('.').and_then(|(_, parent)| self.below.get(parent));
        self.exact.get(&name).or_else(wild).unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(self.get(hello.server_name())))
    }
}

/// Makes what connections are accepted with.
///
/// # Errors
/// [`TlsError`], if the settings were not checked before.
pub(crate) fn acceptor(settings: &TlsSettings, http2: bool) -> Result<Arc<ServerConfig>, TlsError> {
    let mut config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(TlsError::Unusable)?
        .with_client_cert_verifier(settings.clients.verifier()?)
        .with_cert_resolver(Arc::new(ByName::new(&settings.identities)?));
    config.alpn_protocols = if http2 { vec![b"h2".to_vec()] } else { Vec::new() };
    config.alpn_protocols.push(b"http/1.1".to_vec());
    config.ticketer = aws_lc_rs::Ticketer::new().map_err(TlsError::Unusable)?;
    // Each ticket is a record to encrypt and send; browsers use one of them.
    config.send_tls13_tickets = 1;
    Ok(Arc::new(config))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::test_identity as identity;
    use rustls::pki_types::CertificateDer;

    fn first(certified: &Arc<CertifiedKey>) -> CertificateDer<'static> {
        certified.cert[0].clone()
    }

    #[test]
    fn a_certificate_is_found_by_name_by_wildcard_or_is_the_first() {
        let identities = [identity(&["a.test"]), identity(&["b.test", "*.c.test"])];
        let by_name = ByName::new(&identities).unwrap();
        let of = |index: usize| identities[index].chain.certificates().unwrap()[0].clone();
        for (name, index) in [
            (Some("a.test"), 0),
            (Some("B.Test"), 1),
            (Some("x.c.test"), 1),
            (Some("x.y.c.test"), 0),
            (Some("c.test"), 0),
            (None, 0),
        ] {
            assert_eq!(first(by_name.get(name)), of(index), "{name:?}");
        }
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let mixed = Identity { chain: identity(&["a.test"]).chain, key: identity(&["a.test"]).key };
        assert!(matches!(mixed.check(), Err(TlsError::Unusable(_))));
    }

    #[test]
    fn files_that_hold_something_else_are_refused() {
        let (good, junk) = (identity(&["a.test"]), Pem::from(b"junk".to_vec()));
        let no_chain = Identity { chain: junk.clone(), key: good.key.clone() };
        let no_key = Identity { chain: good.chain, key: junk.clone() };
        assert!(matches!(no_chain.check(), Err(TlsError::NoCertificate)));
        assert!(matches!(no_key.check(), Err(TlsError::NoKey)));
        assert!(matches!(ClientCertificates::Required(junk).check(), Err(TlsError::NoCertificate)));
    }

    #[test]
    fn a_key_is_never_shown() {
        assert_eq!(format!("{:?}", Pem::from(b"secret".to_vec())), "Pem(6 bytes)");
    }
}
