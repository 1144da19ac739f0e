//! A guest may write anything: the decoder goes on, and what it takes for a message is one.

use snowflock_engine::wire::frame::{MAX_FRAME, MAX_PAYLOAD};
use snowflock_engine::wire::{Decoder, Frame, GuestMessage, HostMessage};

/// The bytes as a stream in pieces, and as one frame: version, kind, payload.
pub(crate) fn check(bytes: &[u8]) {
    let piece = bytes.first().map_or(1, |first| usize::from(*first) + 1);
    stream(bytes, piece);
    if let [version, kind, payload @ ..] = bytes {
        message(&Frame {
            version: *version,
            kind: *kind,
            payload: &payload[..payload.len().min(MAX_PAYLOAD)],
        });
    }
}

fn stream(bytes: &[u8], piece: usize) {
    let (mut decoder, mut used) = (Decoder::new(), 0);
    for mut piece in bytes.chunks(piece) {
        while !piece.is_empty() {
            let taken = decoder.push(piece);
            assert!(taken > 0, "a drained decoder has room");
            piece = &piece[taken..];
            while let Some(frame) = decoder.next_frame() {
                used += frame.payload.len() as u64;
                message(&frame);
            }
        }
    }
    assert!(used + decoder.dropped() <= bytes.len() as u64, "no byte counts twice");
}

/// What is understood is said again with as many bytes.
fn message(frame: &Frame<'_>) {
    let mut out = [0; MAX_FRAME];
    let overhead = MAX_FRAME - MAX_PAYLOAD;
    if let Ok(message) = HostMessage::parse(frame) {
        assert_eq!(message.encode(&mut out).len(), frame.payload.len() + overhead, "{message:?}");
    }
    if let Ok(message) = GuestMessage::parse(frame) {
        assert_eq!(message.encode(&mut out).len(), frame.payload.len() + overhead, "{message:?}");
    }
}
