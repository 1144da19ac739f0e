//! `sfmd.yaml` and `sfld.yaml`: the text becomes a value that can only be valid, or all complaints.
//!
//! Every key is described in `CONFIG.md` beside this folder; deploy/examples/hosts has whole files.

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::DaemonError;
use crate::hosts::certificates::CertificateFiles;
use crate::hosts::ids::Name;
use crate::network::identity::AddressBlock;

/// Leases that make sense: time to notice, time for a busy host to report.
const LEASES: std::ops::RangeInclusive<u32> = 1..=3600;
const SHORTEST_MEMORY_MIB: u32 = 1;

/// What SFMD is told.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SfmdConfig {
    /// Where hosts and users connect to.
    pub listen: SocketAddr,
    /// Folder of the record.
    pub state_dir: PathBuf,
    /// Certificates.
    pub certificates: CertificateFiles,
    /// A host that does not report for so long is given up, seconds.
    #[serde(default = "ten")]
    lease_seconds: u32,
}

/// What SFLD is told.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SfldConfig {
    /// Where SFMD is.
    pub sfmd: SocketAddr,
    /// Certificates.
    pub certificates: CertificateFiles,
    /// What it shares with other hosts; nothing if it is not given.
    #[serde(default)]
    pub between_hosts: Option<BetweenConfig>,
    /// The virtual machines.
    pub vm: VmConfig,
}

/// The network between hosts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BetweenConfig {
    /// Address of this host in it.
    pub address: Ipv4Addr,
    /// Multicast group and port for pages, the same on all hosts.
    #[serde(default = "pages_group")]
    pub group: SocketAddrV4,
    /// Fetch all memory of checkpoints that this host has copies of, in the end: their clones then live on
    /// when the parent's host is gone.
    #[serde(default)]
    pub fill: bool,
}

/// The virtual machines of a host.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VmConfig {
    /// Name of the parent: of its network namespace, and in its clones' host names.
    pub name: Name,
    /// What runs them.
    pub driver: DriverChoice,
    /// Whether this host has a parent of its own; without one it has clones of another host's.
    #[serde(default = "yes")]
    pub parent: bool,
    /// Memory of each, MiB.
    pub memory_mib: u32,
    /// Virtual processors of each.
    #[serde(default = "one")]
    pub vcpus: u8,
    /// Private network, IPv4.
    pub network: String,
    /// Shells to keep waiting.
    #[serde(default = "two")]
    pub shells: u32,
    /// Clones that may live at once.
    pub max_clones: u32,
    /// Folder for all files, which must not exist or be from a former run.
    pub state_dir: PathBuf,
    /// Kernel, for `qemu`.
    #[serde(default)]
    pub kernel: PathBuf,
    /// Initial RAM disk, for `qemu`.
    #[serde(default)]
    pub initrd: PathBuf,
    /// Kernel command line, for `qemu`.
    #[serde(default)]
    pub cmdline: String,
    /// Disk image, for `qemu`.
    #[serde(default)]
    pub disk: PathBuf,
    /// `raw` or `qcow2`, for `qemu`.
    #[serde(default)]
    pub disk_format: String,
    /// Size of the disk as the guest sees it, bytes, for `qemu`.
    #[serde(default)]
    pub disk_bytes: u64,
}

/// What runs virtual machines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DriverChoice {
    /// QEMU, by KVM where it works.
    Qemu,
    /// Processes of plain memory, for tests.
    Plain,
}

fn yes() -> bool {
    true
}

/// A group of the range for a site's own use (RFC 2365).
fn pages_group() -> SocketAddrV4 {
    SocketAddrV4::new(Ipv4Addr::new(239, 255, 70, 76), 7076)
}

fn one() -> u8 {
    1
}

fn two() -> u32 {
    2
}

fn ten() -> u32 {
    10
}

impl SfmdConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// All complaints at once.
    pub fn load(path: &Path) -> Result<Self, DaemonError> {
        let config: Self = read(path)?;
        let lease = config.lease_seconds;
        let fault = (!LEASES.contains(&lease))
            .then(|| format!("lease_seconds: must be {} to {}, got {lease}", LEASES.start(), LEASES.end()));
        complain(path, fault.into_iter().collect())?;
        Ok(config)
    }

    /// A host that does not report for so long is given up.
    #[must_use]
    pub fn lease(&self) -> Duration {
        Duration::from_secs(self.lease_seconds.into())
    }
}

impl SfldConfig {
    /// Reads a file.
    ///
    /// # Errors
    /// All complaints at once.
    pub fn load(path: &Path) -> Result<Self, DaemonError> {
        let config: Self = read(path)?;
        let mut faults = config.vm.faults();
        faults.extend(config.sharing_faults());
        complain(path, faults)?;
        Ok(config)
    }

    fn sharing_faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        match &self.between_hosts {
            None if !self.vm.parent => faults.push(
                "vm.parent: without one its clones are another host's, which needs a section between_hosts"
                    .to_owned(),
            ),
            Some(between) if !between.group.ip().is_multicast() => {
                let given = between.group;
                faults.push(format!(
                    "between_hosts.group: must be a multicast address with a port, got {given}"
                ));
            }
            _ => {}
        }
        faults
    }
}

impl VmConfig {
    fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if self.memory_mib < SHORTEST_MEMORY_MIB {
            faults.push("vm.memory_mib: must be above 0".to_owned());
        }
        if self.vcpus == 0 {
            faults.push("vm.vcpus: must be above 0".to_owned());
        }
        match self.network.parse::<AddressBlock>() {
            Err(error) => faults.push(format!("vm.network: {error}")),
            Ok(block) if block.capacity() <= self.max_clones => {
                let room = block.capacity() - 1;
                faults
                    .push(format!("vm.network: has room for {room} clones, vm.max_clones is more; widen it"));
            }
            Ok(_) => {}
        }
        if self.driver == DriverChoice::Qemu {
            let files = [("kernel", &self.kernel), ("initrd", &self.initrd), ("disk", &self.disk)];
            let missing = files.into_iter().filter(|(_, path)| !path.is_file());
            faults.extend(missing.map(|(key, path)| {
                format!("vm.{key}: {:?} is no file; `flurry image build` makes one", path.display())
            }));
            if !["raw", "qcow2"].contains(&self.disk_format.as_str()) {
                faults.push(format!("vm.disk_format: must be raw or qcow2, got {:?}", self.disk_format));
            }
            if self.disk_bytes == 0 {
                faults.push("vm.disk_bytes: must be the size that the guest sees".to_owned());
            }
        }
        faults
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<T, DaemonError> {
    let text =
        std::fs::read_to_string(path).map_err(DaemonError::system(format!("read {}", path.display())))?;
    serde_yaml::from_str(&text).map_err(|error| DaemonError::Config(format!("{}: {error}", path.display())))
}

fn complain(path: &Path, faults: Vec<String>) -> Result<(), DaemonError> {
    if faults.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = faults.iter().map(|fault| format!("{}: {fault}", path.display())).collect();
    Err(DaemonError::Config(lines.join("\n")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EXAMPLES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples/hosts");

    fn loaded(text: &str) -> Result<SfldConfig, DaemonError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sfld.yaml");
        std::fs::write(&path, text).unwrap();
        SfldConfig::load(&path)
    }

    #[test]
    fn the_examples_have_nothing_wrong_but_files_that_are_not_there() {
        let examples = Path::new(EXAMPLES);
        assert_eq!(SfmdConfig::load(&examples.join("sfmd.yaml")).unwrap().lease(), Duration::from_secs(10));
        for example in ["sfld.yaml", "sfld-clones.yaml"] {
            let said = SfldConfig::load(&examples.join(example)).unwrap_err().to_string();
            assert!(said.lines().all(|l| l.contains("is no file")) && said.lines().count() == 3, "{said}");
        }
    }

    #[test]
    fn all_complaints_come_at_once_each_with_its_key() {
        let text = std::fs::read_to_string(Path::new(EXAMPLES).join("sfld.yaml")).unwrap();
        let text = text.replace("memory_mib: 512", "memory_mib: 0").replace("10.117.0.0/16", "10.117.0.0/29");
        let said = loaded(&text.replace("qcow2", "vmdk")).unwrap_err().to_string();
        for key in ["vm.memory_mib", "vm.network", "vm.kernel", "vm.disk_format"] {
            assert!(said.contains(key), "{key} is not in: {said}");
        }
    }

    #[test]
    fn a_host_without_a_parent_needs_others_and_pages_need_a_multicast_group() {
        let text = std::fs::read_to_string(Path::new(EXAMPLES).join("sfld-clones.yaml")).unwrap();
        let alone = text.replace("between_hosts:", "").replace("  address: 192.0.2.12", "");
        let alone = alone.replace("  fill: true", "");
        let said = loaded(&alone).unwrap_err().to_string();
        assert!(said.contains("vm.parent"), "{said}");
        let group = text.replace("vm:\n", "  group: 192.0.2.1:7076\nvm:\n");
        let said = loaded(&group).unwrap_err().to_string();
        assert!(said.contains("between_hosts.group"), "{said}");
    }

    #[test]
    fn an_unknown_key_is_named() {
        let said = loaded("sfmd: 127.0.0.1:1\nfoo: 3\n").unwrap_err().to_string();
        assert!(said.contains("foo"), "{said}");
    }
}
