//! Makes the cluster's authority and certificates of it: `sfmd certificates`.
//!
//! The authority's key stays in the folder, so that further hosts can be added. Whoever has it can be any
//! host; it need not be on any of them.

use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use time::{Duration, OffsetDateTime};

use super::{CertificateFiles, Role};

/// The authority outlives the certificates that it signs.
const AUTHORITY_DAYS: i64 = 3650;
/// Clocks of hosts may differ by so much.
const CLOCK_SKEW: Duration = Duration::hours(1);
const AUTHORITY_NAME: &str = "flurry cluster authority";

/// Why certificates were not made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// A file cannot be read or written.
    #[error("{}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        source: io::Error,
    },
    /// The authority's key is not one, or signing failed.
    #[error("cannot sign with the authority's key {}", path.display())]
    Sign {
        /// The key's file.
        path: PathBuf,
        /// The reason.
        source: rcgen::Error,
    },
}

/// Makes files for these roles, each valid from an hour ago for so many days, and an authority if the
/// folder has none yet. Files of a role that exist are replaced.
///
/// # Errors
/// See [`MakeError`].
pub fn make(folder: &Path, roles: &[Role], days: u32) -> Result<(), MakeError> {
    let now = OffsetDateTime::now_utc();
    make_between(folder, roles, now - CLOCK_SKEW, now + Duration::days(days.into()))
}

/// The same for any time of validity.
pub(in crate::hosts) fn make_between(
    folder: &Path,
    roles: &[Role],
    from: OffsetDateTime,
    until: OffsetDateTime,
) -> Result<(), MakeError> {
    fs::create_dir_all(folder).map_err(|source| MakeError::File { path: folder.to_owned(), source })?;
    let key_path = folder.join("authority.key");
    let sign = |source| MakeError::Sign { path: key_path.clone(), source };
    let params = authority_params(from.min(OffsetDateTime::now_utc() - CLOCK_SKEW));
    let key = match fs::read_to_string(&key_path) {
        Ok(text) => KeyPair::from_pem(&text).map_err(sign)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => new_authority(folder, &key_path, &params)?,
        // It may well be one: it must not be replaced, or no host trusts another any more.
        Err(source) => return Err(MakeError::File { path: key_path, source }),
    };
    let issuer = Issuer::from_params(&params, key);
    for role in roles {
        let files = CertificateFiles::within(folder, role);
        let key = KeyPair::generate().map_err(sign)?;
        let mut params = CertificateParams::new([role.dns_name()]).map_err(sign)?;
        params.distinguished_name.push(DnType::CommonName, role.dns_name());
        (params.not_before, params.not_after) = (from, until);
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.use_authority_key_identifier_extension = true;
        let certificate = params.signed_by(&key, &issuer).map_err(sign)?;
        write(&files.key, &key.serialize_pem(), 0o600)?;
        write(&files.certificate, &certificate.pem(), 0o644)?;
    }
    Ok(())
}

fn authority_params(from: OffsetDateTime) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, AUTHORITY_NAME);
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (params.not_before, params.not_after) = (from, from + Duration::days(AUTHORITY_DAYS));
    params
}

fn new_authority(folder: &Path, key_path: &Path, params: &CertificateParams) -> Result<KeyPair, MakeError> {
    let sign = |source| MakeError::Sign { path: key_path.to_owned(), source };
    let key = KeyPair::generate().map_err(sign)?;
    let certificate = params.self_signed(&key).map_err(sign)?;
    // The key last: it is the sign that there is an authority.
    write(&folder.join("authority.pem"), &certificate.pem(), 0o644)?;
    write(key_path, &key.serialize_pem(), 0o600)?;
    Ok(key)
}

/// A key must never be readable by others, not even between two steps: nothing that was there before is
/// written into.
fn write(path: &Path, text: &str, mode: u32) -> Result<(), MakeError> {
    let new = path.with_extension("new");
    write_into_place(&new, path, text, mode)
        .map_err(|source| MakeError::File { path: path.to_owned(), source })
}

fn write_into_place(new: &Path, path: &Path, text: &str, mode: u32) -> io::Result<()> {
    match fs::remove_file(new) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(mode).open(new)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn keys_are_for_their_owner_only_and_a_second_call_keeps_the_authority() {
        let folder = tempfile::tempdir().unwrap();
        make(folder.path(), &[Role::Master], 1).unwrap();
        let authority = fs::read(folder.path().join("authority.pem")).unwrap();
        let host = Role::Host("h1".parse().unwrap());
        make(folder.path(), std::slice::from_ref(&host), 1).unwrap();
        assert_eq!(fs::read(folder.path().join("authority.pem")).unwrap(), authority);
        for key in ["authority.key", "sfmd.key", "host-h1.key"] {
            let mode = fs::metadata(folder.path().join(key)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{key}");
        }
    }

    #[test]
    fn a_damaged_authority_key_is_named_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("authority.key");
        fs::write(&key, "damaged").unwrap();
        let error = make(folder.path(), &[Role::Master], 1).unwrap_err();
        assert!(error.to_string().contains("authority.key"), "{error}");
        assert_eq!(fs::read_to_string(&key).unwrap(), "damaged");
    }

    #[test]
    fn an_authority_key_that_cannot_be_read_is_not_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let key = folder.path().join("authority.key");
        fs::write(&key, [0xff, 0xfe]).unwrap();
        let error = make(folder.path(), &[Role::Master], 1).unwrap_err();
        assert!(
            matches!(error, MakeError::File { .. }) && error.to_string().contains("authority.key"),
            "{error}"
        );
        assert_eq!(fs::read(&key).unwrap(), [0xff, 0xfe]);
        assert!(!folder.path().join("authority.pem").exists());
    }

    #[test]
    fn what_a_former_run_left_lets_nobody_read_a_key() {
        let folder = tempfile::tempdir().unwrap();
        let left = folder.path().join("sfmd.new");
        fs::write(&left, "").unwrap();
        fs::set_permissions(&left, fs::Permissions::from_mode(0o666)).unwrap();
        let mut reader = fs::File::open(&left).unwrap();
        make(folder.path(), &[Role::Master], 1).unwrap();
        let mut seen = String::new();
        io::Read::read_to_string(&mut reader, &mut seen).unwrap();
        assert_eq!(seen, "");
        let mode = fs::metadata(folder.path().join("sfmd.key")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
