//! Every decoder against pseudo-random damage: what `fuzz/` does without end, for a moment.
//!
//! Each run takes a new seed and prints it; `DECODERS_SEED=<it> cargo test -p snowflock-engine
//! --test decoders` replays the run.
#![cfg(feature = "host")]

use std::time::{SystemTime, UNIX_EPOCH};

use snowflock_engine::mcdist::geometry::{Group, Lane, Place};
use snowflock_engine::mcdist::message::{
    FromReceiver, FromSender, Missing, Notice, Request as PageRequest, Urgent,
};
use snowflock_engine::mcdist::seal::SessionId;
use snowflock_engine::memory::Region;
use snowflock_engine::memory::protocol::{Answer, CheckpointId, GuestId, Request};
use snowflock_engine::memory::supply::Supply;
use snowflock_engine::shim_protocol;
use snowflock_engine::wire::frame::MAX_FRAME;
use snowflock_engine::wire::{GuestMessage, HookEvent, HostMessage, RequestId, Vitals};

#[path = "../fuzz/decoders/control.rs"]
mod control;
#[path = "../fuzz/decoders/descriptor.rs"]
mod descriptor;
#[path = "../fuzz/decoders/mcdist.rs"]
mod mcdist;
#[path = "../fuzz/decoders/memory_request.rs"]
mod memory_request;
#[path = "../fuzz/decoders/parcel.rs"]
mod parcel;
#[path = "../fuzz/decoders/shim_protocol.rs"]
mod shim_protocol_decoder;
#[path = "../fuzz/decoders/wire.rs"]
mod wire;

/// Inputs for each decoder. All of them together take well under 2 s in a debug build.
const INPUTS: u32 = 10_000;

/// xorshift64*: enough for damage, and the same everywhere.
struct Random(u64);

impl Random {
    fn new(salt: u64) -> Self {
        let clock = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |t| t.as_nanos() as u64);
        let seed = match std::env::var("DECODERS_SEED") {
            Ok(given) => given.parse().expect("DECODERS_SEED is a number"),
            Err(_) => clock(),
        };
        println!("replay with DECODERS_SEED={seed}");
        Self((seed ^ salt) | 1)
    }

    fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % limit.max(1)
    }

    fn range(&mut self, len: usize) -> std::ops::Range<usize> {
        let start = self.below(len);
        start..start + self.below(len.min(start + 40) - start) + usize::from(len > 0)
    }

    /// One to four kinds of damage, one on the other.
    fn damaged(&mut self, good: &[u8]) -> Vec<u8> {
        let mut bytes = good.to_vec();
        for _ in 0..=self.below(4) {
            self.damage(&mut bytes);
        }
        bytes
    }

    fn damage(&mut self, bytes: &mut Vec<u8>) {
        let len = bytes.len();
        let at = self.below(len);
        match self.below(6) {
            _ if len == 0 => bytes.push(self.below(256) as u8),
            0 => bytes[at] ^= 1 << self.below(8),
            1 => bytes[at] = [0, 1, 0x7F, 0x80, 0xFE, 0xFF][self.below(6)],
            2 => bytes.truncate(at),
            3 => drop(bytes.drain(self.range(len))),
            4 => {
                let again = bytes[self.range(len)].to_vec();
                bytes.splice(at..at, again);
            }
            _ => {
                let number = [0u32, u32::MAX, 1 << 31, 65536, 16 << 20][self.below(5)].to_le_bytes();
                let width = number.len().min(len - at);
                bytes[at..at + width].copy_from_slice(&number[..width]);
            }
        }
    }
}

/// Checks the good inputs, then damage to them.
fn run(salt: u64, good: &[Vec<u8>], check: fn(&[u8])) {
    let mut random = Random::new(salt);
    good.iter().for_each(|good| check(good));
    for _ in 0..INPUTS {
        let from = random.below(good.len());
        check(&random.damaged(&good[from]));
    }
}

#[test]
fn no_damage_makes_the_descriptor_decoder_do_worse_than_refuse() {
    let good = include_bytes!("../src/descriptor/fixtures/version-1.sfvd");
    run(1, &[good.to_vec()], descriptor::check);
}

#[test]
fn no_damage_makes_the_agent_decoder_do_worse_than_refuse() {
    let request = RequestId(5);
    let mut out = [0; MAX_FRAME];
    let vitals = Vitals { load_milli: 1, memory_total_kib: 2, memory_available_kib: 3, uptime_ms: 4 };
    let hooks = HostMessage::RunHooks { request, event: HookEvent::BeforeExit, deadline_ms: 500 };
    let good = [
        hooks.encode(&mut out).to_vec(),
        HostMessage::Ping(request).encode(&mut out).repeat(3),
        GuestMessage::Hello { boot_id: [7; 16] }.encode(&mut out).to_vec(),
        GuestMessage::Report(request, vitals).encode(&mut out).repeat(2),
    ];
    run(2, &good, wire::check);
}

#[test]
fn no_damage_makes_the_shim_decoder_do_worse_than_refuse() {
    use shim_protocol::{Reply, Request};
    let good = [
        Request::Describe.encode(),
        Request::Adopt.encode(),
        Reply::Region { address: 1 << 40, len: 256 << 20 }.encode(),
        Reply::Failed { errno: 12 }.encode(),
    ];
    run(3, &good, shim_protocol_decoder::check);
}

#[test]
fn no_damage_makes_the_memory_decoder_do_worse_than_refuse() {
    let (guest, checkpoint) = (GuestId(3), CheckpointId(7));
    let region = Region { address: 1 << 40, len: 256 << 20 };
    let requests = [
        Request::Open { regions: vec![region; 2], recount: true },
        Request::AddGuest { guest, pid: 9, region, root: false, checkpoints: vec![checkpoint] },
        Request::Freeze { guest, checkpoint },
        Request::Prefetch,
    ];
    let answers = [
        Answer::Done,
        Answer::Supply(Supply::default()),
        Answer::Stats(Box::default()),
        Answer::Failed { why: "a \"quote\"".into() },
    ];
    let good: Vec<_> = requests
        .iter()
        .map(|request| serde_json::to_vec(request).unwrap())
        .chain(answers.iter().map(|answer| serde_json::to_vec(answer).unwrap()))
        .collect();
    run(4, &good, memory_request::check);
}

#[test]
fn no_damage_makes_the_control_decoder_do_worse_than_refuse() {
    use snowflock_engine::hosts::ids::{CheckpointId, Epoch, IdRange, Session, TicketId, Unique};
    use snowflock_engine::hosts::message::*;
    use snowflock_engine::hosts::parcel::{Bytes, Piece};
    use snowflock_engine::network::identity::CloneId;
    let (session, clone) = (Session(3), CloneId(9));
    let wishes = Wishes {
        session,
        number: 4,
        ids: vec![IdRange { first: 1, count: 64 }],
        checkpoints: vec![CheckpointId(2)],
        copies: vec![CopyWish { checkpoint: CheckpointId(3), from: Epoch(2) }],
        parcels: vec![CheckpointId(2)],
        held: vec![],
        tickets: vec![TicketWish { ticket: TicketId(5), clones: 3, create_from: Some(CheckpointId(2)) }],
        clones: vec![CloneWish { clone, goal: CloneGoal::Ready { first_response_ms: 250 } }],
    };
    let (checkpoint, from, bytes) = (CheckpointId(2), Epoch(1), Bytes(vec![5; 40]));
    let piece = Piece { session, checkpoint, from, offset: 0, total: 40, bytes };
    let hello = Hello { instance: Unique::of(7), session, epoch: Some(Epoch(1)) };
    let request = Request { id: Unique::of(1), deadline_ms: 1000, ask: Ask::RequestTicket { clones: 4 } };
    let made = Made { joined: vec![clone], failed: vec![(CloneId(10), "no".into())] };
    let good = [
        encode(&FromHost::Hello(hello)).unwrap(),
        encode(&ToHost::Wishes(wishes)).unwrap(),
        encode(&ToHost::Piece(piece)).unwrap(),
        encode(&request).unwrap().repeat(2),
        encode(&Reply { id: Unique::of(1), answer: Answer::Created(made) }).unwrap(),
        serde_json::to_vec(&request).unwrap(),
        encode_refusal("too old"),
    ];
    run(5, &good, control::check);
}

#[test]
fn no_damage_makes_the_parcel_decoder_do_worse_than_refuse() {
    let descriptor = include_bytes!("../src/descriptor/fixtures/version-1.sfvd");
    let header = br#"{"from":{"distribution":7,"sender":"10.9.0.1:7076","group":"239.255.70.76:7076","layers":[{"format":"qcow2","bytes":196616}],"base":"ab"},"working_set":[3,9]}"#;
    let mut good = b"SFCK\0\x01".to_vec();
    good.extend((header.len() as u32).to_be_bytes());
    good.extend_from_slice(header);
    good.extend_from_slice(descriptor);
    assert!(snowflock_engine::control::Parcel::decode(&good).is_ok());
    run(7, &[good], parcel::check);
}

#[test]
fn no_damage_makes_the_page_network_decoder_do_worse_than_refuse() {
    let geometry = mcdist::geometry();
    let mut request = PageRequest::empty(SessionId(5));
    request.urgent = vec![Urgent { place: Place(7), again: true }; 2];
    request.ahead = vec![Place(900), Place(1030)];
    request.groups = vec![Missing { group: Group(3), pages: 9, held: 1 }];
    request.untouched = (Group(4), 3);
    let zero = Notice::Zero { first: Place(3), count: 9 };
    let notices = vec![zero, Notice::Same { place: Place(1), of: Place(2) }];
    let (place, group, covers, data) = (Place(5), Group(1), 3, &[1; 64][..]);
    let from_sender = [
        FromSender::Page { place, lane: Lane::Whole, data },
        FromSender::Page { place, lane: Lane::Part(1), data: &data[..22] },
        FromSender::Repair { group, index: 3, covers, lane: Lane::Whole, data },
        FromSender::Notice(notices),
    ];
    let mut good = vec![Vec::new(); 6];
    for (message, out) in from_sender.iter().zip(&mut good) {
        message.encode(&geometry, out);
    }
    FromReceiver::Request(request).encode(&geometry, &mut good[4]);
    FromReceiver::Hello.encode(&geometry, &mut good[5]);
    run(6, &good, mcdist::check);
}
