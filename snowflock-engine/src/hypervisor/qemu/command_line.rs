//! What QEMU is started with. A parent and its shells must agree in every
//! device, its order and its properties, or a descriptor does not load.

use std::ffi::OsString;
use std::path::Path;

use super::Accelerator;
use crate::hypervisor::{BootImage, Machine, Place};

/// Descriptors that QEMU inherits.
pub(super) const RAM_FD: i32 = 10;
pub(super) const QMP_FD: i32 = 11;
pub(super) const AGENT_FD: i32 = 12;
pub(super) const TAP_FD: i32 = 13;

/// Node name of the disk in every VM.
pub(super) const DISK_NODE: &str = "disk0";

/// What a VM starts from.
pub(super) enum Start<'a> {
    /// A root parent.
    Boot(&'a BootImage),
    /// A shell that waits for a descriptor.
    Hollow,
}

/// The arguments, without the program.
pub(super) fn arguments(
    machine: &Machine,
    accelerator: Accelerator,
    place: &Place,
    disk: &Path,
    start: &Start<'_>,
) -> Vec<OsString> {
    let mut words = Words::default();
    words.machine(machine, accelerator, place);
    words.disk(disk);
    words.devices(place);
    match start {
        Start::Boot(image) => {
            words.path("-kernel", &image.kernel).path("-initrd", &image.initrd);
            words.pair("-append", &image.cmdline);
        }
        Start::Hollow => {
            words.pair("-incoming", "defer");
        }
    }
    words.0
}

#[derive(Default)]
struct Words(Vec<OsString>);

impl Words {
    fn pair(&mut self, option: &str, value: impl Into<String>) -> &mut Self {
        self.0.extend([option.into(), value.into().into()]);
        self
    }

    fn path(&mut self, option: &str, path: &Path) -> &mut Self {
        self.0.extend([option.into(), path.into()]);
        self
    }

    fn machine(&mut self, machine: &Machine, accelerator: Accelerator, place: &Place) {
        let Machine { memory_mib, vcpus } = machine;
        self.pair("-name", format!("flurry-{}", place.id))
            .pair(
                "-machine",
                "q35,memory-backend=m0,suppress-vmdesc=on,hpet=off,smbus=off,sata=off,usb=off,vmport=off",
            )
            .pair("-accel", accelerator.option())
            .pair("-cpu", accelerator.cpu())
            .pair("-smp", vcpus.to_string())
            .pair("-m", format!("{memory_mib}M"))
            // Shared in QEMU's eyes, so that it leaves the pages out of the device state. The shim makes
            // a clone's mapping private.
            .pair(
                "-object",
                format!(
                    "memory-backend-file,id=m0,size={memory_mib}M,mem-path=/proc/self/fd/{RAM_FD},share=on"
                ),
            );
        self.0.extend(["-nodefaults", "-no-user-config", "-no-reboot"].map(OsString::from));
        self.pair("-display", "none")
            .pair("-chardev", format!("socket,id=qmp,fd={QMP_FD}"))
            .pair("-mon", "chardev=qmp,mode=control");
    }

    fn disk(&mut self, layer: &Path) {
        // Transient or ours alone: a host crash ends the VM anyway, so flushes may stay in the page cache.
        let node = format!(
            "driver=qcow2,node-name={DISK_NODE},file.driver=file,cache.no-flush=on,file.filename={}",
            layer.display()
        );
        self.pair("-blockdev", node).pair("-device", format!("virtio-blk-pci,drive={DISK_NODE}"));
    }

    fn devices(&mut self, place: &Place) {
        self.pair("-netdev", format!("tap,id=n0,fd={TAP_FD}"))
            .pair(
                "-device",
                format!("virtio-net-pci,netdev=n0,romfile=,guest_announce=off,mac={}", place.port.mac),
            )
            .pair("-chardev", format!("socket,id=agent,fd={AGENT_FD}"))
            .pair("-device", "virtio-serial-pci,max_ports=2")
            .pair("-device", format!("virtserialport,chardev=agent,nr=1,name={}", crate::wire::PORT_NAME))
            .pair("-chardev", format!("file,id=console,path={}", place.folder.join("console").display()))
            .pair("-device", "isa-serial,chardev=console");
    }
}
