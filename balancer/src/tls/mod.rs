//! Certificates and keys, of both sides. They are read when the configuration is, and
//! checked then.

mod client;
mod server;

use std::fmt;
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

pub use client::{BackendTls, BackendTlsSettings};
pub(crate) use server::acceptor;
pub use server::{ClientCertificates, TlsSettings};

/// The content of a PEM file. What it holds is never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem(Arc<[u8]>);

impl From<Vec<u8>> for Pem {
    fn from(bytes: Vec<u8>) -> Self {
        Self(bytes.into())
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Pem({} bytes)", self.0.len())
    }
}

/// A certificate with those that lead to its root, and its key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The certificate first, then the intermediate ones.
    pub chain: Pem,
    /// Its private key.
    pub key: Pem,
}

/// What is wrong with certificates or keys.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// The file holds no certificate.
    #[error("holds no certificate in PEM form")]
    NoCertificate,
    /// The file holds no private key.
    #[error("holds no private key in PEM form")]
    NoKey,
    /// The certificate cannot be used, or is not that of the key.
    #[error("cannot be used: {0}")]
    Unusable(#[source] rustls::Error),
    /// The names in the certificate cannot be read.
    #[error("is no certificate of a server: {0}")]
    Names(#[source] webpki::Error),
    /// The roots cannot be used.
    #[error("cannot be used to verify the other side: {0}")]
    Roots(String),
    /// The name is no name of a server.
    #[error("`{0}` is neither a host name nor an IP address")]
    Name(String),
}

impl Pem {
    fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let found: Vec<_> =
            CertificateDer::pem_slice_iter(&self.0).collect::<Result<_, _>>().unwrap_or_default();
        if found.is_empty() { Err(TlsError::NoCertificate) } else { Ok(found) }
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        PrivateKeyDer::from_pem_slice(&self.0).map_err(|_| TlsError::NoKey)
    }
}

impl Identity {
    /// The certificate with its key, and the names it is for.
    fn load(&self) -> Result<(Arc<CertifiedKey>, Vec<String>), TlsError> {
        let (chain, key) = (self.chain.certificates()?, self.key.key()?);
        let names = {
            let first = chain.first().ok_or(TlsError::NoCertificate)?;
            let certificate = webpki::EndEntityCert::try_from(first).map_err(TlsError::Names)?;
            certificate.valid_dns_names().map(str::to_ascii_lowercase).collect()
        };
        let certified =
            CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()).map_err(TlsError::Unusable)?;
        Ok((Arc::new(certified), names))
    }

    /// Checks that certificate and key can be used together.
    ///
    /// # Errors
    /// What is wrong with them.
    pub fn check(&self) -> Result<(), TlsError> {
        self.load().map(|_| ())
    }
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

/// The certificates of a file as roots to trust.
fn roots(pem: &Pem) -> Result<Arc<rustls::RootCertStore>, TlsError> {
    let mut store = rustls::RootCertStore::empty();
    for root in pem.certificates()? {
        store.add(root).map_err(TlsError::Unusable)?;
    }
    Ok(Arc::new(store))
}

#[cfg(test)]
fn test_identity(names: &[&str]) -> Identity {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let made = rcgen::generate_simple_self_signed(names).expect("a certificate");
    let key = made.signing_key.serialize_pem().into_bytes();
    Identity { chain: made.cert.pem().into_bytes().into(), key: key.into() }
}
