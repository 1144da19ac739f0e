//! The tree of plain Debian packages, kept as an archive: it takes a minute, everything after it seconds.

use std::fs;
use std::path::{Path, PathBuf};

use crate::commands;
use crate::error::{ImageError, OnFile};
use crate::inputs::Inputs;
use crate::spec::Packages;

/// What every guest has: an init and the kernel for virtual machines.
const BASE_PACKAGES: [&str; 2] = ["systemd-sysv", "linux-image-cloud-amd64"];
/// What stands in front of the demo application.
const DEMO_PACKAGES: [&str; 1] = ["nginx-light"];
/// Nothing in a guest reads these.
const LEFT_OUT: [&str; 4] =
    ["/usr/share/man/*", "/usr/share/doc/*", "/usr/share/locale/*", "/usr/share/info/*"];
/// The directory beside the images that keeps the archives.
pub(crate) const CACHE: &str = ".flurry-base";

/// What determines a base tree.
pub(crate) struct Base {
    suite: String,
    packages: Vec<String>,
    /// The apt source files of this machine that know the suite; none: mmdebstrap's own default.
    sources: Vec<PathBuf>,
}

impl Base {
    pub(crate) fn of(wanted: &Packages) -> Result<Self, ImageError> {
        let suite = wanted.suite.clone().or_else(host_suite).ok_or_else(|| {
            ImageError::BadSpec(vec![
                "suite: this machine does not say its release; name one (bookworm, ...)".into(),
            ])
        })?;
        let demo = DEMO_PACKAGES.iter().filter(|_| wanted.demo_app.is_some());
        let listed = BASE_PACKAGES.iter().chain(demo).map(|p| (*p).to_string());
        let mut packages: Vec<_> = listed.chain(wanted.packages.iter().cloned()).collect();
        packages.sort();
        packages.dedup();
        let sources = apt_sources(Path::new("/etc/apt"), &suite);
        Ok(Self { suite, packages, sources })
    }

    pub(crate) fn add_to(&self, inputs: &mut Inputs) -> Result<(), ImageError> {
        inputs.add("suite", self.suite.as_bytes());
        for package in &self.packages {
            inputs.add("package", package.as_bytes());
        }
        self.sources.iter().try_for_each(|source| inputs.add_tree("source", source))
    }

    /// The archive of the tree: the kept one, or a new one made in `work`.
    pub(crate) fn archive(&self, cache: &Path, work: &Path, fresh: bool) -> Result<PathBuf, ImageError> {
        let mut inputs = Inputs::new(concat!("flurry-base ", env!("CARGO_PKG_VERSION")));
        self.add_to(&mut inputs)?;
        let kept = cache.join(format!("{}.tar", &inputs.digest()["sha256:".len()..][..16]));
        if fresh || !kept.exists() {
            let made = work.join("base.tar");
            self.make(&made, work)?;
            fs::create_dir_all(cache).on("creating", cache)?;
            fs::rename(&made, &kept).on("renaming", &made)?;
        }
        Ok(kept)
    }

    /// Asks this machine's apt first: mmdebstrap finds a wrong name only after a minute.
    fn look_up(&self) -> Result<(), ImageError> {
        let known = |package: &str| {
            let asked = commands::run("apt-cache", |c| {
                c.args(["--no-all-versions", "show", package]);
            });
            asked.is_ok()
        };
        // Its lists speak for the same release only, and only if they were ever fetched.
        if host_suite().as_ref() != Some(&self.suite) || !known(BASE_PACKAGES[0]) {
            return Ok(());
        }
        let unknown: Vec<_> = self.packages.iter().filter(|package| !known(package)).cloned().collect();
        if unknown.is_empty() {
            return Ok(());
        }
        Err(ImageError::PackagesNotFound { suite: self.suite.clone(), packages: unknown })
    }

    fn make(&self, archive: &Path, work: &Path) -> Result<(), ImageError> {
        self.look_up()?;
        let made = commands::run("mmdebstrap", |c| {
            c.args(["--variant=minbase", "--format=tar", "--mode=root"]);
            c.arg(format!("--include={}", self.packages.join(",")));
            c.args(LEFT_OUT.map(|path| format!("--dpkgopt=path-exclude={path}")));
            // Java's packages put links to manual pages there, and fail if they cannot.
            c.arg("--setup-hook=mkdir -p \"$1/usr/share/man/man1\"");
            c.arg("--aptopt=APT::Install-Recommends \"false\"");
            // The work directory may be one that apt's own user cannot enter.
            c.arg("--aptopt=APT::Sandbox::User \"root\"");
            c.arg(&self.suite).arg(archive).args(&self.sources);
            // Debian's own initrd would be built and thrown away: 10 s.
            c.env("INITRD", "No").env("TMPDIR", work);
        });
        made.map_err(|error| self.explain(error))
    }

    /// An unknown package is the user's mistake, not the program's failure.
    fn explain(&self, error: ImageError) -> ImageError {
        let ImageError::Failed { tail, .. } = &error else { return error };
        let unknown = tail.lines().filter_map(|line| {
            let rest = line.strip_prefix("E: Unable to locate package ")?;
            Some(rest.trim().to_string())
        });
        match unknown.collect::<Vec<_>>() {
            packages if packages.is_empty() => error,
            packages => ImageError::PackagesNotFound { suite: self.suite.clone(), packages },
        }
    }
}

fn host_suite() -> Option<String> {
    suite_of(&fs::read_to_string("/etc/os-release").ok()?)
}

fn suite_of(os_release: &str) -> Option<String> {
    let value = os_release.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    Some(value.trim_matches('"').to_string()).filter(|name| !name.is_empty())
}

/// The source files under `apt` that mention the suite, in the order of their names.
fn apt_sources(apt: &Path, suite: &str) -> Vec<PathBuf> {
    let parts = fs::read_dir(apt.join("sources.list.d")).into_iter().flatten().flatten().map(|e| e.path());
    let named = |path: &PathBuf| path.extension().is_some_and(|e| e == "list" || e == "sources");
    let knows = |path: &PathBuf| {
        let text = fs::read_to_string(path).unwrap_or_default();
        let live = text.lines().filter(|line| !line.trim_start().starts_with('#'));
        live.flat_map(str::split_whitespace).any(|word| word == suite)
    };
    let mut sources: Vec<_> = parts.filter(named).chain([apt.join("sources.list")]).filter(knows).collect();
    sources.sort();
    sources
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_release_is_read_from_os_release() {
        assert_eq!(suite_of("ID=debian\nVERSION_CODENAME=bookworm\n").as_deref(), Some("bookworm"));
        assert_eq!(suite_of("VERSION_CODENAME=\"\"\n"), None);
    }

    #[test]
    fn only_live_source_files_of_the_release_are_used() {
        let apt = tempfile::tempdir().expect("temporary directory");
        let parts = apt.path().join("sources.list.d");
        fs::create_dir(&parts).expect("directory");
        fs::write(apt.path().join("sources.list"), "deb http://mirror.example/debian bookworm main\n")
            .expect("file");
        fs::write(parts.join("a.sources"), "Types: deb\nSuites: bookworm bookworm-updates\n").expect("file");
        fs::write(parts.join("b.list"), "# deb http://mirror.example/debian bookworm main\n").expect("file");
        fs::write(parts.join("c.list.disabled"), "deb http://mirror.example/x bookworm main\n")
            .expect("file");
        fs::write(parts.join("d.list"), "deb http://mirror.example/debian bookworm-backports main\n")
            .expect("file");
        let expected = [apt.path().join("sources.list"), parts.join("a.sources")];
        assert_eq!(apt_sources(apt.path(), "bookworm"), expected);
    }

    #[test]
    fn a_package_that_does_not_exist_is_reported_by_name() {
        let base = Base { suite: "bookworm".into(), packages: vec![], sources: vec![] };
        let tail = "I: running apt-get update...\nE: Unable to locate package nginx-heavy\nE: apt-get failed";
        let error = base.explain(ImageError::Failed {
            program: "mmdebstrap".into(),
            status: "exit status: 25".into(),
            tail: tail.into(),
        });
        assert!(
            error.to_string().starts_with("no such package in the apt sources for bookworm: nginx-heavy;")
        );
    }
}
