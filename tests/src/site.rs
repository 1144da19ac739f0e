//! A test's place on this host: a name, a state folder and addresses that no
//! other test has, and the proof that nothing is left there at its end.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use snowflock_engine::network::identity::{AddressBlock, CloneId};
use snowflock_engine::sys::process::{ProcessIdentity, owned_by};

/// Processes that were told to end have this long.
const GONE_WITHIN: Duration = Duration::from_secs(5);

/// The place. Dropping it at the end of a good test checks that all is gone; at the end of a failed
/// one it removes what is left, so that the next test is not disturbed.
#[derive(Debug)]
pub struct Site {
    name: String,
    folder: PathBuf,
    block: String,
}

impl Site {
    /// A new place; `word` says in names what it is for.
    #[must_use]
    pub fn new(word: &str) -> Self {
        static PLACES: AtomicU32 = AtomicU32::new(0);
        let (process, place) = (std::process::id(), PLACES.fetch_add(1, Ordering::Relaxed));
        let name = format!("t-{word}-{process}-{place}");
        let folder = std::env::temp_dir().join(format!("flurry-{name}"));
        let block = format!("10.{}.{}.0/24", 64 + (process / 256 + place * 64) % 128, process % 256);
        Self { name, folder, block }
    }

    /// Name for a tier or an engine.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its state folder; it does not exist yet.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its private network, as a configuration has it.
    #[must_use]
    pub fn network(&self) -> &str {
        &self.block
    }

    /// Its private network.
    ///
    /// # Panics
    /// Never: the text is one.
    #[must_use]
    pub fn block(&self) -> AddressBlock {
        self.block.parse().expect("an address block")
    }

    /// The processes that an engine has started here.
    #[must_use]
    pub fn processes(&self) -> Vec<ProcessIdentity> {
        owned_by(&self.folder)
    }

    /// The process that runs a VM, or the shell that waits to become it.
    #[must_use]
    pub fn vm_process(&self, id: CloneId) -> Option<ProcessIdentity> {
        let wanted = format!("flurry-{id}");
        self.processes().into_iter().find(|process| words(process.pid).contains(&wanted))
    }

    /// The processes of an engine's program.
    #[must_use]
    pub fn processes_of(&self, program: &str) -> Vec<ProcessIdentity> {
        let runs = |pid| words(pid).first().is_some_and(|path| Path::new(path).ends_with(program));
        self.processes().into_iter().filter(|process| runs(process.pid)).collect()
    }

    /// What is left of it, in words.
    #[must_use]
    pub fn leftovers(&self) -> Vec<String> {
        let process = |p: ProcessIdentity| format!("process {}: {}", p.pid, words(p.pid).join(" "));
        let mut left: Vec<String> = self.processes().into_iter().map(process).collect();
        let namespace = self.namespace();
        if Path::new("/run/netns").join(&namespace).exists() {
            left.push(format!("network namespace {namespace}"));
        }
        if self.folder.exists() {
            left.push(format!("folder {}", self.folder.display()));
        }
        left
    }

    /// Waits a moment for the last processes to go, then insists.
    ///
    /// # Panics
    /// Something is left.
    pub fn assert_nothing_left(&self) {
        let until = Instant::now() + GONE_WITHIN;
        while !self.leftovers().is_empty() && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
        }
        let left = self.leftovers();
        assert!(left.is_empty(), "left behind: {left:#?}");
    }

    fn namespace(&self) -> String {
        format!("flurry-{}", self.name)
    }

    fn clear(&self) {
        for process in self.processes() {
            let _ = process.kill(GONE_WITHIN);
        }
        if Path::new("/run/netns").join(self.namespace()).exists() {
            let _ = Command::new("ip").args(["netns", "delete", &self.namespace()]).status();
        }
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if std::thread::panicking() { self.clear() } else { self.assert_nothing_left() }
    }
}

/// The command line of a process.
fn words(pid: u32) -> Vec<String> {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}
