//! Any datagram is refused, or is a message that comes back byte by byte as it was.

use snowflock_engine::mcdist::geometry::{Geometry, StreamId};
use snowflock_engine::mcdist::message::{FromReceiver, FromSender};
use snowflock_engine::mcdist::seal::{DistributionId, Header, Key, Role, Session};

/// Two streams whose last groups are short.
pub(crate) fn geometry() -> Geometry {
    Geometry::with_page_bytes(&[(StreamId(0), 1000), (StreamId(2), 300)], 64).expect("a geometry")
}

/// As a datagram, and as what stands under its seal.
pub(crate) fn check(bytes: &[u8]) {
    let geometry = geometry();
    if let Ok(message) = FromSender::decode(&geometry, bytes) {
        let mut again = Vec::new();
        message.encode(&geometry, &mut again);
        assert_eq!(again, bytes);
    }
    if let Ok(message) = FromReceiver::decode(&geometry, bytes) {
        let mut again = Vec::new();
        message.encode(&geometry, &mut again);
        assert_eq!(again, bytes);
    }
    if let Ok(header) = Header::parse(bytes) {
        let session =
            Session::new(&Key::from_bytes([9; 32]), DistributionId(1), Role::Sender, header.session);
        assert!(session.open(&header, &mut bytes.to_vec()).is_err(), "nobody but the key's holder seals");
    }
}
