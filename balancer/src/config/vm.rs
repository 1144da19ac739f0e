//! `vm`: the VM that the tier is made of.

use std::path::{Path, PathBuf};
use std::time::Duration;

use scaler::yaml::Section;

use super::Surroundings;
use super::network::Ipv4Prefix;
use super::state_dir;
use super::warm::{self, WarmRequests};

/// Which way of running a guest to use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AcceleratorChoice {
    /// KVM if a guest really runs with it, else TCG.
    Auto,
    /// Emulation; runs anywhere.
    Tcg,
    /// Hardware virtualisation, or nothing.
    Kvm,
}

/// The VM that is booted once and then forked.
#[derive(Debug, Clone, PartialEq)]
pub struct VmConfig {
    /// The guest image: what `flurry image build` made.
    pub image: PathBuf,
    /// Memory of each VM in MiB; 64 or more.
    pub memory_mib: u32,
    /// Virtual processors of each VM; 1 to 16.
    pub vcpus: u32,
    /// Port on which the guest serves HTTP.
    pub port: u16,
    /// Which way of running a guest to use.
    pub accelerator: AcceleratorChoice,
    /// Hollow shells to keep waiting, so that a fork need not start a process.
    pub shells: u32,
    /// The private network of parent and clones.
    pub network: Ipv4Prefix,
    /// The longest time from the start of the parent to its first good probe.
    pub boot_deadline: Duration,
    /// The longest time from the fork to the clone's first good probe; then it is killed.
    pub clone_deadline: Duration,
    /// The longest time that a clone's requests may go on before it is killed.
    pub drain_deadline: Duration,
    /// The longest time that the guest's own hooks may take at each event: before a fork, before an exit.
    pub hook_deadline: Duration,
    /// Requests that the parent answers before its first checkpoint.
    pub warm: Vec<WarmRequests>,
    /// Folder for sockets and disk overlays; wiped at start.
    pub state_dir: PathBuf,
    /// The QEMU program.
    pub qemu: PathBuf,
}

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(3600);

/// Reads the section; `None` if the image or its port is missing or wrong.
pub(super) fn read(section: &mut Section<'_>, name: &str, around: &Surroundings<'_>) -> Option<VmConfig> {
    let s = section;
    let image = s
        .path_buf("image", "give what `flurry image build` made, e.g. /var/lib/flurry/demo")
        .try_map(|path| existing(&path, around))
        .required();
    let memory_mib = s.u32("memory_mib", "give the memory of each VM in MiB, e.g. 256").at_least(64);
    let memory_mib = memory_mib.at_most(1 << 20).or(256);
    let vcpus = s.u32("vcpus", "give 1 to 16 virtual processors").at_least(1).at_most(16).or(1);
    let port = s.u32("port", "give the port on which the guest serves HTTP, e.g. 80");
    let port = port.at_least(1).at_most(u32::from(u16::MAX)).or(80);
    let choices =
        [("auto", AcceleratorChoice::Auto), ("tcg", AcceleratorChoice::Tcg), ("kvm", AcceleratorChoice::Kvm)];
    let accelerator = s.choice("accelerator", &choices, "write auto, tcg or kvm").or(AcceleratorChoice::Auto);
    let shells =
        s.u32("shells", "give the number of hollow shells to keep waiting, e.g. 4").at_most(256).or(4);
    let network = s
        .string("network", "give a private network that this host does not use, e.g. 10.117.0.0/16")
        .try_map(|text| text.parse())
        .or(Ipv4Prefix::DEFAULT);
    let mut deadline = |key: &str, remedy: &str, default: u64| {
        s.duration(key, remedy).at_least(SHORTEST).at_most(LONGEST).or(Duration::from_secs(default))
    };
    let boot_deadline =
        deadline("boot_deadline", "give the longest time for the parent to boot, e.g. 60s", 60);
    let clone_deadline =
        deadline("clone_deadline", "give the longest time for a clone to answer, e.g. 10s", 10);
    let drain_deadline =
        deadline("drain_deadline", "give the longest time for a clone's last requests, e.g. 30s", 30);
    let hook_deadline = deadline("hook_deadline", "give the longest time for the guest's hooks, e.g. 5s", 5);
    let warm = warm::read(s);
    let state_dir = state_dir::read(s, name, around);
    let qemu = s.path_buf("qemu", "give the QEMU program, e.g. /usr/bin/qemu-system-x86_64");
    let qemu = qemu.or(PathBuf::from("qemu-system-x86_64"));
    Some(VmConfig {
        image: image?,
        memory_mib,
        vcpus,
        port: u16::try_from(port).ok()?,
        accelerator,
        shells,
        network,
        boot_deadline,
        clone_deadline,
        drain_deadline,
        hook_deadline,
        warm,
        state_dir,
        qemu,
    })
}

fn existing(path: &Path, around: &Surroundings<'_>) -> Result<PathBuf, String> {
    let path = around.folder.join(path);
    if (around.exists)(&path) { Ok(path) } else { Err(format!("{} does not exist", path.display())) }
}
