//! The recipe of the router VM's image, and what the VM is started with.

use std::path::Path;

use flurry_image::Appliance;

/// Memory of a router VM, MiB: the kernel takes half, tracked connections at most 20.
pub const MEMORY_MIB: u32 = 64;

/// What process 1 loads, in this order; all that these need comes before them.
const MODULES: [&str; 14] = [
    "virtio_pci",
    "virtio_console",
    "virtio_net",
    // Buckets for as many connections as a configuration may allow.
    "nf_conntrack hashsize=16384",
    "nf_tables",
    "nft_ct",
    "nft_nat",
    "nft_chain_nat",
    "nft_limit",
    "nft_connlimit",
    "nft_numgen",
    "nft_objref",
    "nft_reject",
    "nft_reject_ipv4",
];

/// The kernel's command line, in groups:
/// - silence on the console, and an end instead of a dead router;
/// - lockdown, so that nobody changes this kernel; also its tracing would take an eighth of the memory;
/// - no cost of guarding processes from each other: there is one;
/// - the time stamp counter as the clock, for an emulated CPU fails the kernel's test of it;
/// - devices and self-tests that are not there or not wanted.
pub const CMDLINE: &str = concat!(
    "console=ttyS0 quiet loglevel=4 panic=-1 oops=panic lockdown=confidentiality debugfs=off mitigations=off audit=0 apparmor=0 selinux=0 psi=0 ",
    "cgroup_disable=memory nowatchdog cryptomgr.notests random.trust_cpu=on rcupdate.rcu_expedited=1 ",
    "tsc=reliable no_timer_check lpj=4000000 ipv6.disable=1 net.ifnames=0 8250.nr_uarts=1 i8042.noaux=1 ",
    "i8042.nopnp=1 pci=lastbus=0 nokaslr",
);

/// The order for the image with this program as process 1.
#[must_use]
pub fn appliance(program: &Path, output: &Path) -> Appliance {
    Appliance {
        output: output.into(),
        program: program.into(),
        modules: MODULES.map(str::to_owned).to_vec(),
        suite: None,
        packages: Vec::new(),
    }
}
