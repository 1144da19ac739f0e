//! The messages: requests of the host, replies of the router VM.

use serde::{Deserialize, Serialize};

use super::frame::{Frame, VERSION, seal};
use crate::netlink::nft::Counts;
use crate::plan::Plan;

const APPLY: u8 = 1;
const MEASURE: u8 = 2;
const READY: u8 = 0x81;
const APPLIED: u8 = 0x82;
const MEASURED: u8 = 0x83;
const REFUSED: u8 = 0x84;

/// Why a frame is no message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadMessage {
    /// It is of another version.
    #[error(
        "the other side speaks version {0} of the router's protocol, not {VERSION}; build its image again"
    )]
    Version(u8),
    /// Nothing is known of this kind.
    #[error("message of unknown kind {0}")]
    Kind(u8),
    /// Its payload does not fit.
    #[error("message of kind {0} cannot be read: {1}")]
    Payload(u8, String),
}

/// What the host asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Request {
    /// Be this router, from now on.
    Apply(Box<Plan>),
    /// What was counted?
    Measure,
}

/// What the router VM says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reply {
    /// It has started and waits for a plan.
    Ready,
    /// The plan is in force.
    Applied,
    /// What was counted.
    Measured(Measures),
    /// The request was not carried out, and nothing changed. The reason.
    Refused(String),
}

/// What a router has counted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measures {
    /// Packets and bytes by what became of them.
    pub counts: Counts,
    /// Connections tracked now.
    pub connections: u64,
}

fn decode<'a, T: Deserialize<'a>>(frame: &'a Frame) -> Result<T, BadMessage> {
    serde_json::from_slice(&frame.payload).map_err(|e| BadMessage::Payload(frame.kind, e.to_string()))
}

fn encode(kind: u8, payload: &impl Serialize) -> std::io::Result<Vec<u8>> {
    let payload = serde_json::to_vec(payload)?;
    seal(kind, &payload).ok_or_else(|| std::io::Error::other("message too large for the router's port"))
}

impl Request {
    /// The message in its frame.
    ///
    /// # Errors
    /// It is too large.
    pub fn encode(&self) -> std::io::Result<Vec<u8>> {
        match self {
            Self::Apply(plan) => encode(APPLY, plan),
            Self::Measure => encode(MEASURE, &()),
        }
    }

    /// The message of a frame.
    ///
    /// # Errors
    /// It is of another version, unknown or malformed.
    pub fn decode(frame: &Frame) -> Result<Self, BadMessage> {
        match (frame.version, frame.kind) {
            (VERSION, APPLY) => decode(frame).map(Self::Apply),
            (VERSION, MEASURE) => Ok(Self::Measure),
            (VERSION, kind) => Err(BadMessage::Kind(kind)),
            (version, _) => Err(BadMessage::Version(version)),
        }
    }
}

impl Reply {
    /// The message in its frame.
    ///
    /// # Errors
    /// It is too large.
    pub fn encode(&self) -> std::io::Result<Vec<u8>> {
        match self {
            Self::Ready => encode(READY, &()),
            Self::Applied => encode(APPLIED, &()),
            Self::Measured(measures) => encode(MEASURED, measures),
            Self::Refused(why) => encode(REFUSED, why),
        }
    }

    /// The message of a frame.
    ///
    /// # Errors
    /// It is of another version, unknown or malformed.
    pub fn decode(frame: &Frame) -> Result<Self, BadMessage> {
        match (frame.version, frame.kind) {
            (VERSION, READY) => Ok(Self::Ready),
            (VERSION, APPLIED) => Ok(Self::Applied),
            (VERSION, MEASURED) => decode(frame).map(Self::Measured),
            (VERSION, REFUSED) => decode(frame).map(Self::Refused),
            (VERSION, kind) => Err(BadMessage::Kind(kind)),
            (version, _) => Err(BadMessage::Version(version)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::frame::Decoder;

    fn frame(bytes: &[u8]) -> Frame {
        let mut decoder = Decoder::default();
        decoder.push(bytes);
        decoder.next_frame().unwrap()
    }

    #[test]
    fn every_reply_is_read_back() {
        let measures = Measures { connections: 3, ..Measures::default() };
        for reply in [Reply::Ready, Reply::Applied, Reply::Measured(measures), Reply::Refused("no".into())] {
            assert_eq!(Reply::decode(&frame(&reply.encode().unwrap())), Ok(reply));
        }
        assert_eq!(Request::decode(&frame(&Request::Measure.encode().unwrap())), Ok(Request::Measure));
    }

    #[test]
    fn another_version_an_unknown_kind_and_a_wrong_payload_are_told_apart() {
        let apply = Frame { version: VERSION, kind: APPLY, payload: b"{}".to_vec() };
        assert!(matches!(Request::decode(&apply), Err(BadMessage::Payload(APPLY, _))));
        let newer = Frame { version: VERSION + 1, ..apply.clone() };
        assert_eq!(Request::decode(&newer), Err(BadMessage::Version(VERSION + 1)));
        assert_eq!(Reply::decode(&newer), Err(BadMessage::Version(VERSION + 1)));
        let odd = Frame { kind: 99, ..apply };
        assert_eq!(Request::decode(&odd), Err(BadMessage::Kind(99)));
        assert_eq!(Reply::decode(&odd), Err(BadMessage::Kind(99)));
    }
}
