//! Who is who on the control network: each end shows a certificate of the cluster's own authority, and
//! its name in there says what it may do.
//!
//! ```text
//!   master.sfmd.flurry     SFMD, which hosts and operators connect to
//!   NAME.sfld.flurry       the host NAME: it may report for itself, and for nobody else
//!   NAME.sf.flurry         an operator or a balancer: it may ask
//! ```

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::version::TLS13;
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use webpki::EndEntityCert;

use super::ids::Name;

mod make;

#[cfg(test)]
pub(super) use make::make_between;
pub use make::{MakeError, make};

/// What a certificate's name lets its holder do.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// SFMD.
    Master,
    /// SFLD of this host.
    Host(Name),
    /// Someone who asks.
    Operator(Name),
}

impl Role {
    /// The DNS name in its certificate.
    #[must_use]
    pub fn dns_name(&self) -> String {
        match self {
            Self::Master => "master.sfmd.flurry".into(),
            Self::Host(name) => format!("{name}.sfld.flurry"),
            Self::Operator(name) => format!("{name}.sf.flurry"),
        }
    }

    /// The role with this DNS name.
    #[must_use]
    pub fn of_dns_name(dns_name: &str) -> Option<Self> {
        let (name, kind) = dns_name.strip_suffix(".flurry")?.split_once('.')?;
        let name: Name = name.parse().ok()?;
        match kind {
            "sfmd" if name.as_str() == "master" => Some(Self::Master),
            "sfld" => Some(Self::Host(name)),
            "sf" => Some(Self::Operator(name)),
            _ => None,
        }
    }

    /// What its files are called, without the ending.
    #[must_use]
    pub fn file_stem(&self) -> String {
        match self {
            Self::Master => "sfmd".into(),
            Self::Host(name) => format!("host-{name}"),
            Self::Operator(name) => format!("operator-{name}"),
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Master => f.write_str("sfmd"),
            Self::Host(name) => write!(f, "host {name}"),
            Self::Operator(name) => write!(f, "operator {name}"),
        }
    }
}

/// Why certificates cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// A file is missing or not what it should be.
    #[error(
        "{}: no {what} can be read from it: {why}; `sfmd certificates` makes such files", path.display()
    )]
    File {
        /// The file.
        path: PathBuf,
        /// What should be in it.
        what: &'static str,
        /// The reason.
        why: String,
    },
    /// Certificate and key do not belong together, or the authority is no authority.
    #[error("the certificate {} cannot be used", path.display())]
    Unusable {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: rustls::Error,
    },
    /// The names in it mean nothing here.
    #[error(
        "the certificate is for {0:?}; a name such as HOST.sfld.flurry, OPERATOR.sf.flurry or master.sfmd.flurry is needed"
    )]
    NoRole(Vec<String>),
}

/// Where the files are.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CertificateFiles {
    /// Certificate of the cluster's authority.
    pub authority: PathBuf,
    /// The own certificate.
    pub certificate: PathBuf,
    /// The own key.
    pub key: PathBuf,
}

impl CertificateFiles {
    /// As `sfmd certificates` names them.
    #[must_use]
    pub fn within(folder: &Path, role: &Role) -> Self {
        let stem = role.file_stem();
        Self {
            authority: folder.join("authority.pem"),
            certificate: folder.join(format!("{stem}.pem")),
            key: folder.join(format!("{stem}.key")),
        }
    }
}

/// An own certificate with its key, and whom to trust.
#[derive(Debug)]
pub struct Credentials {
    files: CertificateFiles,
    roots: Arc<RootCertStore>,
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

impl Credentials {
    /// Reads the files.
    ///
    /// # Errors
    /// One of them is missing or damaged.
    pub fn load(files: &CertificateFiles) -> Result<Self, CertificateError> {
        let mut roots = RootCertStore::empty();
        for certificate in certificates(&files.authority)? {
            roots
                .add(certificate)
                .map_err(|source| CertificateError::Unusable { path: files.authority.clone(), source })?;
        }
        let chain = certificates(&files.certificate)?;
        let key = PrivateKeyDer::from_pem_file(&files.key).map_err(|error| CertificateError::File {
            path: files.key.clone(),
            what: "key",
            why: error.to_string(),
        })?;
        Ok(Self { files: files.clone(), roots: Arc::new(roots), chain, key })
    }

    /// Who this is.
    ///
    /// # Errors
    /// The certificate has no name that means anything here.
    pub fn role(&self) -> Result<Role, CertificateError> {
        role_of(&self.chain)
    }

    /// The TLS side of SFMD: whoever connects must show a certificate.
    ///
    /// # Errors
    /// Key and certificate do not belong together, or the authority is empty.
    pub fn server(&self) -> Result<Arc<ServerConfig>, CertificateError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let roots = Arc::clone(&self.roots);
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&provider))
            .build()
            .map_err(|error| self.unusable(rustls::Error::General(error.to_string())))?;
        let config = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| self.unusable(error))?
            .with_client_cert_verifier(verifier)
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|error| self.unusable(error))?;
        Ok(Arc::new(config))
    }

    /// The TLS side of whoever connects to SFMD.
    ///
    /// # Errors
    /// As for [`Credentials::server`].
    pub fn client(&self) -> Result<Arc<ClientConfig>, CertificateError> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&TLS13])
            .map_err(|error| self.unusable(error))?
            .with_root_certificates(Arc::clone(&self.roots))
            .with_client_auth_cert(self.chain.clone(), self.key.clone_key())
            .map_err(|error| self.unusable(error))?;
        Ok(Arc::new(config))
    }

    fn unusable(&self, source: rustls::Error) -> CertificateError {
        CertificateError::Unusable { path: self.files.certificate.clone(), source }
    }
}

/// All certificates of a file, at least one.
fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, CertificateError> {
    let wrong = |why: String| CertificateError::File { path: path.to_owned(), what: "certificate", why };
    let read = CertificateDer::pem_file_iter(path).map_err(|error| wrong(error.to_string()))?;
    let all = read.collect::<Result<Vec<_>, _>>().map_err(|error| wrong(error.to_string()))?;
    if all.is_empty() { Err(wrong("it holds none".into())) } else { Ok(all) }
}

/// The role that a chain of certificates, its holder's first, stands for.
///
/// # Errors
/// No name in it is one of a role.
pub fn role_of(chain: &[CertificateDer<'_>]) -> Result<Role, CertificateError> {
    let holder = chain.first().and_then(|der| EndEntityCert::try_from(der).ok());
    let names: Vec<String> =
        holder.iter().flat_map(|holder| holder.valid_dns_names().map(str::to_owned)).collect();
    let role = names.iter().find_map(|name| Role::of_dns_name(name));
    role.ok_or(CertificateError::NoRole(names))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_role_and_its_dns_name_stand_for_each_other() {
        let name: Name = "rack-3".parse().unwrap();
        for role in [Role::Master, Role::Host(name.clone()), Role::Operator(name)] {
            assert_eq!(Role::of_dns_name(&role.dns_name()), Some(role));
        }
        for other in ["flurry", "sfld.flurry", "a.b.sfld.flurry", "slave.sfmd.flurry", "a.sfld.example"] {
            assert_eq!(Role::of_dns_name(other), None, "{other}");
        }
    }

    #[test]
    fn a_missing_file_is_named_with_the_command_that_makes_it() {
        let files = CertificateFiles::within(Path::new("/nonexistent"), &Role::Master);
        let said = Credentials::load(&files).unwrap_err().to_string();
        assert!(said.contains("/nonexistent/authority.pem") && said.contains("sfmd certificates"), "{said}");
    }

    #[test]
    fn files_that_hold_something_else_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let role = Role::Master;
        make(folder.path(), std::slice::from_ref(&role), 1).unwrap();
        let files = CertificateFiles::within(folder.path(), &role);
        std::fs::write(&files.certificate, "nothing of the kind").unwrap();
        let said = Credentials::load(&files).unwrap_err().to_string();
        assert!(said.contains("sfmd.pem") && said.contains("it holds none"), "{said}");
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let other = Role::Operator("ann".parse().unwrap());
        make(folder.path(), &[Role::Master, other.clone()], 1).unwrap();
        let mut files = CertificateFiles::within(folder.path(), &Role::Master);
        files.key = CertificateFiles::within(folder.path(), &other).key;
        let error = Credentials::load(&files).unwrap().server().unwrap_err();
        assert!(matches!(error, CertificateError::Unusable { .. }), "{error}");
    }
}
