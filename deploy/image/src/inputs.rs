//! The digest of all inputs of an image: what decides whether an existing one can be reused.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::error::{ImageError, OnFile};

/// A running SHA-256 over labelled inputs. Each is preceded by its label and length, so that no two
/// different lists of inputs run together into the same bytes.
pub(crate) struct Inputs(Sha256);

impl Inputs {
    /// Starts with what makes the images of one builder different from those of another.
    pub(crate) fn new(builder: &str) -> Self {
        let mut inputs = Self(Sha256::new());
        inputs.add("builder", builder.as_bytes());
        inputs
    }

    pub(crate) fn add(&mut self, label: &str, bytes: &[u8]) {
        self.head(label, bytes.len() as u64);
        self.0.update(bytes);
    }

    /// Adds a file's contents and mode, or a directory's whole tree in the order of names.
    pub(crate) fn add_tree(&mut self, label: &str, path: &Path) -> Result<(), ImageError> {
        let about = fs::metadata(path).on("reading", path)?;
        self.add(label, &about.permissions().mode().to_le_bytes());
        if about.is_file() {
            return self.add_file(label, path);
        }
        let mut entries: Vec<_> = fs::read_dir(path)
            .and_then(|dir| dir.map(|entry| entry.map(|e| e.path())).collect::<io::Result<_>>())
            .on("listing", path)?;
        entries.sort();
        for entry in entries {
            let name = entry.file_name().unwrap_or_default().to_string_lossy().into_owned();
            self.add_entry(&name, &entry)?;
        }
        Ok(())
    }

    fn add_entry(&mut self, name: &str, path: &Path) -> Result<(), ImageError> {
        if path.is_symlink() {
            let target = fs::read_link(path).on("reading the link", path)?;
            self.add(name, target.as_os_str().as_encoded_bytes());
            return Ok(());
        }
        self.add_tree(name, path)
    }

    fn add_file(&mut self, label: &str, path: &Path) -> Result<(), ImageError> {
        let mut file = fs::File::open(path).on("opening", path)?;
        let length = file.metadata().on("reading", path)?.len();
        self.head(label, length);
        io::copy(&mut file, &mut self.0).map(drop).on("reading", path)
    }

    fn head(&mut self, label: &str, length: u64) {
        self.0.update((label.len() as u64).to_le_bytes());
        self.0.update(label.as_bytes());
        self.0.update(length.to_le_bytes());
    }

    /// The digest, as it stands in a manifest.
    pub(crate) fn digest(self) -> String {
        let hex: String = self.0.finalize().iter().map(|b| format!("{b:02x}")).collect();
        format!("sha256:{hex}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn digest_of(fill: impl FnOnce(&mut Inputs)) -> String {
        let mut inputs = Inputs::new("test");
        fill(&mut inputs);
        inputs.digest()
    }

    #[test]
    fn the_border_between_two_inputs_counts() {
        let one = digest_of(|i| {
            i.add("p", b"ab");
            i.add("p", b"c");
        });
        let other = digest_of(|i| {
            i.add("p", b"a");
            i.add("p", b"bc");
        });
        assert_ne!(one, other);
    }

    #[test]
    fn a_tree_changes_with_any_file_name_mode_or_link_in_it() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let file = dir.path().join("file");
        let tree = || digest_of(|i| i.add_tree("t", dir.path()).expect("readable"));
        fs::write(&file, "x").expect("file");
        let mut seen = vec![tree()];
        fs::write(&file, "y").expect("file");
        seen.push(tree());
        fs::set_permissions(&file, fs::Permissions::from_mode(0o755)).expect("mode");
        seen.push(tree());
        std::os::unix::fs::symlink("file", dir.path().join("link")).expect("link");
        seen.push(tree());
        fs::rename(&file, dir.path().join("other")).expect("rename");
        seen.push(tree());
        let again = tree();
        assert_eq!(seen.last(), Some(&again), "unchanged inputs give the same digest");
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 5);
    }

    #[test]
    fn an_input_that_is_not_there_is_named() {
        let missing = Path::new("/nonexistent/input");
        let said = Inputs::new("test").add_tree("t", missing).expect_err("missing").to_string();
        assert_eq!(said, "reading /nonexistent/input");
    }
}
