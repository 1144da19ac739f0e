//! `tls` of listeners and of backends: files become certificates and keys that work.

use scaler::yaml::{Entry, Section};

use super::Surroundings;
use crate::tls::{BackendTlsSettings, ClientCertificates, Identity, Pem, TlsSettings};

const CHAIN: &str = "give a PEM file with the certificate first and then those that lead to its root";
const KEY: &str = "give the PEM file with the private key of the certificate";
const ROOTS: &str = "give a PEM file with the root certificates to trust";

/// Reads the section `tls` of a listener.
pub(super) fn read_server(section: &mut Section<'_>, surroundings: &Surroundings<'_>) -> Option<TlsSettings> {
    let entries = section
        .list("certificates", "give a list of {chain, key}, e.g. [{chain: web.pem, key: web.key}]")
        .not_empty()
        .required();
    let one = |entry: Entry<'_>| entry.section(|section| identity(section, surroundings));
    let identities: Option<Vec<Identity>> = entries.map(|all| all.into_iter().map(one).collect())?;
    let clients = section.optional_section("client_certificates", |section| clients(section, surroundings));
    let clients = clients.map_or(Some(ClientCertificates::No), |read| read);
    Some(TlsSettings { identities: identities?, clients: clients? })
}

/// Reads a certificate with its key, and checks that they belong together.
fn identity(section: &mut Section<'_>, surroundings: &Surroundings<'_>) -> Option<Identity> {
    let (chain, key) = (pem(section, "chain", CHAIN, surroundings), pem(section, "key", KEY, surroundings));
    let identity = Identity { chain: chain?, key: key? };
    match identity.check() {
        Ok(()) => Some(identity),
        Err(error) => {
            section.complain("", error.to_string(), "give a certificate and its own key, both in PEM form");
            None
        }
    }
}

fn clients(section: &mut Section<'_>, surroundings: &Surroundings<'_>) -> Option<ClientCertificates> {
    let clients = ClientCertificates::Required(pem(section, "roots", ROOTS, surroundings)?);
    match clients.check() {
        Ok(()) => Some(clients),
        Err(error) => {
            section.complain("roots", error.to_string(), ROOTS);
            None
        }
    }
}

/// Reads the section `tls` of backends.
pub(super) fn read_client(
    section: &mut Section<'_>,
    surroundings: &Surroundings<'_>,
) -> Option<BackendTlsSettings> {
    let name = section
        .string("name", "give the name in the certificate of the backends, e.g. app.internal")
        .not_empty()
        .required();
    let verify = section.bool("verify", "give false to believe any certificate").or(true);
    let roots_given = section.has("roots");
    let roots = roots_given.then(|| pem(section, "roots", ROOTS, surroundings)).flatten();
    if verify && !roots_given {
        section.complain("roots", "is missing", format!("{ROOTS}, or `verify: false` to believe anyone"));
    }
    if !verify && roots_given {
        section.complain("roots", "has no effect with `verify: false`", "remove one of them");
    }
    let identity =
        section.optional_section("certificate", |section| identity(section, surroundings)).flatten();
    let settings = BackendTlsSettings { roots: roots.filter(|_| verify), name: name?, identity };
    match settings.build(false) {
        Ok(_) => Some(settings),
        Err(error) => {
            section.complain("", error.to_string(), "correct the name or the files");
            None
        }
    }
}

/// The content of a file.
fn pem(section: &mut Section<'_>, key: &str, remedy: &str, surroundings: &Surroundings<'_>) -> Option<Pem> {
    let read = |path: std::path::PathBuf| {
        let path = surroundings.folder.join(path);
        (surroundings.read)(&path).map_err(|error| format!("cannot read {}: {error}", path.display()))
    };
    section.path_buf(key, remedy).try_map(read).required().map(Pem::from)
}
