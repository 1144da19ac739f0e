//! A bad wire between a machine and the switch: datagrams are lost, come twice, and overtake each other.
//! Frames of TCP pass as they are.

use std::collections::VecDeque;
use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Percent.
const LOST: u64 = 20;
const TWICE: u64 = 10;
const LATE: u64 = 20;
/// A late datagram lets so many pass, or waits for a pause.
const OVERTAKEN_BY: usize = 3;
const PAUSE_MS: u16 = 5;
/// In front of every frame of a tap, and its place in an Ethernet frame with IPv4.
const VIRTIO_HEADER: usize = 10;
const PROTOCOL: usize = VIRTIO_HEADER + 23;
const UDP: u8 = 17;

/// It lies between two taps.
pub(crate) struct BadWire {
    stop: Arc<AtomicBool>,
    harmed: Arc<AtomicU64>,
    ends: Vec<JoinHandle<()>>,
}

impl BadWire {
    pub(crate) fn between(one: File, other: File, seed: u64) -> Self {
        let (stop, harmed) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let there = (one.try_clone().unwrap(), other.try_clone().unwrap());
        let ends = [(there, seed), ((other, one), seed ^ 0x5555)].map(|((from, to), seed)| {
            let (stop, harmed) = (Arc::clone(&stop), Arc::clone(&harmed));
            std::thread::spawn(move || {
                Way { from, to, late: VecDeque::new(), random: seed | 1, harmed }.run(&stop)
            })
        });
        Self { stop, harmed, ends: ends.into() }
    }

    /// Datagrams that were lost, repeated or late so far.
    pub(crate) fn harmed(&self) -> u64 {
        self.harmed.load(Ordering::Relaxed)
    }
}

impl Drop for BadWire {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.ends.drain(..).for_each(|end| drop(end.join()));
    }
}

/// One direction.
struct Way {
    from: File,
    to: File,
    late: VecDeque<(Vec<u8>, usize)>,
    random: u64,
    harmed: Arc<AtomicU64>,
}

impl Way {
    fn run(mut self, stop: &AtomicBool) {
        let mut buffer = vec![0; 65_536];
        while !stop.load(Ordering::Relaxed) {
            let mut readable = [PollFd::new(self.from.as_fd(), PollFlags::POLLIN)];
            match poll(&mut readable, PollTimeout::from(PAUSE_MS)) {
                Ok(0) => self.let_late(usize::MAX),
                Ok(_) => match self.from.read(&mut buffer) {
                    Ok(length) => self.pass(&buffer[..length]),
                    Err(_) => return,
                },
                Err(_) => {}
            }
        }
    }

    fn pass(&mut self, frame: &[u8]) {
        let is_datagram = frame.get(PROTOCOL) == Some(&UDP);
        let roll = if is_datagram { self.percent() } else { 100 };
        self.harmed.fetch_add(u64::from(roll < LOST + LATE + TWICE), Ordering::Relaxed);
        if roll < LOST {
            return;
        }
        if roll < LOST + LATE {
            return self.late.push_back((frame.to_vec(), 0));
        }
        self.send(frame);
        if roll < LOST + LATE + TWICE {
            self.send(frame);
        }
        self.let_late(1);
    }

    /// So many frames have overtaken those that are late.
    fn let_late(&mut self, passed: usize) {
        self.late.iter_mut().for_each(|(_, by)| *by = by.saturating_add(passed));
        while self.late.front().is_some_and(|(_, by)| *by >= OVERTAKEN_BY)
            && let Some((frame, _)) = self.late.pop_front()
        {
            self.send(&frame);
        }
    }

    /// What the switch does not take is lost as well.
    fn send(&mut self, frame: &[u8]) {
        let _ = self.to.write(frame);
    }

    fn percent(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % 100
    }
}
