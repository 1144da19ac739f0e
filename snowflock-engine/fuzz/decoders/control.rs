//! Anything may come over the control network: frames are whole and bounded or refused, and what is
//! understood can be said again.

use serde::Serialize;
use serde::de::DeserializeOwned;
use snowflock_engine::hosts::frame::{Decoder, Frame, MAX_PAYLOAD};
use snowflock_engine::hosts::message::{FromHost, Reply, Request, ToHost, decode, encode};

/// The bytes as a stream in pieces, and as the payload of one message of each kind.
pub(crate) fn check(bytes: &[u8]) {
    let piece = bytes.first().map_or(1, |first| usize::from(*first) + 1);
    let mut decoder = Decoder::default();
    for piece in bytes.chunks(piece) {
        decoder.push(piece);
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => {
                    assert!(frame.payload.len() <= MAX_PAYLOAD);
                    messages(&frame);
                }
                Ok(None) => break,
                Err(error) => return assert_eq!(decoder.next_frame(), Err(error)),
            }
        }
    }
    messages(&Frame { kind: snowflock_engine::hosts::frame::Kind::Message, payload: bytes.to_vec() });
}

fn messages(frame: &Frame) {
    same_again::<FromHost>(frame);
    same_again::<ToHost>(frame);
    same_again::<Request>(frame);
    same_again::<Reply>(frame);
}

fn same_again<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(frame: &Frame) {
    if let Ok(message) = decode::<T>(frame)
        && let Ok(bytes) = encode(&message)
    {
        let mut decoder = Decoder::default();
        decoder.push(&bytes);
        let again = decoder.next_frame().expect("what was said is a frame").expect("and a whole one");
        assert_eq!(decode::<T>(&again).expect("what was said can be understood"), message);
    }
}
