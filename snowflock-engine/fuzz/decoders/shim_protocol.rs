//! Whatever QEMU's process says is refused, or is a message with these very bytes.

use snowflock_engine::shim_protocol::{Reply, Request};

/// As a request and as a reply.
pub(crate) fn check(bytes: &[u8]) {
    if let Ok(request) = Request::decode(bytes) {
        assert_eq!(request.encode(), bytes);
    }
    if let Ok(reply) = Reply::decode(bytes) {
        assert_eq!(reply.encode(), bytes);
    }
}
