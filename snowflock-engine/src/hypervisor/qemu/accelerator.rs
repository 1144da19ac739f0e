//! KVM or TCG: found by trial, for a `/dev/kvm` that opens is not yet one that
//! runs a guest (nested virtualisation may be half there).

use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// A kernel under working KVM prints its first line within 200 ms.
const TRIAL_LIMIT: Duration = Duration::from_secs(2);
/// What a Linux kernel says first; printed only by guest code that ran.
const FIRST_WORDS: &str = "Linux version";

/// How guests run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Accelerator {
    /// Hardware virtualisation.
    Kvm,
    /// Emulation.
    Tcg,
}

impl Accelerator {
    /// `kvm` or `tcg`.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg",
        }
    }

    pub(super) fn option(self) -> &'static str {
        match self {
            Self::Kvm => "kvm",
            Self::Tcg => "tcg,thread=multi,tb-size=256",
        }
    }

    pub(super) fn cpu(self) -> &'static str {
        match self {
            Self::Kvm => "host,migratable=on",
            Self::Tcg => "max",
        }
    }
}

/// What the user wishes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wish {
    /// KVM where it works.
    #[default]
    Auto,
    /// KVM or an error.
    Kvm,
    /// Emulation.
    Tcg,
}

/// An accelerator, and why it was taken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Which.
    pub accelerator: Accelerator,
    /// One sentence.
    pub reason: String,
}

/// KVM was asked for and does not work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "KVM was asked for, but {0}; set `accelerator: auto` or `tcg`, or enable virtualisation on this host"
)]
pub struct NoKvm(pub String);

/// Chooses; tries KVM with this kernel unless the wish is TCG. `scratch` is a folder to work in.
///
/// # Errors
/// The wish is KVM and it does not work.
pub fn choose(wish: Wish, qemu: &Path, kernel: &Path, scratch: &Path) -> Result<Choice, NoKvm> {
    let tcg = |reason| Choice { accelerator: Accelerator::Tcg, reason };
    if wish == Wish::Tcg {
        return Ok(tcg("emulation (TCG), as configured".into()));
    }
    match (try_kvm(qemu, kernel, scratch), wish) {
        (Ok(took), _) => Ok(Choice {
            accelerator: Accelerator::Kvm,
            reason: format!("KVM: a trial guest ran after {} ms", took.as_millis()),
        }),
        (Err(why), Wish::Kvm) => Err(NoKvm(why)),
        (Err(why), _) => Ok(tcg(format!("emulation (TCG), several times slower than KVM: {why}"))),
    }
}

/// Starts a kernel under KVM and waits for its first words.
fn try_kvm(qemu: &Path, kernel: &Path, scratch: &Path) -> Result<Duration, String> {
    OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/kvm")
        .map_err(|error| format!("/dev/kvm cannot be opened: {error}"))?;
    let (console, log) = (scratch.join("kvm-trial.console"), scratch.join("kvm-trial.log"));
    let start = Instant::now();
    let mut child =
        trial(qemu, kernel, &console, &log).map_err(|e| format!("the trial cannot start: {e}"))?;
    let result = watch(&mut child, &console, start);
    let _ = child.kill();
    let _ = child.wait();
    let said = std::fs::read_to_string(&log).unwrap_or_default();
    for file in [console, log] {
        let _ = std::fs::remove_file(file);
    }
    result.map_err(|why| match said.lines().next() {
        Some(line) => format!("{why}: {}", line.trim()),
        None => why,
    })
}

fn trial(qemu: &Path, kernel: &Path, console: &Path, log: &Path) -> std::io::Result<Child> {
    Command::new(qemu)
        .args(["-machine", "q35", "-accel", "kvm", "-cpu", "host", "-m", "128M", "-nodefaults"])
        .args(["-no-user-config", "-no-reboot", "-display", "none", "-chardev"])
        .arg(format!("file,id=console,path={}", console.display()))
        .args(["-device", "isa-serial,chardev=console", "-append", "console=ttyS0 panic=-1", "-kernel"])
        .arg(kernel)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(File::create(log)?)
        .process_group(0)
        .spawn()
}

fn watch(child: &mut Child, console: &Path, start: Instant) -> Result<Duration, String> {
    while start.elapsed() < TRIAL_LIMIT {
        let said = std::fs::read(console).unwrap_or_default();
        if String::from_utf8_lossy(&said).contains(FIRST_WORDS) {
            return Ok(start.elapsed());
        }
        if let Ok(Some(status)) = child.try_wait() {
            return Err(format!("a trial guest under KVM ended at once ({status})"));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    Err(format!("a trial guest under KVM printed nothing within {} s", TRIAL_LIMIT.as_secs()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tcg_is_taken_untried_when_it_is_wished() {
        let nowhere = Path::new("/nonexistent");
        let choice = choose(Wish::Tcg, nowhere, nowhere, nowhere).unwrap();
        assert_eq!(choice.accelerator, Accelerator::Tcg);
    }

    #[test]
    fn a_kvm_that_runs_no_guest_gives_way_to_tcg_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let qemu = Path::new("/bin/false");
        let choice = choose(Wish::Auto, qemu, qemu, folder.path()).unwrap();
        assert_eq!(choice.accelerator, Accelerator::Tcg);
        assert!(choice.reason.contains("kvm") || choice.reason.contains("KVM"), "{}", choice.reason);
        let error = choose(Wish::Kvm, qemu, qemu, folder.path()).unwrap_err();
        assert!(error.to_string().contains("accelerator: auto"), "{error}");
    }
}
