//! Putting files into a tree that will be a guest's root, and whole directories into their place.
//!
//! A guest's tree has symbolic links, some absolute (`/var/run -> /run`). Followed naively they lead
//! out of the tree and onto this machine, so every path is resolved inside the tree first.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Component, Path, PathBuf};

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use crate::commands;
use crate::error::{ImageError, OnFile};

/// More links than this in one path are a loop, as for the kernel.
const MOST_LINKS: usize = 40;

/// A tree that will be a guest's root.
pub(crate) struct Tree {
    root: PathBuf,
}

impl Tree {
    pub(crate) fn new(root: PathBuf) -> Self {
        Self { root }
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Where the guest's `path` is on this machine. Its directory's links are followed inside the tree,
    /// a link at its end is not.
    pub(crate) fn at(&self, path: &str) -> Result<PathBuf, ImageError> {
        let mut left: Vec<OsString> = names(Path::new(path)).rev().collect();
        let (mut here, mut links) = (PathBuf::new(), 0);
        while let Some(name) = left.pop() {
            if name == ".." {
                here.pop();
                continue;
            }
            here.push(&name);
            let full = self.root.join(&here);
            if left.is_empty() || !full.is_symlink() {
                continue;
            }
            links += 1;
            if links > MOST_LINKS {
                return Err(ImageError::Incomplete(format!("an end to the links of {path}")));
            }
            let target = fs::read_link(&full).on("reading the link", &full)?;
            here.pop();
            if target.is_absolute() {
                here = PathBuf::new();
            }
            left.extend(names(&target).rev());
        }
        Ok(self.root.join(here))
    }

    /// Like [`Tree::at`], for a new file: its directory is made and what was in its place removed.
    fn free(&self, path: &str) -> Result<PathBuf, ImageError> {
        let full = self.at(path)?;
        let dir = full.parent().unwrap_or(&self.root);
        fs::create_dir_all(dir).on("creating", dir)?;
        self.remove(path)?;
        Ok(full)
    }

    pub(crate) fn write(&self, path: &str, text: &str) -> Result<(), ImageError> {
        let full = self.free(path)?;
        fs::write(&full, text).on("writing", &full)
    }

    pub(crate) fn link(&self, path: &str, target: &str) -> Result<(), ImageError> {
        let full = self.free(path)?;
        symlink(target, &full).on("linking", &full)
    }

    /// Installs a program.
    pub(crate) fn program(&self, path: &str, from: &Path) -> Result<(), ImageError> {
        let full = self.free(path)?;
        fs::copy(from, &full).on("copying", from)?;
        fs::set_permissions(&full, fs::Permissions::from_mode(0o755)).on("setting the mode of", &full)
    }

    /// Copies a file or directory of this machine; it becomes root's.
    pub(crate) fn copy(&self, path: &str, from: &Path) -> Result<(), ImageError> {
        let full = self.at(path)?;
        let dir = full.parent().unwrap_or(&self.root);
        fs::create_dir_all(dir).on("creating", dir)?;
        commands::run("cp", |c| {
            c.args(["-aTH", "--no-preserve=ownership", "--"]).arg(from).arg(&full);
        })
    }

    /// Removes a file, link or directory; none there is fine.
    pub(crate) fn remove(&self, path: &str) -> Result<(), ImageError> {
        let full = self.at(path)?;
        match fs::symlink_metadata(&full) {
            Err(_) => Ok(()),
            Ok(about) if about.is_dir() => fs::remove_dir_all(&full).on("removing", &full),
            Ok(_) => fs::remove_file(&full).on("removing", &full),
        }
    }

    /// Empties a directory.
    pub(crate) fn clear(&self, path: &str) -> Result<(), ImageError> {
        let full = self.at(path)?;
        for entry in fs::read_dir(&full).into_iter().flatten().flatten() {
            let name = entry.file_name();
            self.remove(&format!("{path}/{}", name.to_string_lossy()))?;
        }
        Ok(())
    }
}

fn names(path: &Path) -> impl DoubleEndedIterator<Item = OsString> {
    path.components().filter_map(|part| match part {
        Component::Normal(name) => Some(name.to_os_string()),
        Component::ParentDir => Some("..".into()),
        _ => None,
    })
}

/// Puts the finished directory `new` at `output`; a directory that was there goes away.
pub(crate) fn put_in_place(new: &Path, output: &Path) -> Result<(), ImageError> {
    if !output.exists() {
        return fs::rename(new, output).on("renaming", new);
    }
    // Exchanged in one step: whoever opens the image meanwhile sees the old one or the new one.
    renameat2(AT_FDCWD, new, AT_FDCWD, output, RenameFlags::RENAME_EXCHANGE)
        .map_err(std::io::Error::from)
        .on("exchanging", output)?;
    fs::remove_dir_all(new).on("removing the old image", new)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree() -> (tempfile::TempDir, Tree) {
        let dir = tempfile::tempdir().expect("temporary directory");
        for sub in ["run", "var", "usr/bin", "etc"] {
            fs::create_dir_all(dir.path().join(sub)).expect("directory");
        }
        symlink("/run", dir.path().join("var/run")).expect("link");
        symlink("usr/bin", dir.path().join("bin")).expect("link");
        let tree = Tree::new(dir.path().to_path_buf());
        (dir, tree)
    }

    #[test]
    fn an_absolute_link_in_the_tree_leads_to_the_tree_not_to_this_machine() {
        let (dir, tree) = tree();
        tree.write("/var/run/flurry-test/file", "x").expect("written");
        assert!(dir.path().join("run/flurry-test/file").exists());
        assert!(!Path::new("/run/flurry-test").exists());
    }

    #[test]
    fn links_that_climb_stay_inside_the_tree() {
        let (dir, tree) = tree();
        symlink("../../../../etc", dir.path().join("var/up")).expect("link");
        assert_eq!(tree.at("/var/up/passwd").expect("resolved"), dir.path().join("etc/passwd"));
    }

    #[test]
    fn a_loop_of_links_is_refused() {
        let (dir, tree) = tree();
        symlink("/b", dir.path().join("a")).expect("link");
        symlink("/a", dir.path().join("b")).expect("link");
        assert!(matches!(tree.at("/a/file"), Err(ImageError::Incomplete(_))));
    }

    #[test]
    fn a_file_replaces_a_link_in_its_place_instead_of_writing_through_it() {
        let (dir, tree) = tree();
        let outside = tempfile::NamedTempFile::new().expect("file");
        symlink(outside.path(), dir.path().join("etc/motd")).expect("link");
        tree.write("/etc/motd", "new").expect("written");
        assert_eq!(fs::read_to_string(outside.path()).expect("outside"), "");
        assert_eq!(fs::read_to_string(dir.path().join("etc/motd")).expect("inside"), "new");
    }

    #[test]
    fn a_new_image_replaces_the_old_one_whole() {
        let dir = tempfile::tempdir().expect("temporary directory");
        let (new, out) = (dir.path().join("new"), dir.path().join("out"));
        for (at, file) in [(&out, "old-file"), (&new, "new-file")] {
            fs::create_dir(at).expect("directory");
            fs::write(at.join(file), "").expect("file");
        }
        put_in_place(&new, &out).expect("exchanged");
        assert!(out.join("new-file").exists() && !out.join("old-file").exists() && !new.exists());
    }
}
