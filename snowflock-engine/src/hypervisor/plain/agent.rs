//! The agent of a plain VM: answers the host as the agent in a guest does, and
//! writes its identity to memory, so it hangs when memory is not served.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::guest::Machine;
use crate::wire::frame::MAX_FRAME;
use crate::wire::{Decoder, Failures, GuestMessage, HostMessage, Name, Vitals};

const HELLO_PERIOD: Duration = Duration::from_millis(50);

/// Answers until the line is closed.
pub(super) fn run(machine: &Machine, mut line: UnixStream) {
    if let Err(error) = converse(machine, &mut line)
        && error.kind() != ErrorKind::UnexpectedEof
    {
        eprintln!("flurry-plain-vm: agent: {error}");
    }
}

fn converse(machine: &Machine, line: &mut UnixStream) -> std::io::Result<()> {
    let (mut decoder, born) = (Decoder::new(), Instant::now());
    let mut greeting = !machine.is_hollow();
    line.set_read_timeout(Some(HELLO_PERIOD))?;
    loop {
        while let Some(frame) = decoder.next_frame() {
            let Ok(message) = HostMessage::parse(&frame) else { continue };
            greeting = false;
            if let Some(answer) = answer(machine, message, born)? {
                line.write_all(answer.encode(&mut [0; MAX_FRAME]))?;
            }
        }
        if greeting {
            line.write_all(GuestMessage::Hello { boot_id: [0xB0; 16] }.encode(&mut [0; MAX_FRAME]))?;
        }
        match line.read(decoder.space()) {
            Ok(0) => return Ok(()),
            Ok(count) => decoder.filled(count),
            Err(e) if matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
            Err(e) => return Err(e),
        }
        machine.wait_until_it_runs();
    }
}

fn answer(machine: &Machine, message: HostMessage, born: Instant) -> std::io::Result<Option<GuestMessage>> {
    let page = machine.agent_page();
    Ok(Some(match message {
        HostMessage::Welcome | HostMessage::Answer(..) | HostMessage::ForkedBy { .. } => return Ok(None),
        HostMessage::Identify(request, identity) => {
            let begun = Instant::now();
            let id = u64::from(identity.clone_id);
            machine.on_page(page, |place, _| (place == 0).then_some(id))?;
            let took_us = begun.elapsed().as_micros() as u32;
            let failed = Failures::default();
            GuestMessage::Identified { request, clone_id: identity.clone_id, failed, took_us }
        }
        HostMessage::Ping(request) => {
            let mut id = 0;
            machine.on_page(page, |place, is| {
                id = if place == 0 { is as u32 } else { id };
                None
            })?;
            GuestMessage::Pong { request, clone_id: id }
        }
        HostMessage::RunHooks { request, event, .. } => {
            machine.note_hooks(event.name())?;
            GuestMessage::HooksDone { request, event, ran: 0, failed: 0, first_failed: Name::cut("") }
        }
        HostMessage::AskReport(request) => {
            let uptime_ms = born.elapsed().as_millis() as u64;
            let vitals = Vitals { load_milli: 0, memory_total_kib: 0, memory_available_kib: 0, uptime_ms };
            GuestMessage::Report(request, vitals)
        }
        HostMessage::Shutdown(request) => GuestMessage::ShuttingDown(request),
    }))
}
