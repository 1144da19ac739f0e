//! One router VM: a QEMU process, and the socket of its control port.

use std::fs::File;
use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use super::links::Links;
use super::{RouterError, Site, VmKind, system};
use crate::control::frame::Decoder;
use crate::control::{PORT_NAME, Reply, Request};
use crate::{recipe, sys};

/// Descriptors that QEMU inherits.
const INSIDE_FD: i32 = 10;
const WORLD_FD: i32 = 11;
const CONTROL_FD: i32 = 12;

/// What a VM's reader reports, in this order: replies, and its end.
pub(super) enum Report {
    Reply(Reply),
    Unreadable(String),
    Gone,
}

/// A router VM. Dropping it kills it and waits for its end.
#[derive(Debug)]
pub(super) struct Vm {
    child: Child,
    control: UnixStream,
}

impl Vm {
    /// Starts it; `report` is called from a thread of its own.
    pub(super) fn start(
        site: &Site,
        kind: &VmKind,
        links: &Links,
        slot: usize,
        report: impl FnMut(Report) + Send + 'static,
    ) -> Result<Self, RouterError> {
        let (inside, world) = links.open_taps(slot)?;
        let (ours, theirs) = UnixStream::pair().map_err(system("make the control socket"))?;
        let console = site.folder.join(format!("router-{slot}.console"));
        let log = site.folder.join(format!("router-{slot}.log"));
        let log = File::create(&log).map_err(system(format!("create {}", log.display())))?;
        let mut command = Command::new(&kind.qemu);
        command.args(arguments(site, kind, &links.macs(), slot)).arg("-chardev");
        command.arg(format!("file,id=console,path={}", console.display()));
        command.args(["-device", "isa-serial,chardev=console", "-kernel"]);
        command.arg(kind.image.join("vmlinux")).arg("-initrd").arg(kind.image.join("initrd"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log);
        let handed = [(inside.as_fd(), INSIDE_FD), (world.as_fd(), WORLD_FD), (theirs.as_fd(), CONTROL_FD)];
        let child = sys::spawn_with(&mut command, &handed)
            .map_err(system(format!("start {}", kind.qemu.display())))?;
        drop(theirs);
        let vm = Self { child, control: ours };
        let reader = vm.control.try_clone().map_err(system("share the control socket"))?;
        let thread = std::thread::Builder::new().name(format!("router-{slot}"));
        thread.spawn(move || read(reader, report)).map_err(system("start the reader of a router VM"))?;
        Ok(vm)
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn ask(&mut self, request: &Request) -> io::Result<()> {
        self.control.write_all(&request.encode()?)
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = self.control.shutdown(Shutdown::Both);
    }
}

fn read(mut control: UnixStream, mut report: impl FnMut(Report)) {
    let (mut decoder, mut room) = (Decoder::default(), vec![0; 64 << 10]);
    while let Ok(count @ 1..) = control.read(&mut room) {
        decoder.push(&room[..count]);
        while let Some(frame) = decoder.next_frame() {
            report(Reply::decode(&frame).map_or_else(|e| Report::Unreadable(e.to_string()), Report::Reply));
        }
    }
    report(Report::Gone);
}

fn arguments(site: &Site, kind: &VmKind, [inside, world]: &[String; 2], slot: usize) -> Vec<String> {
    let (accelerator, cpu) = if kind.kvm { ("kvm", "host") } else { ("tcg,tb-size=64", "max") };
    let mut words: Vec<String> = Vec::new();
    let mut pair = |option: &str, value: String| words.extend([option.into(), value]);
    pair("-name", format!("flurry-router-{}-{slot}", site.name));
    pair("-machine", "q35,hpet=off,smbus=off,sata=off,usb=off,vmport=off".into());
    pair("-accel", accelerator.into());
    pair("-cpu", cpu.into());
    pair("-m", format!("{}M", recipe::MEMORY_MIB));
    pair("-display", "none".into());
    pair("-append", recipe::CMDLINE.into());
    for (id, fd, mac) in [("inside", INSIDE_FD, inside), ("world", WORLD_FD, world)] {
        pair("-netdev", format!("tap,id={id},fd={fd}"));
        pair("-device", format!("virtio-net-pci,netdev={id},romfile=,mac={mac}"));
    }
    pair("-chardev", format!("socket,id=control,fd={CONTROL_FD}"));
    pair("-device", "virtio-serial-pci,max_ports=2".into());
    pair("-device", format!("virtserialport,chardev=control,nr=1,name={PORT_NAME}"));
    words.extend(["-nodefaults", "-no-user-config", "-no-reboot"].map(String::from));
    words
}
