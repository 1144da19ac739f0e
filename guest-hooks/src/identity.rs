//! Becoming another machine: entropy first, then clock, names, addresses and the identity record.
//!
//! Entropy comes first so that nothing this clone does afterwards repeats what a sibling does. A step
//! that fails does not stop the others: the host hears which failed and decides.

use std::fs::{File, OpenOptions};
use std::io;

use snowflock_engine::wire::{Failures, Identity};

use crate::netlink::Interface;
use crate::record::Record;
use crate::sys;
use crate::system::MachineId;

/// All that taking an identity needs, opened while there is time.
pub(crate) struct Identifier {
    random: File,
    record: Record,
    machine_id: MachineId,
    interface: Interface,
}

impl Identifier {
    /// Opens everything.
    pub(crate) fn new() -> Result<Self, String> {
        let random = OpenOptions::new()
            .read(true)
            .write(true)
            .open("/dev/random")
            .map_err(|e| format!("opening /dev/random: {e}"))?;
        Ok(Self {
            random,
            record: Record::open()?,
            machine_id: MachineId::open(),
            interface: Interface::open()?,
        })
    }

    /// Takes `new`; `old` is what this guest was until now.
    pub(crate) fn take(&mut self, new: &Identity, old: Option<&Identity>) -> Failures {
        let mut failed = Failures::default();
        let mut note = |step: Failures, outcome: io::Result<()>| {
            if let Err(e) = outcome {
                failed.insert(step);
                eprintln!("flurry: identity: {step}: {e}");
            }
        };
        note(Failures::ENTROPY, sys::reseed(&self.random, &new.entropy));
        note(Failures::CLOCK, sys::step_clock(new.unix_time_ns));
        if !new.hostname.as_str().is_empty() {
            note(Failures::HOSTNAME, sys::set_hostname(new.hostname.as_str()));
        }
        if is_birth(new, old) {
            note(Failures::MACHINE_ID, self.machine_id.renew());
        }
        failed.insert(self.interface.readdress(new, old.map(|o| (o.ipv4, o.prefix_len))));
        match sys::random() {
            Ok(random) => self.record.write(new, u128::from_be_bytes(random)),
            Err(e) => {
                failed.insert(Failures::ENTROPY);
                eprintln!("flurry: identity: {}: {e}", Failures::ENTROPY);
            }
        }
        failed
    }
}

/// Does this make another machine of the guest? A parent stays what it is when it is told so again.
pub(crate) fn is_birth(new: &Identity, old: Option<&Identity>) -> bool {
    new.clone_id != 0 && old.is_none_or(|old| old.clone_id != new.clone_id)
}

/// An identity for tests.
#[cfg(test)]
pub(crate) fn sample(clone_id: u32) -> Identity {
    use snowflock_engine::wire::Name;
    use std::net::Ipv4Addr;
    Identity {
        clone_id,
        clones: 4,
        unix_time_ns: 0,
        mac: [2, 0, 0, 0, 0, 4],
        ipv4: Ipv4Addr::new(10, 0, 0, 14),
        prefix_len: 24,
        gateway: Ipv4Addr::new(10, 0, 0, 1),
        parent_ipv4: Ipv4Addr::new(10, 0, 0, 10),
        entropy: [0; 32],
        hostname: Name::EMPTY,
    }
}
