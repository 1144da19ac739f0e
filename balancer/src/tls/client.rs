//! TLS towards backends.

use std::sync::Arc;

use rustls::ClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};

use super::{Identity, Pem, TlsError, provider, roots};

/// How backends prove who they are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BackendTlsSettings {
    /// The roots that sign their certificates; `None` to believe anyone.
    pub roots: Option<Pem>,
    /// The name that is asked for (SNI) and must be in the certificate.
    pub name: String,
    /// What we show if they ask who we are.
    pub identity: Option<Identity>,
}

/// What connections to backends are made with.
#[derive(Debug, Clone)]
pub struct BackendTls {
    /// Versions, roots, sessions to resume.
    pub config: Arc<ClientConfig>,
    /// The name that is asked for.
    pub name: ServerName<'static>,
}

impl BackendTlsSettings {
    /// Makes what connections are made with; `http2` is what is offered.
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub fn build(&self, http2: bool) -> Result<BackendTls, TlsError> {
        let name = ServerName::try_from(self.name.clone()).map_err(|_| TlsError::Name(self.name.clone()))?;
        let builder = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(TlsError::Unusable)?;
        let builder = match &self.roots {
            Some(pem) => builder.with_root_certificates(roots(pem)?),
            None => builder.dangerous().with_custom_certificate_verifier(Arc::new(Anyone(provider()))),
        };
        let mut config = match &self.identity {
            None => builder.with_no_client_auth(),
            Some(identity) => builder
                .with_client_auth_cert(identity.chain.certificates()?, identity.key.key()?)
                .map_err(TlsError::Unusable)?,
        };
        config.alpn_protocols = vec![if http2 { b"h2".to_vec() } else { b"http/1.1".to_vec() }];
        Ok(BackendTls { config: Arc::new(config), name })
    }
}

/// Believes any certificate, as long as the backend has its key: `verify: false`.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _certificate: &CertificateDer<'_>,
        _chain: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::test_identity;

    #[test]
    fn a_name_that_is_none_is_refused() {
        let settings = BackendTlsSettings { roots: None, name: "not a name".to_owned(), identity: None };
        assert!(matches!(settings.build(false), Err(TlsError::Name(_))));
    }

    #[test]
    fn roots_and_an_identity_can_be_given() {
        let identity = test_identity(&["backend.test"]);
        let roots = Some(identity.chain.clone());
        let settings =
            BackendTlsSettings { roots, name: "backend.test".to_owned(), identity: Some(identity) };
        assert_eq!(settings.build(true).unwrap().config.alpn_protocols, [b"h2".to_vec()]);
    }
}
