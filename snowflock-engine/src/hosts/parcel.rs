//! Parcels in pieces: what a host tells of a checkpoint may be longer than a frame.
//!
//!   host of the parent --pieces--> SFMD --pieces--> hosts that make a copy
//!
//! A connection keeps their order, so whoever collects takes only the piece that comes next. Who still
//! misses some is sent all again.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};

use super::ids::{CheckpointId, Epoch, Session};
use crate::control::MAX_PARCEL;

/// Bytes in one piece: as text, and with what stands around it, within a frame.
pub const PIECE_BYTES: usize = 512 << 10;
const _: () = assert!(PIECE_BYTES / 3 * 4 + 1024 < super::frame::MAX_PAYLOAD);
const _: () = assert!(MAX_PARCEL / PIECE_BYTES < 64, "all pieces fit into the backlog of a connection");

/// Bytes, in messages as Base64 (RFC 4648, with padding).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Bytes(pub Vec<u8>);

impl TryFrom<String> for Bytes {
    type Error = base64::DecodeError;

    fn try_from(text: String) -> Result<Self, base64::DecodeError> {
        STANDARD.decode(text).map(Self)
    }
}

impl From<Bytes> for String {
    fn from(bytes: Bytes) -> Self {
        STANDARD.encode(bytes.0)
    }
}

/// A piece of what another host needs to make clones of a checkpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Piece {
    /// The connection that it belongs to.
    pub session: Session,
    /// Of which checkpoint.
    pub checkpoint: CheckpointId,
    /// The membership of the host that has taken it: another one is another checkpoint.
    pub from: Epoch,
    /// Where it begins.
    pub offset: u32,
    /// Bytes of all pieces.
    pub total: u32,
    /// What is in it.
    pub bytes: Bytes,
}

/// Cuts a parcel into pieces.
pub fn cut(
    session: Session,
    (checkpoint, from): (CheckpointId, Epoch),
    parcel: &[u8],
) -> impl Iterator<Item = Piece> {
    let total = parcel.len() as u32;
    parcel.chunks(PIECE_BYTES).enumerate().map(move |(number, bytes)| {
        let offset = (number * PIECE_BYTES) as u32;
        Piece { session, checkpoint, from, offset, total, bytes: Bytes(bytes.to_vec()) }
    })
}

/// A parcel of which pieces are still to come.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Assembly(Vec<u8>);

impl Assembly {
    /// Takes the piece that comes next, or the first one again; returns the parcel when it is whole. All
    /// other pieces are dropped.
    pub fn add(&mut self, piece: Piece) -> Option<Vec<u8>> {
        let (offset, total) = (piece.offset as usize, piece.total as usize);
        if total > MAX_PARCEL || offset + piece.bytes.0.len() > total {
            return None;
        }
        if offset == 0 {
            self.0.clear();
        }
        if offset != self.0.len() {
            return None;
        }
        self.0.extend(piece.bytes.0);
        (self.0.len() == total).then(|| std::mem::take(&mut self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(parcel: &[u8]) -> Vec<Piece> {
        cut(Session(1), (CheckpointId(2), Epoch(3)), parcel).collect()
    }

    #[test]
    fn a_parcel_is_whole_after_its_last_piece() {
        let parcel: Vec<u8> = (0..PIECE_BYTES + 3).map(|i| i as u8).collect();
        let (mut assembly, pieces) = (Assembly::default(), pieces(&parcel));
        assert_eq!(pieces.len(), 2);
        assert_eq!(assembly.add(pieces[0].clone()), None);
        assert_eq!(assembly.add(pieces[1].clone()), Some(parcel));
    }

    #[test]
    fn what_comes_out_of_order_or_twice_is_dropped_until_all_is_sent_again() {
        let parcel = vec![7; 2 * PIECE_BYTES];
        let (mut assembly, pieces) = (Assembly::default(), pieces(&parcel));
        for early in [1, 0, 0] {
            assert_eq!(assembly.add(pieces[early].clone()), None);
        }
        assert_eq!(assembly.add(pieces[1].clone()), Some(parcel));
    }

    #[test]
    fn a_piece_beyond_the_end_or_of_too_much_is_dropped() {
        let mut assembly = Assembly::default();
        let piece = pieces(&[1, 2]).remove(0);
        assert_eq!(assembly.add(Piece { total: 1, ..piece.clone() }), None);
        assert_eq!(assembly.add(Piece { total: u32::MAX, ..piece.clone() }), None);
        assert_eq!(assembly.add(piece), Some(vec![1, 2]));
    }

    #[test]
    fn bytes_are_text_in_messages() {
        assert_eq!(serde_json::to_string(&Bytes(vec![0, 255])).unwrap(), "\"AP8=\"");
        assert!(serde_json::from_str::<Bytes>("\"A!\"").is_err());
    }
}
