//! The host's line to a vCPU of a plain VM. Each line has a thread of its own
//! in the VM, so several vCPUs work, and wait for pages, at once.

use std::io;
use std::path::Path;
use std::time::Duration;

use super::protocol::{Answer, Order, Registers, VCPU_SOCKET, Verdict, hear, say};
use crate::memory::PageIndex;
use crate::sys::fdpass::Channel;

/// A vCPU that waits for a page for so long will not get it.
const PATIENCE: Duration = Duration::from_secs(30);

/// A line to one vCPU.
#[derive(Debug)]
pub struct Vcpu(Channel);

impl Vcpu {
    /// A vCPU of the VM in this folder.
    ///
    /// # Errors
    /// No plain VM runs there.
    pub fn connect(folder: &Path) -> io::Result<Self> {
        let channel = Channel::connect(&folder.join(VCPU_SOCKET))?;
        channel.set_timeout(Some(PATIENCE))?;
        Ok(Self(channel))
    }

    /// How long calls wait; half a minute at the start.
    ///
    /// # Errors
    /// The kernel refuses the option.
    pub fn set_patience(&self, limit: Duration) -> io::Result<()> {
        self.0.set_timeout(Some(limit))
    }

    /// Writes `count` pages from `first` with the content of `seed`, in the order of another seed
    /// (see [`super::content`]).
    ///
    /// # Errors
    /// The VM ended, waits for longer than the patience, or has no such pages; so for all calls below.
    pub fn write(&self, first: u32, count: u32, order: u64, seed: u64) -> io::Result<()> {
        self.ask(Order::Write { first, count, order, seed }).map(drop)
    }

    /// Writes one page.
    ///
    /// # Errors
    /// As above.
    pub fn write_page(&self, page: PageIndex, seed: u64) -> io::Result<()> {
        self.write(page.0, 1, 0, seed)
    }

    /// Compares pages with the content of `seed`.
    ///
    /// # Errors
    /// As above.
    pub fn check(&self, first: u32, count: u32, order: u64, seed: u64) -> io::Result<Verdict> {
        match self.ask(Order::Check { first, count, order, seed })? {
            Answer::Verdict(verdict) => Ok(verdict),
            other => Err(unexpected(&other)),
        }
    }

    /// A checksum over all of memory.
    ///
    /// # Errors
    /// As above.
    pub fn sum(&self) -> io::Result<u64> {
        match self.ask(Order::Sum)? {
            Answer::Sum(sum) => Ok(sum),
            other => Err(unexpected(&other)),
        }
    }

    /// Runs the built-in program on: each step writes a word somewhere, as the registers and
    /// memory so far decide. Two VMs that are equal stay equal over it.
    ///
    /// # Errors
    /// As above.
    pub fn run(&self, steps: u64) -> io::Result<Registers> {
        match self.ask(Order::Run { steps })? {
            Answer::Registers(registers) => Ok(registers),
            other => Err(unexpected(&other)),
        }
    }

    /// The registers as they are.
    ///
    /// # Errors
    /// As above.
    pub fn registers(&self) -> io::Result<Registers> {
        match self.ask(Order::Registers)? {
            Answer::Registers(registers) => Ok(registers),
            other => Err(unexpected(&other)),
        }
    }

    fn ask(&self, order: Order) -> io::Result<Answer> {
        say(&self.0, &order)?;
        match hear(&self.0)? {
            Answer::Failed(why) => Err(io::Error::other(why)),
            answer => Ok(answer),
        }
    }
}

fn unexpected(answer: &Answer) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("unexpected answer {answer:?}"))
}
